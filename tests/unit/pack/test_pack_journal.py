"""The first round after a kill: photographs that were looked at are not looked at again."""

from dataclasses import replace

import numpy as np
import pytest

from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.pack.journal import JOURNAL_NAME, journalled
from distill.data.pack.spool import SpoolWriter, read_face
from distill.data.pack.work import Prepared
from distill.data.sources import Sample


class Photographs:
    name, expected = "drawn", None

    def __init__(self, names):
        self.names = names

    def __iter__(self):
        return (Sample(f"{name}.png", name[0], bytes) for name in self.names)


def prepared(sample):
    """A face for most photographs, drawn from the name."""
    seed = sum(sample.origin.encode())
    digest = bytes([seed % 256]) * 32
    if seed % 3 == 0:
        return Prepared(digest, None, "no face found")
    rgb = np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    return Prepared(digest, AlignedFace(rgb, TEMPLATE), "")


def surveyed(folder, names, stop=None):
    """Looks at photographs, perhaps only some; gives what came of them, and who was looked at."""
    looked, found = [], []

    def look(samples):
        for sample in samples:
            looked.append(sample.origin)
            yield sample, prepared(sample)

    with SpoolWriter(folder / "spool", folder) as spool:
        for number, (sample, result) in enumerate(journalled(Photographs(names), look, spool)):
            if number == stop:
                raise KeyboardInterrupt
            row = None if result.face is None else spool.append(result.face)
            found.append((sample.origin, replace(result, face=None), row))
    return found, looked


NAMES = [f"{person}{i}" for person in "abc" for i in range(9)]


def killed(folder, names, after):
    with pytest.raises(KeyboardInterrupt):
        surveyed(folder, names, stop=after)


def test_only_the_rest_is_looked_at_and_nothing_differs(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, _ = surveyed(tmp_path / "whole", NAMES)
    killed(tmp_path / "cut", NAMES, 11)
    killed(tmp_path / "cut", NAMES, 16)
    found, looked = surveyed(tmp_path / "cut", NAMES)
    assert found == whole
    assert looked == [f"{name}.png" for name in NAMES[16:]]
    assert (tmp_path / "cut" / "spool").read_bytes() == (tmp_path / "whole" / "spool").read_bytes()
    for origin, _, row in found:
        if row is not None:
            expected = prepared(Sample(origin, "", bytes)).face
            assert np.array_equal(read_face(str(tmp_path / "cut" / "spool"), row).rgb, expected.rgb)


@pytest.mark.parametrize("damage", ["journal", "spool"])
def test_a_line_or_a_face_that_did_not_reach_the_disk_is_looked_at_again(tmp_path, damage):
    killed(tmp_path, NAMES, 12)
    file = tmp_path / (JOURNAL_NAME if damage == "journal" else "spool")
    file.write_bytes(file.read_bytes()[:-9])
    whole, looked = surveyed(tmp_path, NAMES)
    assert len(whole) == len(NAMES)
    assert looked[0] in [f"{name}.png" for name in NAMES[6:12]]


def test_other_photographs_are_all_looked_at(tmp_path):
    killed(tmp_path, NAMES, 12)
    others = ["new", *NAMES]
    found, looked = surveyed(tmp_path, others)
    assert looked == [f"{name}.png" for name in others]
    assert [origin for origin, *_ in found] == looked
