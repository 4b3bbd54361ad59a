"""What an audit reads and counts: ranges of rows, votes, and whose names may be others'."""

import os
import signal
from contextlib import ExitStack
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from distill.audit.centres import Centres
from distill.audit.run import may_be_others
from distill.audit.votes import files_beside, row_type, store, stored
from distill.checkpoint.manifest import Part
from distill.checkpoint.reader import Place, Reader
from distill.errors import UserError
from distill.ranks import Ranks


@pytest.mark.parametrize("bounds", [[0, 7], [0, 3, 5, 7]])
def test_rows_of_a_head_that_ranks_wrote_by_ranges(tmp_path, bounds):
    weight = torch.randn(7, 2, 4, generator=torch.Generator().manual_seed(0))
    parts, places = [], {}
    for first, stop in pairwise(bounds):
        key, file = f"weight/head.weight[{first}:{stop}]", tmp_path / f"{first}.safetensors"
        save_file({key: weight[first:stop].contiguous()}, file)
        parts.append(Part(key, first, stop))
        places[key] = Place(file, key)
    unit = weight / weight.norm(dim=2, keepdim=True)
    with ExitStack() as stack:
        reader = Reader(tmp_path, places, lambda _: parts, stack)
        centres = Centres(reader, "weight/head.weight", (7, 2, 4), torch.device("cpu"))
        for first, stop in ((0, 7), (2, 6), (4, 5)):
            torch.testing.assert_close(centres.rows(first, stop), unit[first:stop])
        some, which = torch.tensor([0, 3, 6]), torch.tensor([1, 0, 1])
        torch.testing.assert_close(centres.chosen(some, which), unit[some, which])


def test_votes_are_counted_and_of_equal_ones_the_first_wins(tmp_path):
    """Also of equal cosines; rows come back as they were, rank by rank."""
    rows = np.zeros(5, row_type(3))
    rows["pair"], rows["class"] = [0, 1, 2, 3, 4], [0, 0, 1, 1, 3]
    rows["own"] = [[0, 0.9, 0], [0, 0, 0.9], [0, 0, 0.9], [0.5, 0.5, 0.5], [0, 0.2, 0.2]]
    votes = np.zeros((4, 3), np.int64)
    for number, part in enumerate((rows[:2], rows[2:])):
        store([part], tmp_path / str(number), votes)
    assert votes.tolist() == [[0, 1, 1], [1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert votes.argmax(1).tolist() == [1, 0, 0, 1]
    back = [part for name in "01" for part in stored(tmp_path / name, rows.dtype)]
    assert np.array_equal(np.concatenate(back), rows)


def test_two_audits_do_not_write_one_list(tmp_path):
    """Each would remove what the ranks of the other have written."""
    out, alone = tmp_path / "audit.csv", Ranks(0, 1, 0, 1, torch.device("cpu"))
    other = os.fork()
    if not other:
        try:
            with files_beside(out, alone) as (file,):
                file.write_bytes(b"of the other")
                os.kill(os.getpid(), signal.SIGSTOP)
                assert file.read_bytes() == b"of the other"
        finally:
            os._exit(3)  # killed before
    os.waitpid(other, os.WUNTRACED)
    try:
        with (
            pytest.raises(UserError, match=r"audit\.csv: another process is writing it"),
            files_beside(out, alone),
        ):
            pass
        assert (tmp_path / ".audit.csv.parts" / "rank-00000").read_bytes() == b"of the other"
    finally:
        os.kill(other, signal.SIGKILL)
        os.waitpid(other, 0)
    with files_beside(out, alone) as (file,):
        assert file.parent.is_dir() and not file.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "trained_on", "expected"),
    [
        (["0", "1"], "b", True),
        (["0", "1"], "a+b", False),
        (["0", "1"], "", False),
        (["0", "ann"], "b", False),
    ],
)
def test_numbers_of_another_pack_may_be_other_people(names, trained_on, expected):
    pack = SimpleNamespace(manifest=SimpleNamespace(identities=names, digest="a"))
    assert may_be_others(pack, SimpleNamespace(packs_digest=trained_on)) == expected
