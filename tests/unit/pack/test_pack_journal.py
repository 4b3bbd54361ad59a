"""The first round after a kill: photographs that were looked at are not looked at again."""

from contextlib import closing

import numpy as np
import pytest

from distill.data.faces import TEMPLATE, AlignedFace
from distill.data.pack import photos
from distill.data.pack.journal import JOURNAL_NAME, Journal, Record
from distill.data.pack.options import PackOptions
from distill.data.pack.photos import survey
from distill.data.pack.spool import read_face, rows_in, write_faces
from distill.data.pack.work import Looked
from distill.data.sources import Sample
from distill.data.workers import Team
from distill.errors import UserError


class Photographs:
    name, expected = "drawn", None

    def __init__(self, names):
        self.names = names

    def __iter__(self):
        return (Sample(f"{name}.png", name[0], bytes) for name in self.names)


def face_of(origin):
    """A face for most photographs, drawn from the name."""
    seed = sum(origin.encode())
    if seed % 3 == 0:
        return None
    rgb = np.random.default_rng(seed).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    return AlignedFace(rgb, TEMPLATE)


@pytest.fixture
def surveyed(monkeypatch):
    """Looks at photographs, perhaps only some; gives what came of them, and who was looked at."""

    def survey_of(folder, names, stop=None):
        looked = []

        def look(photographs, _landmarks, spool, named):
            results = []
            for row, sample in photographs:
                if len(looked) == stop:
                    raise KeyboardInterrupt
                looked.append(sample.origin)
                face, digest = face_of(sample.origin), sample.origin.encode().ljust(32)
                write_faces(spool, [(row, face)] if face else [], named)
                note = "" if face else "no face found"
                record = Record(sample.origin, sample.identity, face is not None, digest, note)
                results.append(Looked(record.line(), face is not None, digest))
            return results

        monkeypatch.setattr(photos, "look", look)
        spool = folder / "spool"
        spool.touch()
        done = []
        with closing(Journal(folder / JOURNAL_NAME, folder)) as journal:
            found = survey(
                Photographs(names), PackOptions(), journal, spool, Team(None, 1), done.append
            )
            result = list(found.photos), list(found.rejected()), found.names, found.digest
        assert sum(done) == len(names) == found.seen
        return result, looked

    return survey_of


NAMES = [f"{person}{i}" for person in "abc" for i in range(9)]


@pytest.fixture
def killed(surveyed):
    def kill(folder, names, after):
        """Ended by Ctrl-C in the middle; results come in fours."""
        with pytest.raises(KeyboardInterrupt):
            surveyed(folder, names, stop=after)

    return kill


def test_only_the_rest_is_looked_at_and_nothing_differs(tmp_path, surveyed, killed):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, _ = surveyed(tmp_path / "whole", NAMES)
    killed(tmp_path / "cut", NAMES, 11)
    killed(tmp_path / "cut", NAMES, 9)
    found, looked = surveyed(tmp_path / "cut", NAMES)
    assert found == whole
    assert looked == [f"{name}.png" for name in NAMES[16:]]
    for name in ("spool", JOURNAL_NAME):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    usable, rejected, people, _ = found
    assert people == ["a", "b", "c"] and len(usable) + len(rejected) == len(NAMES)
    for photo in usable:
        stored = read_face(str(tmp_path / "cut" / "spool"), photo.row)
        assert np.array_equal(stored.rgb, face_of(photo.origin).rgb)


@pytest.mark.parametrize("damage", ["journal", "spool"])
def test_a_line_or_a_face_that_did_not_reach_the_disk_is_looked_at_again(
    tmp_path, damage, surveyed, killed
):
    whole, _ = surveyed(tmp_path, NAMES)
    (tmp_path / JOURNAL_NAME).unlink()
    (tmp_path / "spool").unlink()
    killed(tmp_path, NAMES, 12)
    file = tmp_path / (JOURNAL_NAME if damage == "journal" else "spool")
    file.write_bytes(file.read_bytes()[:-9])
    found, looked = surveyed(tmp_path, NAMES)
    assert found == whole
    assert looked[0] in [f"{name}.png" for name in NAMES[6:12]]


@pytest.mark.parametrize("lost", ["a page", "all", "the end"])
def test_a_face_that_a_failing_machine_lost_is_never_a_black_one(tmp_path, surveyed, killed, lost):
    """Of two files, the disk may have the last bytes of one and not those of the other."""
    killed(tmp_path, NAMES, 12)
    (usable, *_), _ = surveyed(tmp_path, NAMES)
    first, *others = [photo.row for photo in usable]
    spool = tmp_path / "spool"
    size = spool.stat().st_size // rows_in(spool)
    start, end = {"a page": (4096, 8192), "all": (0, size), "the end": (size - 99, size)}[lost]
    with spool.open("r+b") as file:
        file.seek(first * size + start)
        file.write(bytes(end - start))
    with pytest.raises(UserError, match=f"photograph {first} is not there any more") as caught:
        read_face(str(spool), first)
    assert "pack again" in caught.value.fix
    for row in others:
        read_face(str(spool), row)
    with pytest.raises(UserError, match="not there any more"):
        read_face(str(spool), rows_in(spool))


def test_other_photographs_are_all_looked_at(tmp_path, surveyed, killed):
    killed(tmp_path, NAMES, 12)
    others = ["new", *NAMES]
    (usable, rejected, _, _), looked = surveyed(tmp_path, others)
    assert looked == [f"{name}.png" for name in others]
    assert sorted([*(p.origin for p in usable), *(r.path for r in rejected)]) == sorted(looked)


@pytest.mark.parametrize("name", ["plain", 'with\nline, "quote" and ü', "\udcff\udc80", ""])
def test_any_name_survives_the_journal(tmp_path, name):
    record = Record(name, name[::-1], True, bytes(range(32)), name)
    other = Record("x", "y", False, b"", "empty file")
    for _ in range(2):
        with closing(Journal(tmp_path / "journal", tmp_path)) as journal:
            journal.begin()
            journal.add(r.line() for r in (record, other, record))
            journal.flush()
            assert list(journal) == [record, other, record] and journal.record(1) == other
    with closing(Journal(tmp_path / "journal", tmp_path)) as journal:
        assert list(journal.resume(2)) == [record, other]  # the face of row 2 is not there


def test_a_journal_of_another_form_counts_as_none(tmp_path):
    (tmp_path / "journal").write_text('{"of": ["a", "b"], "face": 1}\n[1, 2]\n')
    with closing(Journal(tmp_path / "journal", tmp_path)) as journal:
        assert list(journal.resume(9)) == []


def test_many_origins_are_those_of_the_records(tmp_path):
    """Read in pieces; names hold what JSON escapes, and bytes that are no text."""
    odd = ('"', "\\", "\n", "\x85\u2028", "é", "\udcff", ", ")
    names = [f"{odd[i % len(odd)]}{i}.png" for i in range(9_000)]
    with closing(Journal(tmp_path / JOURNAL_NAME, tmp_path)) as journal:
        journal.add(Record(name, "a", True, bytes(32), name).line() for name in names)
        journal.flush()
        rng = np.random.default_rng(0)
        for count in (0, 1, 7, 4_000, 9_000):
            numbers = np.sort(rng.choice(9_000, count, replace=False)).astype(np.uint32)
            assert list(journal.origins(numbers)) == [names[number] for number in numbers]
            told = [(one.origin, one.note) for one in journal.records(numbers)]
            assert told == [(names[number], names[number]) for number in numbers]
        far = np.array([0, 4_095, 4_096, 8_191, 8_192, 8_999], np.uint32)
        assert list(journal.origins(far)) == [journal.record(int(n)).origin for n in far]
