"""How a rank plays the scenarios of a script that ranks run, and tells what it saw; no test itself.

python SCRIPT PHASE FOLDER RANK WORLD_SIZE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from distill.ranks import Ranks, leave_process_group

Scenario = Callable[[Ranks, Path], object]


def play_rank(phases: Mapping[str, Sequence[Scenario]]) -> None:
    """Be the rank that the command line names, and write what it saw to FOLDER/PHASE-RANK.json."""
    phase, folder, rank, world_size = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:5])
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / f"store-{phase}"), world_size)
    dist.init_process_group(
        "gloo", store=store, rank=rank, world_size=world_size, timeout=timedelta(seconds=300)
    )
    ranks = Ranks(rank, world_size, rank, world_size, torch.device("cpu"))
    found = {scenario.__name__: scenario(ranks, folder) for scenario in phases[phase]}
    (folder / f"{phase}-{rank}.json").write_text(json.dumps(found))
    leave_process_group()
