"""A process that has imported what programs import, and forks them for tests; no test itself.

    python rank_parent.py

Importing torch, the part of it that every optimizer loads, and DeepSpeed takes five seconds of
processor time, and tests start hundreds of ranks. It is asked as `forked.serve` says. The local
ranks that a program starts itself (`distill.processes.spawn`) are forks too: parents, groups,
signals and descriptors are as if all had been started anew.
"""

from __future__ import annotations

# What the programs import: a fork has it already.
import torch._dynamo  # every optimizer asks for it
import torch.utils.cpp_extension  # DeepSpeed asks for it
import torch.utils.tensorboard  # noqa: F401
from forked import FORKING, serve

import distill.__main__
import distill.checkpoint
import distill.cli.app
import distill.engine
import distill.evaluate.picture
import distill.evaluate.sets
import distill.processes.spawn
import distill.train
from distill.losses.fused import native_devices
from distill.processes.variables import variable

with variable("DS_ACCELERATOR", "cpu"):  # as `distill.engine` has it
    import deepspeed  # noqa: F401

if __name__ == "__main__":
    native_devices()  # registers the operators
    distill.processes.spawn.subprocess = FORKING  # type: ignore[assignment]
    serve()
