"""Packing whose workers fail, are killed, or die in the middle of their work."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children

import cv2
import numpy as np
import pytest

from distill.data.pack import PackOptions, pack
from distill.data.sources import Sample
from distill.errors import UserError

pytestmark = pytest.mark.slow
TWO_WORKERS = PackOptions(aligned=True, workers=2)


def bad_source(read):
    class Source:
        name = "planted"
        expected = None

        def __iter__(self):
            for i in range(40):
                yield Sample(f"ann/{i}.png", "ann", read)

    return Source()


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (
            partial(signal.raise_signal, signal.SIGKILL),
            r"was killed by SIGKILL before any work was done \(the first: ann/.*: out of memory\?;",
        ),
        (
            partial(signal.raise_signal, signal.SIGSEGV),
            r"was killed by SIGSEGV before any work was done \(the first: ann/[0-9]+.png\);",
        ),
        (partial(signal.raise_signal, 40), r"was killed by signal 40 before any work was done \("),
        (partial(int, "planted"), "a worker failed near ann/.*ValueError: invalid literal"),
    ],
    ids=["killed", "crashes", "unnamed", "raises"],
)
def test_a_worker_that_fails_ends_packing_at_once(tmp_path, read, said):
    began = time.monotonic()
    with pytest.raises(UserError, match=said):
        pack(bad_source(read), tmp_path / "out", TWO_WORKERS)
    assert time.monotonic() - began < 300
    assert list(tmp_path.iterdir()) == []


def read_then_die(number):
    """An image, after so many the end of the process."""
    if number >= 20:
        signal.raise_signal(signal.SIGKILL)
    return b"no image"


@pytest.mark.parametrize("before", [False, True])
def test_a_worker_that_dies_later_is_told_by_where(tmp_path, before):
    class Source:
        name, expected = "planted", None

        def __iter__(self):
            for i in range(400):
                # Both are there; one dies before results are waited for, or while they are.
                while before and i == 28 and len(active_children()) > 1:
                    time.sleep(0.01)
                yield Sample(f"ann/{i}.png", "ann", partial(read_then_die, i))

    with pytest.raises(UserError, match=r"was killed by SIGKILL near ann/\d+\.png: out of memory"):
        pack(Source(), tmp_path / "out", TWO_WORKERS)


UNGUARDED = """
import sys
from pathlib import Path
from distill.data.pack import PackOptions, open_source, pack
options = PackOptions(aligned=True, workers=2, kinds={"blur": 1.0})
pack(open_source(sys.argv[1]), Path(sys.argv[2]), options)
"""


def test_a_script_that_its_workers_cannot_load_is_told_so(tmp_path):
    """Python starts a worker by loading the script again, which packs again."""
    people = tmp_path / "people"
    (people / "ann").mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(people / "ann" / f"{i}.png"), np.full((112, 112, 3), i, np.uint8))
    (tmp_path / "script.py").write_text(UNGUARDED)
    command = [sys.executable, tmp_path / "script.py", people, tmp_path / "out"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    last = done.stderr.splitlines()[-1]
    assert "a worker process ended with exit status 1 before any work was done" in last
    assert 'under `if __name__ == "__main__":`' in last and "memory" not in last
    assert not (tmp_path / "out").exists()
