"""A backbone as one graph that `torch.compile` makes kernels of, fewer and fused ones.

Only the call of the backbone is compiled, in place: no parameter gets another name, so checkpoints
and runs without it know the same network. Head and loss stay as they are, and so does evaluation,
whose batches have many sizes. Torch makes the kernels in the first step.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from distill.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import nn

    from distill.config.tree import Config

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
# Without it torch times kernels on a GPU and takes the fastest: another one, another rounding.
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"deterministic": True}
_NEEDS = {
    "cpu": "a C++ compiler (g++, or what CXX names)",
    "cuda": "Triton (a part of torch for CUDA), a C compiler",
}


def compile_backbone(backbone: nn.Module) -> None:
    """Have ``backbone`` compiled when it is first called; every call must be of one batch size."""
    backbone.compile(dynamic=False, options=_OPTIONS)


def uncompiled() -> AbstractContextManager[None]:
    """A block in which compiled backbones run operator by operator, and nothing is compiled."""
    block: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return block


def check_compiled(config: Config, device: torch.device) -> None:
    """Refuse a compiled backbone where there cannot be one; a small function is compiled for that.

    Raises:
        UserError: ZeRO 3, a cache that others may write to, or no compiler that works.
    """
    check_stage(config)
    if not config.model.compile:
        return
    try:
        _check_cache()
        torch.compile(_anything, dynamic=False, options=_OPTIONS)(torch.ones(8, device=device))
    except (OSError, ImportError, RuntimeError) as error:
        cause = getattr(error, "inner_exception", error)
        what = next(iter(str(cause).splitlines()), "") or type(cause).__name__
        raise UserError(
            f"model.compile = true: torch cannot compile on this machine: {what}",
            fix=f"install {_NEEDS[device.type]} and Python's headers, or set model.compile to"
            f" false; {_CACHE} says where there is room for what is compiled",
        ) from error


def check_stage(config: Config) -> None:
    """Refuse a compiled backbone whose weights are gathered layer by layer.

    Raises:
        UserError: ZeRO 3.
    """
    if config.model.compile and config.train.zero_stage == 3:
        raise UserError(
            "model.compile = true: not with train.zero_stage = 3, whose hooks gather the weights"
            " of every layer and cut the graph there",
            fix="set train.zero_stage to 0, 1 or 2, or model.compile to false",
        )


def _anything(x: torch.Tensor) -> torch.Tensor:
    return x * x + 1.0


def _check_cache() -> None:
    """Refuse a cache in the folder for temporary files, torch's default, that is not ours alone.

    Torch runs what it finds there; a folder that somebody chose is taken as it is.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    folder = Path(default_cache_dir())
    if os.environ.get(_CACHE, str(folder)) != str(folder):
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not ours or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError(
            f"model.compile = true: others may write to {str(folder)!r}, where torch keeps compiled"
            " code, and so run code here",
            fix=f"remove it, or set {_CACHE} to a folder of your own",
        )
