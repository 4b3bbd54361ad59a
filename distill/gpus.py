"""NVIDIA GPUs of this machine, found without torch, which may not see them (`ranks.idle_gpus`)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")
"""What the kernel's driver says of itself; in most containers too, with GPUs and without."""
DEVICES = Path("/dev")
NO_DEVICE = {"", "-1", "NoDevFiles"}
"""What stands in CUDA_VISIBLE_DEVICES for no GPU at all: for CUDA, and for Slurm."""
REMEDY = (
    "install a build of torch for CUDA that the driver serves (CONTRIBUTING.md), start a container"
    " with its GPUs (apptainer --nv, docker --gpus all), or set run.device=cpu"
)

BUILD_LOSS = (
    "load a CUDA toolkit, so that nvcc is on the PATH (on many clusters `module load cuda`), and"
    " run `make setup` in the repository"
)
"""What to do where the native loss is built for the CPU alone."""


def here() -> str:
    """Which NVIDIA driver or devices this machine has, in words; empty for none."""
    try:
        found = re.search(r"\d{3,}\.\d+(\.\d+)?", DRIVER.read_text(encoding="utf-8"))
        return f"NVIDIA driver {found[0]}" if found else "an NVIDIA driver"
    except OSError:
        pass
    devices = sorted(path.name for path in DEVICES.glob("nvidia[0-9]*"))
    return f"/dev/{devices[0]}" if devices else ""


def withheld(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether GPUs of this machine are not for this process: hidden, or of a job without any."""
    of_job = "SLURM_JOB_ID" in environment and environment.get("SLURM_GPUS_ON_NODE", "0") == "0"
    return of_job or environment.get("CUDA_VISIBLE_DEVICES") in NO_DEVICE
