"""Other people's kernels, composed to what comes closest to a pair loss; on a CUDA device only.

    pip install -c constraints.txt liger-kernel 'quack-kernels[cu13]'

Liger   two cross-entropies and KL of two log-softmax, each direction with its target held constant:
        its KL gives the target no gradient, so it does less than the pair loss. Its cross-entropy
        writes the gradient over the logits; the log-softmax is in the logits' type.
QuACK   two cross-entropies, no similarity: it has no pair form.

Written against liger-kernel 0.8.5 and quack-kernels 0.6.5, never run on a GPU so far.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from distill.losses.spec import IGNORED_LABEL, PairLossSpec

Step = Callable[[], object]
LIGER, QUACK = "Liger, CE + CE + KL", "QuACK, CE + CE alone"
PACKAGES = {LIGER: ("liger_kernel", "liger-kernel"), QUACK: ("quack", "quack-kernels")}
"""By the name in the table: the module and the package that brings it."""


@dataclass(frozen=True)
class InPlace:
    """A step that may write over its scores, and has them again before each call that is timed.

    The gradients that it leaves are as good as 0: with them for scores all classes are alike, and
    a kernel has less to do.

    Attributes:
        step: what is timed.
        scores: what it writes over.
        kept: what they were.
    """

    step: Step
    scores: tuple[torch.Tensor, ...]
    kept: tuple[torch.Tensor, ...]

    def __call__(self) -> object:
        """The step itself."""
        return self.step()

    def prepare(self) -> None:
        """Put the scores back; no part of the time."""
        for scores, kept in zip(self.scores, self.kept, strict=True):
            scores.detach().copy_(kept.detach())


def prepare(step: Step) -> None:
    """Whatever a step needs before it is timed."""
    if isinstance(step, InPlace):
        step.prepare()


def peer_steps(
    tensors: tuple[torch.Tensor, ...], temperature: float, spec: PairLossSpec
) -> dict[str, Step | str]:
    """Forward and backward of each peer, or in one line why there is none.

    Args:
        tensors: logits of both sides, (B, C), and labels, (B,).
        temperature: softening temperature T > 0.
        spec: what is computed.
    """
    makers = {LIGER: _liger, QUACK: _quack}
    device = tensors[0].device.type
    return {
        name: _absence(name, device, spec) or _made(maker, tensors, temperature, spec)
        for name, maker in makers.items()
    }


def _made(
    maker: Callable[..., Step],
    tensors: tuple[torch.Tensor, ...],
    temperature: float,
    spec: PairLossSpec,
) -> Step | str:
    """The step, or why the package cannot be loaded."""
    try:
        return maker(tensors, temperature, spec)
    except Exception as error:  # noqa: BLE001 - others' code raises what it likes
        return f"{type(error).__name__}: {error}".splitlines()[0]


def peer_versions() -> dict[str, str]:
    """Versions of the packages, blank where they are not installed."""
    return {package: _version(package) for _, package in PACKAGES.values()}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _absence(name: str, device: str, spec: PairLossSpec) -> str:
    module, package = PACKAGES[name]
    if device != "cuda":
        return f"{package} needs a CUDA device"
    if importlib.util.find_spec(module) is None:
        return f"{package} is not installed"
    if name == LIGER and spec.similarity != "kl":
        return f"{package} has no similarity {spec.similarity!r}"
    return ""


def _liger(tensors: tuple[torch.Tensor, ...], temperature: float, spec: PairLossSpec) -> Step:
    module = importlib.import_module("liger_kernel.transformers")
    cross_entropy = module.LigerCrossEntropyLoss(ignore_index=IGNORED_LABEL)
    kl = module.LigerKLDIVLoss(reduction="batchmean", log_target=True)
    return composed(cross_entropy, kl, tensors, temperature, spec)


def _quack(tensors: tuple[torch.Tensor, ...], temperature: float, spec: PairLossSpec) -> Step:
    cross_entropy = importlib.import_module("quack.cross_entropy").cross_entropy

    def mean(x: torch.Tensor, labels: torch.Tensor) -> Any:
        # Its own mean hands its backward one number for all rows; the kernel wants one a row.
        rows = cross_entropy(x, labels, ignore_index=IGNORED_LABEL, reduction="none")
        return (rows / labels.numel()).sum()

    return composed(mean, None, tensors, temperature, spec)


def composed(
    cross_entropy: Callable[..., Any],
    kl: Callable[..., Any] | None,
    tensors: tuple[torch.Tensor, ...],
    temperature: float,
    spec: PairLossSpec,
) -> InPlace:
    """A step that returns the total and throws its gradients away.

    Args:
        cross_entropy: of logits (B, C) and labels (B,), mean.
        kl: KL(target || input) of log-probabilities (input, target), mean over pairs; None leaves
            the similarity out.
        tensors: logits of both sides and labels; the logits are copied, since a cross-entropy may
            write over them.
        temperature: softening temperature T > 0.
        spec: direction and scale of the similarity.
    """
    x1, x2 = (x.detach().clone().requires_grad_() for x in tensors[:2])
    labels = tensors[2]
    scale = spec.similarity_scale(temperature)
    forward, reverse = (scale * weight for weight in spec.direction_weights)

    def step() -> object:
        total = torch.zeros((), device=labels.device)
        if kl is not None:  # before the cross-entropies, which may write over the logits
            a, b = (F.log_softmax(x / temperature, 1) for x in (x1, x2))
            total = total + forward * kl(b, a.detach()) + reverse * kl(a, b.detach())
        total = total + cross_entropy(x1, labels) + cross_entropy(x2, labels)
        torch.autograd.grad(total, (x1, x2))
        return total

    return InPlace(step, (x1, x2), tensors[:2])
