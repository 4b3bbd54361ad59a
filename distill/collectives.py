"""What ranks say to each other: sums, tensors and small values of all, and who has failed.

All of it works in a job of one rank too, with or without a process group.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from distill.errors import TrainingStopped, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
"""Into one tensor, by its name since torch 2.13 or before: a list of W tensors would be filled by W
copies, each of which the host starts."""


def _alone(group: dist.ProcessGroup | None = None) -> bool:
    return not dist.is_initialized() or dist.get_world_size(group) == 1


def _collective_device(group: dist.ProcessGroup | None = None) -> torch.device:
    on_cuda = dist.get_backend(group) == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over all ranks, on every rank; any shape, same shape everywhere. ``values`` is kept."""
    return _all_reduce(values, dist.ReduceOp.SUM)


def all_reduce_max(values: torch.Tensor) -> torch.Tensor:
    """Element-wise maximum over all ranks, on every rank. ``values`` is kept."""
    return _all_reduce(values, dist.ReduceOp.MAX)


def _all_reduce(values: torch.Tensor, operation: Any) -> torch.Tensor:
    if _alone():
        return values.clone()
    moved = values.to(_collective_device(), copy=True)
    dist.all_reduce(moved, operation)
    return moved.to(values.device)


def gather_objects(value: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """``value`` of every rank (of ``group``, or of all), in rank order, on every rank.

    Values travel as JSON, never as pickle: lists, dictionaries, strings, numbers, None.
    """
    payload = json.dumps(value).encode()
    if _alone(group):
        return [json.loads(payload)]
    device = _collective_device(group)
    longest = int(gathered(torch.tensor([len(payload)], device=device), group).max())
    padded = torch.frombuffer(bytearray(payload.ljust(longest)), dtype=torch.uint8)
    parts = gathered(padded.to(device), group).cpu().numpy()
    return [json.loads(part.tobytes()) for part in parts]


def from_first(value: Any) -> Any:
    """Rank 0's ``value``, on every rank; it travels as in `gather_objects`."""
    if _alone():
        return json.loads(json.dumps(value))
    device = _collective_device()
    payload = bytearray(json.dumps(value).encode())  # of the others none is sent
    told = torch.frombuffer(payload, dtype=torch.uint8).to(device)
    size = torch.tensor([len(told)], device=device)
    dist.broadcast(size, 0)
    if dist.get_rank():
        told = told.new_empty(int(size))
    dist.broadcast(told, 0)
    return json.loads(told.cpu().numpy().tobytes())


def gathered(values: torch.Tensor, group: dist.ProcessGroup | None = None) -> torch.Tensor:
    """The tensors of all W ranks (of ``group``), of one shape, stacked in rank order: (W, ...)."""
    if _alone(group):
        return values.clone(memory_format=torch.contiguous_format)[None]
    out = values.new_empty((dist.get_world_size(group), *values.shape))
    getattr(dist, _GATHER)(out.view(-1), values.contiguous().view(-1), group)  # gloo takes no other
    return out


def gathered_rows(*columns: torch.Tensor) -> list[torch.Tensor]:
    """The rows of all ranks, one rank after the other, on every rank; on the CPU.

    Args:
        columns: of this rank's rows, each (n, ...) with the same n, which may differ between ranks.
            A rank without rows need not know how wide others' are: its column may be (0, 0).
    """
    shapes = gather_objects([list(column.shape) for column in columns])
    rows = [first[0] for first, *_ in shapes]
    found = []
    for column, everyones in zip(columns, zip(*shapes, strict=True), strict=True):
        widest = map(max, zip(*everyones, strict=True))
        mine = column.reshape(len(column), *list(widest)[1:])
        found.append(_rows_of_all(mine, rows))
    return found


def _rows_of_all(mine: torch.Tensor, rows: list[int]) -> torch.Tensor:
    """Rows of one width, of which rank r has ``rows[r]``."""
    if _alone():
        return mine.cpu()
    padded = mine.new_zeros((max(rows), *mine.shape[1:]), device=_collective_device())
    padded[: len(mine)] = mine
    parts = gathered(padded)
    return torch.cat([part[:count].cpu() for part, count in zip(parts, rows, strict=True)])


def merged_on_first(
    mine: torch.Tensor, merge: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor | None:
    """What ``merge`` leaves of the rows of all ranks, on rank 0; None on the others.

    Two and two ranks put theirs together, in log2(W) rounds: where ``merge`` leaves n rows at most,
    no rank ever holds more than 2 n.

    Args:
        mine: rows of this rank, (n, ...); n may differ between ranks, and be 0.
        merge: leaves some of the rows of two ranks, those of the lower one first.
    """
    distance, world_size = 1, 1 if _alone() else dist.get_world_size()
    rank = dist.get_rank() if world_size > 1 else 0
    while distance < world_size:
        if rank % (2 * distance):
            _send_rows(mine, rank - distance)
            return None
        if rank + distance < world_size:
            mine = merge(torch.cat([mine, _received_rows(mine, rank + distance)]))
        distance *= 2
    return mine


def _send_rows(rows: torch.Tensor, rank: int) -> None:
    moved = rows.to(_collective_device()).contiguous()
    dist.send(torch.tensor([len(moved)], device=moved.device), rank)
    dist.send(moved, rank)


def _received_rows(like: torch.Tensor, rank: int) -> torch.Tensor:
    count = torch.zeros(1, dtype=torch.int64, device=_collective_device())
    dist.recv(count, rank)
    rows = like.new_empty((int(count), *like.shape[1:]), device=count.device)
    dist.recv(rows, rank)
    return rows.to(like.device)


def barrier() -> None:
    """Wait for all ranks."""
    if not _alone():
        dist.barrier()


def echo(values: torch.Tensor, first: int, second: int) -> None:
    """Send ``values`` from rank ``first`` to rank ``second`` and back; all ranks may call it.

    Returns when the values are back; ranks that are neither of the two have nothing to do.
    """
    if dist.get_rank() == first:
        dist.send(values, second)
        dist.recv(values, second)
    elif dist.get_rank() == second:
        dist.recv(values, first)
        dist.send(values, first)
    if values.is_cuda:
        torch.cuda.synchronize(values.device)


@contextmanager
def together() -> Iterator[None]:
    """A block in which a `UserError` of one rank becomes a `UserError` of all.

    Used where ranks check different things (a lock, a local file), so that none waits for a rank
    that has left. The block itself must hold no collective.

    All raise the same, whatever their own: what they do next may be other collectives. It is that
    of the lowest rank; an error comes before a `TrainingStopped`, which the next start meets again.
    """
    mine: UserError | None = None
    try:
        yield
    except UserError as error:
        mine = error
    own = None if mine is None else [mine.what, mine.fix, mine.exit_status]
    failures = [failure for failure in gather_objects(own) if failure is not None]
    if not failures:
        return
    failures.sort(key=_is_stop)  # which keeps the order of ranks
    if mine is not None and own == failures[0]:
        raise mine
    what, fix, _ = failures[0]
    raise (TrainingStopped if _is_stop(failures[0]) else UserError)(what, fix=fix)


def _is_stop(failure: list[Any]) -> bool:
    return bool(failure[2] == TrainingStopped.exit_status)
