"""Batches on the GPU before they are needed: the next is copied while this one is worked on."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from distill.data.batch import OrderState, PairBatch

Item = tuple[PairBatch, OrderState]


def on_device(batches: Iterator[Item], device: torch.device) -> Iterator[Item]:
    """The same batches on ``device``; on CUDA one batch ahead, on a stream of its own.

    The copies run beside the step where the batches are page-locked (the readers see to that). The
    step's stream waits for its own batch alone, and the memory is not given to another before the
    step is done with it.

    Args:
        batches: with the places after them; endless, or not.
        device: where to.
    """
    if device.type != "cuda":
        for batch, place in batches:
            yield batch.to(device), place
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead = _copied(batches, device, stream)
    while ahead is not None:
        (batch, place), done = ahead
        ahead = _copied(batches, device, stream)
        current = torch.cuda.current_stream(device)
        current.wait_event(done)
        for tensor in batch.tensors:
            tensor.record_stream(current)
        yield batch, place


def _copied(
    batches: Iterator[Item], device: torch.device, stream: torch.cuda.Stream
) -> tuple[Item, torch.cuda.Event] | None:
    """The next batch, its copy under way, and when it will be done; None at the end."""
    item = next(batches, None)
    if item is None:
        return None
    with torch.cuda.stream(stream):
        copy = item[0].to(device)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(stream)
    return (copy, item[1]), done
