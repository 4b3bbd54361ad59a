"""Lists of `data.exclude` that name whole people."""

import numpy as np
import pytest

from distill.data.excluded import read_excluded
from distill.errors import UserError


def listed(path, pack, rows):
    """A list of rows of pair, also, identity."""
    lines = [",".join(map(str, [pack.manifest.digest[:16], *row])) for row in rows]
    path.write_text("\n".join(["pack,pair,also,identity", *lines, ""]))
    return path


def labels_of(pack):
    return np.concatenate([shard.samples["label"] for shard in pack.index.shards])


def test_all_in_place_of_a_pair_is_all_of_an_identity(online, small_pack, tmp_path):
    labels = labels_of(online)
    photograph = int(np.flatnonzero(labels == 3)[0])  # of one who is listed as a whole, too
    rows = [["all", "", f"person {n}"] for n in (0, 2, 3, 3)]  # of person 2 there is nothing
    path = listed(tmp_path / "a.csv", online, [*rows, [photograph, "", "person 3"]])
    left = read_excluded([path], [online])
    assert left.gaps.left_out.tolist() == np.flatnonzero(np.isin(labels, (0, 3))).tolist()
    assert left.runs.tolist() == labels[np.isin(labels, (0, 3))].tolist()
    for pack, row, said in (
        (online, ["all", "1", "person 0"], "'all' is none of the"),
        (online, ["all", "", "nobody"], "nobody in its pack is called 'nobody'"),
        (small_pack, ["all", "", "person 1"], "do not lie together"),
    ):
        with pytest.raises(UserError, match=said):
            read_excluded([listed(tmp_path / "b.csv", pack, [row])], [pack])
