"""job.json: all that a job needs to know, as plain data, so that nothing of it is in a pickle."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from distill.files import write_whole


@dataclass(frozen=True)
class JobFile:
    """What a job is to do.

    Attributes:
        run: the run folder.
        config: file with the resolved configuration.
        code_digest: digest of the sources that are to run.
        world_size: number of ranks W.
        gpus_per_node: GPUs that each node is to have.
        logs: folder of the ranks' logs.
        scratch: folder on the node's own disk for packs; empty to read them where they are.
        min_allreduce_gb_per_s: slowest all-reduce that passes.
        max_clock_skew_seconds: largest difference of clocks that passes.
    """

    run: str
    config: str
    code_digest: str
    world_size: int
    gpus_per_node: int = 0
    logs: str = ""
    scratch: str = ""
    min_allreduce_gb_per_s: float = 0.0
    max_clock_skew_seconds: float = 5.0

    def write(self, path: Path) -> None:
        """Write to ``path``."""
        write_whole(path, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, path: Path) -> JobFile:
        """What `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))
