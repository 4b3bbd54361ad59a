"""A head with its pair loss over ranks, in each of the ways that `bench_head.py` compares.

Every rank has b pairs of its own, or b images without partners: embeddings (b, D) of each side. A
way takes them to the mean loss over all W b labels, the gradient of this rank's embeddings and that
of the weight it holds, summed over the ranks. The ways agree in both (`bench_head.py` checks it
before it times anything).

    replicated   each rank has all C classes and its own rows; the weight's gradients are reduced
    sharded      each rank has C/W classes and all rows; the three all-reduces that one writes in
                 torch: maxima, sums, targets. Gradients by hand, in place where that works
    ours         each rank has C/W classes and all rows; `linear_pair_loss`, or
                 `linear_cross_entropy`, with `ClassShards`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from head_wire import GATHER, SCATTER, Wire

from distill.losses import (
    ClassShards,
    PairLossSpec,
    linear_cross_entropy,
    linear_pair_loss,
    plain,
)

T = 3.0
Found = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass
class Problem:
    """What a rank has.

    Attributes:
        sides: embeddings of its images, (b, D) each, leaves: first and second ones, or first alone.
        labels: (b,) int64 among all classes.
        weight: (C, D) or (C/W, D), a leaf.
        cosine: whether scores are cosines at scale 64; else logits without bias.
        shards: who has which classes; None where every rank has all.
        wire: what counts the bytes.
        budget_bytes: for ours, scores that may be kept; None for the default.
    """

    sides: tuple[torch.Tensor, ...]
    labels: torch.Tensor
    weight: torch.Tensor
    cosine: bool
    shards: ClassShards | None
    wire: Wire
    budget_bytes: int | None = None

    @property
    def spec(self) -> PairLossSpec:
        """Symmetric KL, T^2, no margin."""
        return PairLossSpec(logit_scale=64.0 if self.cosine else 1.0)

    def scores(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits over the scale, (N, classes of this rank), by plain torch."""
        if self.cosine:
            return F.normalize(rows.float()) @ F.normalize(self.weight.float()).T
        return F.linear(rows, self.weight)


def replicated(problem: Problem) -> Found:
    """Plain torch over all classes, the gradient of the weight reduced as data parallelism does."""
    loss = _of_whole_scores(problem) / dist.get_world_size()
    *d_sides, d_weight = torch.autograd.grad(loss, (*problem.sides, problem.weight))
    problem.wire.about("weight gradient")
    dist.all_reduce(d_weight)
    total = loss.detach().clone()
    problem.wire.about("result")
    dist.all_reduce(total)
    return total, torch.cat(d_sides), d_weight


def _of_whole_scores(problem: Problem) -> torch.Tensor:
    """Mean loss of this rank's rows."""
    scores = problem.scores(torch.cat(problem.sides))
    if len(problem.sides) == 1:
        return F.cross_entropy(scores.float() * problem.spec.logit_scale, problem.labels)
    terms = plain.row_terms(*scores.chunk(2), problem.labels, T, problem.spec)
    del scores
    return sum(terms.parts).mean()  # type: ignore[union-attr, return-value]


def ours(problem: Problem) -> Found:
    """The streamed loss on the rows of all ranks."""
    gathered, labels = gather_rows(problem)
    rows = gathered.requires_grad_().chunk(len(problem.sides))
    problem.wire.about("statistics")
    options: dict[str, Any] = {
        "spec": problem.spec,
        "head": "cosine" if problem.cosine else "linear",
        "shards": problem.shards,
        "memory_budget_bytes": problem.budget_bytes,
    }
    if len(rows) == 1:
        total = linear_cross_entropy(*rows, problem.weight, labels, **options).total
    else:
        options |= {"temperature": T, "similarity_weight": 1.0}
        total = linear_pair_loss(*rows, problem.weight, labels, **options).total
    d_rows, d_weight = torch.autograd.grad(total, (gathered, problem.weight))
    return total.detach(), scatter_rows(problem, d_rows), d_weight


def sharded(problem: Problem) -> Found:
    """Plain torch, with the three all-reduces of a distributed softmax."""
    gathered, labels = gather_rows(problem)
    gathered.requires_grad_()
    scores = problem.scores(gathered)
    assert problem.shards is not None, "the classes are shared out"
    own = labels - problem.shards.class_start
    own = torch.where((own >= 0) & (own < scores.shape[1]), own, -1)
    problem.wire.about("statistics")
    way = ShardedPair if len(problem.sides) == 2 else ShardedCrossEntropy
    loss = way.apply(scores, own, problem.spec.logit_scale)
    del scores
    d_rows, d_weight = torch.autograd.grad(loss, (gathered, problem.weight))
    return loss.detach(), scatter_rows(problem, d_rows), d_weight


def gather_rows(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings of all ranks, first sides before second ones, and labels, (W b,)."""
    problem.wire.about("features")
    own = torch.stack([side.detach() for side in problem.sides])
    world = dist.get_world_size()
    parts = own.new_empty((world, *own.shape))
    getattr(dist, GATHER)(parts.flatten(0, 1), own)
    labels = problem.labels.new_empty(world * len(problem.labels))
    getattr(dist, GATHER)(labels, problem.labels)
    return parts.transpose(0, 1).reshape(-1, own.shape[2]), labels


def scatter_rows(problem: Problem, gradient: torch.Tensor) -> torch.Tensor:
    """This rank's rows of the sum over the ranks of a gradient of all rows."""
    problem.wire.about("feature gradient")
    shape = (len(problem.sides), dist.get_world_size(), -1, gradient.shape[1])
    by_rank = gradient.view(shape).transpose(0, 1).contiguous()
    own = torch.empty_like(by_rank[0])
    getattr(dist, SCATTER)(own, by_rank.flatten(0, 1))
    return own.flatten(0, 1)


class ShardedPair(torch.autograd.Function):
    """Mean of CE + CE + T^2 KL (symmetric) from the scores of some classes, (2N, n)."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, own: torch.Tensor, scale: float) -> torch.Tensor:
        """``own`` (N,): the column of the label, -1 where another rank has it."""
        z = scores.view(2, len(own), -1).float() * scale if scale != 1.0 else scores.float()
        z = z.view(2, len(own), -1)
        m = z.amax(2)
        dist.all_reduce(m, dist.ReduceOp.MAX)
        by = z - m[..., None]
        s = by.exp().sum(2)
        d = (by[0] - by[1]).div_(T)
        soft = by.div_(T).exp_()
        sums = torch.stack((*s, *soft.sum(2), (soft[0] * d).sum(1), -(soft[1] * d).sum(1)))
        dist.all_reduce(sums)
        here = own >= 0
        columns = own.clamp(min=0).expand(2, -1)[..., None]
        target = z.gather(2, columns).squeeze(2) * here
        dist.all_reduce(target)
        s, t, a = sums.view(3, 2, -1)
        mean, log_t = a / t, t.log()
        ce = s.log() + m - target
        ctx.save_for_backward(z, own, m, s, t, mean)
        ctx.scale = scale
        apart = log_t[0] - log_t[1]
        kl = 0.5 * (mean[0] - apart + mean[1] + apart)
        return (ce.sum(0) + T * T * kl).mean()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Softmax less one-hot, and T^2 / 2 (p (d - mean) + p - q) / T of each side."""
        z, own, m, s, t, mean = ctx.saved_tensors
        by = z - m[..., None]
        d = (by[0] - by[1]).div_(T)
        g = by.exp().div_(s[..., None])
        at = torch.where(own >= 0, -1.0, 0.0).expand(2, -1)[..., None]
        g.scatter_add_(2, own.clamp(min=0).expand(2, -1)[..., None], at)
        p, q = by.div_(T).exp_().div_(t[..., None])
        half = 0.5 * T
        apart = p - q
        g[0].add_(apart, alpha=half).addcmul_(p, d - mean[0, :, None], value=half)
        g[1].sub_(apart, alpha=half).addcmul_(q, d.neg_().sub_(mean[1, :, None]), value=half)
        g.mul_(upstream * ctx.scale / len(own))
        return g.flatten(0, 1), None, None


class ShardedCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy from the scores of some classes, (N, n)."""

    @staticmethod
    def forward(ctx: Any, scores: torch.Tensor, own: torch.Tensor, scale: float) -> torch.Tensor:
        """``own`` (N,): the column of the label, -1 where another rank has it."""
        z = scores.float() * scale if scale != 1.0 else scores.float()
        m = z.amax(1)
        dist.all_reduce(m, dist.ReduceOp.MAX)
        target = z.gather(1, own.clamp(min=0)[:, None])[:, 0] * (own >= 0)
        dist.all_reduce(target)
        e = (z - m[:, None]).exp_()
        s = e.sum(1)
        dist.all_reduce(s)
        ctx.save_for_backward(e, own, s)
        ctx.scale = scale
        return (s.log() + m - target).mean()

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Softmax less one-hot."""
        e, own, s = ctx.saved_tensors
        g = e.div_(s[:, None])
        at = torch.where(own >= 0, -1.0, 0.0)[:, None]
        g.scatter_add_(1, own.clamp(min=0)[:, None], at)
        return g.mul_(upstream * ctx.scale / len(own)), None, None
