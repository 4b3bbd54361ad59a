"""Numbers that a device has and the host is to know, without waiting for them at once."""

from __future__ import annotations

import torch


class OnHost:
    """The values of a tensor on their way to the host.

    A host that asks a CUDA device for a number waits for all that the device was given before. This
    copy is under way at once, and is waited for by itself: what the device was given after it
    may still be at work when the numbers are read.

    Args:
        values: any shape and type, read in the order of the current stream.
    """

    def __init__(self, values: torch.Tensor) -> None:
        self._values = values.to("cpu", non_blocking=True)  # into page-locked memory
        self._there: torch.cuda.Event | None = None
        if values.is_cuda:
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._there.record(torch.cuda.current_stream(values.device))

    def read(self) -> list[float]:
        """The values, once they are there."""
        if self._there is not None:
            self._there.synchronize()
        return self._values.tolist()


def to_device(numbers: list[float], device: torch.device) -> torch.Tensor:
    """Float64 (n,) on ``device``, without the host waiting for the copy."""
    values = torch.tensor(numbers, dtype=torch.float64, pin_memory=device.type == "cuda")
    return values.to(device, non_blocking=True)
