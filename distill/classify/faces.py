"""Faces of many photographs, prepared by several processes while the network works on others.

What the network computes depends on which faces it gets together, in the last bit: lots are the
same whatever the number of processes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TypedDict, TypeVar

import torch

from distill.data.detector import FaceDetector
from distill.data.images import Pixels
from distill.data.one_face import face_or_reason
from distill.data.workers import team
from distill.processes.cores import usable_cores

Item = TypeVar("Item")

LOT = 32
"""Photographs whose faces go through the network together."""
WORTH_A_PROCESS = 16
"""Photographs whose faces take as long to find as a process takes to start; see docs/log.md."""
ALIGNED_WORTH_A_PROCESS = 4096
"""The same of aligned ones, which are only decoded, while the network works on a GPU."""

Found = tuple[list[Path], list[Pixels | str]]
"""Photographs, and of each its aligned face, (112, 112, 3) uint8, or why there is none."""


class Preparing(TypedDict, total=False):
    """How photographs become faces.

    Attributes:
        aligned: they are aligned faces already: no detection.
        workers: processes that find and align faces; 1, where nothing is said, is this one itself,
            0 one a core where there are many photographs (of aligned ones, beside a GPU). A program
            that asks for others does so in a file, under ``if __name__ == "__main__":``.
        advance: called after each photograph.
    """

    aligned: bool
    workers: int
    advance: Callable[[], None]


def lots_of_faces(
    photographs: Collection[Path],
    device: torch.device,
    *,
    aligned: bool = False,
    workers: int = 1,
    advance: Callable[[], None] = lambda: None,
) -> Iterator[Found]:
    """All photographs in their order, in lots of `LOT`, the last one smaller.

    Args:
        photographs: files.
        device: where the network works on earlier ones meanwhile.
        aligned: as the others, see `Preparing`.
        workers: processes.
        advance: called after each photograph.

    Raises:
        UserError: a worker process ended or was killed.
    """
    detector = None if aligned else FaceDetector()
    processes = processes_for(workers, len(photographs), device, aligned=aligned)
    with closing(_faces(photographs, detector, processes)) as faces:
        told = _telling(faces, advance)
        while lot := list(islice(told, LOT)):
            yield [path for path, _ in lot], [face for _, face in lot]


def processes_for(workers: int, photographs: int, device: torch.device, *, aligned: bool) -> int:
    """Processes that prepare faces; 1 is this one, and no other is started.

    Args:
        workers: how many are asked for; 0 for one a core, as far as they are worth their start.
        photographs: how many there are.
        device: of the network. On a CPU it needs the cores itself: it takes many times as long for
            a face as decoding an aligned one does.
        aligned: as of `Preparing`.
    """
    if workers:
        return max(1, min(workers, photographs))
    if aligned and device.type == "cpu":
        return 1
    worth = photographs // (ALIGNED_WORTH_A_PROCESS if aligned else WORTH_A_PROCESS)
    return max(1, min(usable_cores(), worth))


def _faces(
    photographs: Collection[Path], detector: FaceDetector | None, processes: int
) -> Generator[tuple[Path, Pixels | str], None, None]:
    """Each photograph with its face or the reason."""
    if processes == 1:
        yield from ((path, face_or_reason(path, detector)) for path in photographs)
        return
    with team(processes) as workers:
        yield from workers.do(face_or_reason, photographs, detector, name=str)


def _telling(items: Iterator[Item], advance: Callable[[], None]) -> Iterator[Item]:
    for item in items:
        advance()
        yield item
