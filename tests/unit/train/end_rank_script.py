"""The end of a run on two ranks, of which one writes the weights; for test_end.py, no test itself.

python end_rank_script.py OUT SECONDS WHAT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from distill import milestones
from distill.checkpoint import TrainState
from distill.config.tree import Config
from distill.processes.spawn import spawned_rank
from distill.processes.watchdog import Watchdog
from distill.ranks import from_environment, init_process_group, leave_process_group
from distill.run_dir import RunDir


def main(out: str, seconds: str, what: str) -> None:
    torch.set_num_threads(1)
    config = Config()
    ranks = from_environment(config)
    init_process_group(config, ranks)
    run = RunDir(Path(out))

    def slow_disk(*_: object, advance: Any, **__: object) -> None:
        for part in range(20 if what == "slow" else 200):
            time.sleep(float(seconds) / 8)
            if what == "slow" or part < 3:
                advance()

    milestones.export_weights = slow_disk
    milestones.completion = lambda *_: {}
    with Watchdog(run.ranks, ranks.rank, ranks.world_size, float(seconds)) as dog:
        job: Any = SimpleNamespace(
            config=config,
            plan=SimpleNamespace(run=run, evaluates=False),
            monitor=SimpleNamespace(say=lambda _: None),
            watchdog=dog,
            ranks=ranks,
            saved=(8, run.checkpoints),
        )
        milestones.finish(job, TrainState(step=8))
    leave_process_group()


with spawned_rank():
    main(*sys.argv[1:])
