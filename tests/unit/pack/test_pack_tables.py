"""The tables of a pack, stopped at any instant."""

from __future__ import annotations

from contextlib import closing

import pytest

from distill.data.pack.resume import RowFiles
from distill.data.pack.tables import Table


def test_ctrl_c_right_after_a_table_was_ended_is_ctrl_c(tmp_path, monkeypatch):
    """And no error about a closed file, which is ended once more on the way out."""
    ended = Table.close

    def interrupted(table):
        monkeypatch.undo()
        ended(table)
        raise KeyboardInterrupt

    rows = RowFiles(tmp_path, tmp_path, 0)
    rows.add(0, "ann", "blur")
    monkeypatch.setattr(Table, "close", interrupted)
    with pytest.raises(KeyboardInterrupt), closing(rows):
        rows.turn()
    assert [part.read_text() for part in tmp_path.iterdir()] == ["0,ann,blur\n"]
