"""Two processes of this machine meet and add up a number, the way ranks of a training run do.

`python -m distill.doctor.ring` starts them and leaves with status 0 when both got the right sum.
"""

from __future__ import annotations

import os
import sys

from distill.processes.spawn import spawn_local, spawned_rank

RANKS = 2


def main() -> int:
    """The parent starts the ranks; a rank takes part in one all-reduce."""
    if "RANK" in os.environ:
        with spawned_rank():
            add_up()
        return 0
    return spawn_local([], RANKS, program=(sys.executable, "-m", "distill.doctor.ring"))


def add_up() -> None:
    """Sum 1 + rank over all ranks and check the result."""
    import torch

    from distill.collectives import all_reduce_sum
    from distill.config import Config
    from distill.ranks import from_environment, init_process_group, leave_process_group

    config = Config.model_validate({"run": {"device": "cpu"}})
    ranks = from_environment(config)
    init_process_group(config, ranks)
    total = all_reduce_sum(torch.tensor([1.0 + ranks.rank])).item()
    leave_process_group()
    if total != sum(range(1, RANKS + 1)):
        raise RuntimeError(f"all-reduce over {RANKS} ranks gave {total}")


if __name__ == "__main__":
    sys.exit(main())
