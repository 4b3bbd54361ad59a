"""Speed of second images: each kind in one thread, and a loader's mixture in several.

Prints milliseconds an image of 112x112 (processor time, so that a busy machine tells the same),
and pairs a second of `SecondMaker`. Needs openpeople.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from distill.data.images import decode
from distill.data.locate import locate
from distill.data.pack.options import DEFAULT_KINDS
from distill.data.second import KINDS, SecondOptions
from distill.data.second.online import SecondMaker, face_row, face_rows, way_bits
from distill.data.sources.openpeople import OpenPeopleSource
from distill.processes.cores import usable_cores

PAIRS = 512


def main() -> None:
    """Prints the table."""
    people = OpenPeopleSource(4)
    samples = [
        s for s in people if not {"head", "body"} & set(s.origin.replace("_", "/").split("/"))
    ]
    faces = [locate(decode(s.read()), "auto", None)[0] for s in samples[::2]]
    order = np.arange(PAIRS) % len(faces)
    images = np.stack([faces[i].rgb for i in order])
    rows = face_rows(np.frombuffer(b"".join(face_row(faces[i]) for i in order), np.uint8))
    for kind in KINDS:
        maker = SecondMaker(0, {kind: 1.0}, SecondOptions())
        drawn = np.full(PAIRS, way_bits(kind), np.int64)
        print(f"{kind:10} {1000 * _seconds(maker, drawn, images, rows, 1)[0] / PAIRS:.2f} ms")
    maker = SecondMaker(0, DEFAULT_KINDS)
    drawn = maker.draw(np.zeros(PAIRS, np.int64), np.arange(PAIRS))
    for threads in sorted({1, usable_cores()}):
        used, passed = _seconds(maker, drawn, images, rows, threads)
        print(f"default kinds, {threads} threads: {1000 * used / PAIRS:.2f} ms of CPU a pair, "
              f"{PAIRS / passed:.0f} pairs/s")  # fmt: skip


def _seconds(
    maker: SecondMaker, drawn: np.ndarray, images: np.ndarray, rows: np.ndarray, threads: int
) -> tuple[float, float]:
    """Processor and wall time of all pairs."""
    maker.warm_up()
    ids, out = np.arange(PAIRS), np.empty_like(images)
    others = np.roll(ids, 1)

    def make(run: np.ndarray) -> None:
        part = slice(run[0], run[-1] + 1)
        maker.make(
            np.zeros(len(run), np.int64), run, drawn[part], images[part], rows[part], others[part],
            images[others[part]], rows[others[part]], out[part],
        )  # fmt: skip

    used, passed = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(make, np.array_split(ids, threads)))
    return time.process_time() - used, time.perf_counter() - passed


if __name__ == "__main__":
    main()
