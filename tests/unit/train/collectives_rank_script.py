"""What the ranks do in test_collectives.py; no test itself.

python collectives_rank_script.py OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from distill.collectives import (
    from_first,
    gather_objects,
    gathered,
    gathered_rows,
    merged_on_first,
    together,
)
from distill.config.tree import Config
from distill.errors import TrainingStopped, UserError
from distill.ranks import from_environment, init_process_group, leave_process_group


def largest(rank: int, count: int, seen: list[int]) -> list[int] | None:
    """The ``count`` largest of all ranks' numbers, of which rank 1 has none."""
    mine = torch.tensor([] if rank == 1 else [10 + rank, rank, 20 - rank])[:, None]

    def merge(rows: torch.Tensor) -> torch.Tensor:
        seen.append(len(rows))
        return rows.sort(0, descending=True).values[:count]

    found = merged_on_first(mine.long(), merge)
    return None if found is None else found[:, 0].tolist()


def raised(mine: UserError | None) -> list[object]:
    """What this rank ends a block with where its own error is ``mine``, and if it is that one."""
    try:
        with together():
            if mine is not None:
                raise mine
    except UserError as error:
        return [type(error).__name__, str(error), error is mine]
    return []


def failures(rank: int) -> list[list[object]]:
    """Of a stop, a file that one rank cannot read, and several; none of the ranks waits."""
    stop, corrupt = TrainingStopped("asked to stop"), UserError("pair 7 is corrupt", fix="mend it")
    rounds = [
        [None, None, None],
        [stop, corrupt, None],
        [None, stop, stop],
        [None, UserError("one"), UserError("two")],
    ]
    return [raised(errors[rank]) for errors in rounds]


def main(out: str) -> None:
    torch.set_num_threads(1)
    config = Config()
    ranks = from_environment(config)
    init_process_group(config, ranks)
    rank = ranks.rank
    stacked = gathered(torch.full((3, 2), float(rank)).T)  # not contiguous
    # the first rank has no rows, and does not know how wide they are
    numbers, rows = gathered_rows(
        torch.full((rank,), rank), torch.full((rank, 2 if rank else 0), rank)
    )
    seen: list[int] = []
    told = {
        "largest": largest(rank, 3, seen),
        "seen": seen,
        "stacked": stacked.tolist(),
        "numbers": numbers.tolist(),
        "rows": rows.tolist(),
        "nothing": list(gathered_rows(torch.zeros(0, 2))[0].shape),
        "scalars": gathered(torch.tensor(rank > 0)).tolist(),
        "first": from_first([rank, "é" * (9 - rank)]),
        "objects": gather_objects({"rank": rank}),
        "failures": failures(rank),
    }
    Path(out, f"rank{rank}.json").write_text(json.dumps(told))
    leave_process_group()


main(*sys.argv[1:])
