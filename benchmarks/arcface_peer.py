"""InsightFace's arcface_torch on the CPU, from a checkout, in the order of its `train_v2.py`.

Nothing of it is here: its modules are imported from the folder that is given. What they ask of a
GPU alone is answered for the CPU (`.cuda()` gives the tensor itself), and what newer versions of
torch no longer take (`verbose` of a schedule) is left out. Its tests of faces read pictures with
mxnet, which is not needed for what is used of them.

Licence of arcface_torch: MIT for its code; see its repository.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel
from torch.optim import lr_scheduler

from distill.checkpoint.arcface import BACKBONE_PREFIX, own_name

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIP_NORM, MOMENTUM, SCALE = 5.0, 0.9, 64
"""Numbers that stand in its `train_v2.py`."""
PART = Path("recognition", "arcface_torch")
"""Where it is in a checkout of insightface."""


def module_of(checkout: Path, name: str) -> ModuleType:
    """A module of a checkout: of insightface, or of the folder arcface_torch itself."""
    folder = checkout / PART if (checkout / PART).is_dir() else checkout
    if not (folder / "partial_fc_v2.py").is_file():
        raise SystemExit(f"error: {checkout} is no checkout of insightface or its arcface_torch")
    answer_for_the_cpu()
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def answer_for_the_cpu() -> None:
    """Let `.cuda()` be the identity, and schedules take `verbose` again.

    Names that torch is about to drop are theirs to change: nothing is said of them.
    """
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", UserWarning)

    def itself(one: Any, *_args: object, **_options: object) -> Any:
        return one

    torch.Tensor.cuda = itself  # type: ignore[method-assign]
    nn.Module.cuda = itself  # type: ignore[method-assign]
    if not hasattr(lr_scheduler.LRScheduler, "takes_verbose"):
        begin = lr_scheduler.LRScheduler.__init__

        def init(self: Any, *args: Any, verbose: bool = False, **options: Any) -> None:
            begin(self, *args, **options)

        lr_scheduler.LRScheduler.__init__ = init  # type: ignore[method-assign]
        lr_scheduler.LRScheduler.takes_verbose = True  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Ways:
    """Where what it does can be exchanged for what we do; all as there by default.

    Attributes:
        half_gradients: gradients of the backbone travel between GPUs as halves.
        decay_all: biases, normalisations and slopes decay too.
        offset: its warm-up is a step behind, and the rate of an update that of its last pass.
        momentum: of SGD.
    """

    half_gradients: bool = True
    decay_all: bool = True
    offset: bool = True
    momentum: float = MOMENTUM


def backbone_of(checkout: Path, name: str, width: int) -> nn.Module:
    """Its network."""
    found: nn.Module = module_of(checkout, "backbones").get_model(
        name, dropout=0.0, fp16=False, num_features=width
    )
    return found


def head_of(
    checkout: Path, margins: Sequence[float], width: int, classes: int, rate: float = 1.0
) -> nn.Module:
    """Its PartialFC_V2 on this rank, with its margin."""
    loss = module_of(checkout, "losses").CombinedMarginLoss(SCALE, *margins)
    found: nn.Module = module_of(checkout, "partial_fc_v2").PartialFC_V2(
        loss, width, classes, rate, False
    )
    return found.train()


class Trainer:
    """Its training of one rank, a step at a time.

    Args:
        backbone: of `backbone_of`.
        head: of `head_of`.
        config: `lr`, `weight_decay`, `gradient_acc`, `warmup` and `total` (steps).
        ways: what is as with us.
    """

    def __init__(
        self, backbone: nn.Module, head: nn.Module, config: dict[str, Any], checkout: Path,
        ways: Ways | None = None,
    ) -> None:  # fmt: skip
        self.ways = ways or Ways()
        self.backbone = DistributedDataParallel(
            backbone, broadcast_buffers=False, bucket_cap_mb=16, find_unused_parameters=True
        )
        if self.ways.half_gradients:
            self.backbone.register_comm_hook(None, fp16_compress_hook)
        self.backbone.train()
        self.backbone._set_static_graph()
        self.head, self.config = head, config
        self.optimizer = self._optimizer()
        schedule = module_of(checkout, "lr_scheduler").PolynomialLRWarmup
        self.schedule = schedule(self.optimizer, config["warmup"], config["total"])

    def _optimizer(self) -> torch.optim.Optimizer:
        decay = self.config["weight_decay"]
        known = list(self.backbone.parameters())
        groups: list[dict[str, Any]] = [{"params": known}, {"params": self.head.parameters()}]
        if not self.ways.decay_all:
            groups[0] = {"params": [p for p in known if p.ndim > 1]}
            groups.append({"params": [p for p in known if p.ndim <= 1], "weight_decay": 0.0})
        return torch.optim.SGD(
            groups, lr=self.config["lr"], momentum=self.ways.momentum, weight_decay=decay
        )

    def step(self, passes: Sequence[tuple[torch.Tensor, torch.Tensor]], lr: float) -> list[float]:
        """One update of ``gradient_acc`` passes, (N, 3, 112, 112) in [-1, 1] and (N,) each.

        Its loop steps the schedule at each pass. ``lr`` is ours, for where there is no offset.
        """
        losses = []
        for place, (images, labels) in enumerate(passes, start=1):
            loss = self.head(self.backbone(images), labels)
            loss.backward()
            if place == len(passes):
                nn.utils.clip_grad_norm_(self.backbone.parameters(), CLIP_NORM)
                self._update(lr)
            self.schedule.step()
            losses.append(loss.item())
        return losses

    def _update(self, lr: float) -> None:
        kept = [group["lr"] for group in self.optimizer.param_groups]
        if not self.ways.offset:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad()
        for group, value in zip(self.optimizer.param_groups, kept, strict=True):
            group["lr"] = value


@contextmanager
def chosen(rows: torch.Tensor | None) -> Iterator[None]:
    """A block in which its sampling finds these rows of a rank the likeliest; all if None."""
    if rows is None:
        yield
        return
    rand = torch.rand

    def lots(*args: Any, **options: Any) -> torch.Tensor:
        found = rand(*args, **options) * 0.5
        found[rows] += 0.5
        return found

    torch.rand = lots  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.rand = rand


def theirs_as_ours(state: dict[str, torch.Tensor], network: str) -> dict[str, torch.Tensor]:
    """The state of a network of theirs by the names of our backbone, ``network``."""
    named = {own_name(name, network): tensor for name, tensor in state.items()}
    return {name.removeprefix(BACKBONE_PREFIX): one for name, one in named.items() if name}


def text_of(values: dict[str, Any]) -> str:
    """A configuration of theirs, as it is given to `pairdistill migrate`."""
    known = {"rec": "faces", "num_epoch": 1, "warmup_epoch": 0, "val_targets": []}
    lines = "".join(f"config.{name} = {value!r}\n" for name, value in {**known, **values}.items())
    return "from easydict import EasyDict as edict\nconfig = edict()\n" + lines
