"""What network, head and loss cost, found by running them on tensors that have no memory.

The real modules and the real loss run forward and backward on torch's fake tensors: shapes, types,
autograd and autocast are those of a run on the CPU, numbers there are none. So nothing about
activations is guessed, and a change of a backbone or of the loss changes the plan. What an
operator uses inside itself (cuDNN's and cuBLAS's workspaces) is not seen.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from distill.config import Config
from distill.data.batch import IMAGE_SIZE
from distill.engine_parts.autocast import AUTOCAST_DTYPES
from distill.heads import build_head
from distill.losses import PairLossSpec, fused, linear_native, linear_plain, margined_logits
from distill.losses import reference as plain
from distill.losses.choice import planned_name
from distill.losses.linear import default_chunk, unit_rows
from distill.losses.linear_plan import Plan
from distill.losses.linear_rows import reduce_rows, two_at_a_time
from distill.losses.linear_scores import ClassScores
from distill.losses.linear_state import Choices
from distill.losses.linear_stream import linear_values
from distill.losses.pair import reduce_terms
from distill.models.recompute import recompute_blocks
from distill.models.registry import build_backbone
from distill.planner.facts import (
    FLOAT_BYTES,
    PERSISTENT_ELEMENTS,
    HeadCost,
    NetworkCost,
    device_of,
)
from distill.planner.tape import Tape, as_fake, autocast, counting, on_meta, weights_of

TEMPERATURE = 2.0
"""Any one that is not 1: what a loss costs does not depend on it."""
CHUNKS_TRACED = 4
"""Chunks of classes of the fused loss that are run; the cost of more is a straight line."""


@lru_cache(maxsize=64)
def network_cost(
    name: str,
    embedding_dim: int,
    dropout: float,
    rows: int,
    precision: str,
    recompute: str = "none",
) -> NetworkCost:
    """The cost of a backbone for ``rows`` images.

    Raises:
        UserError: an unknown backbone, or one whose blocks cannot be made again.
    """
    shapes = on_meta(lambda: build_backbone(name, embedding_dim=embedding_dim, dropout=dropout))
    if recompute == "blocks":
        recompute_blocks(shapes, name)
    with FakeTensorMode():
        network = as_fake(shapes)
        # Apart, since the counter holds on to what belongs to blocks that are made again.
        with FlopCounterMode(display=False) as flops:
            _run_network(network, rows, precision)
        network.zero_grad()
        kept, forward, saved, embeddings = _run_network(network, rows, precision)
        network.zero_grad()
        freed, *_ = _run_network(network, rows, precision, take_away=True)
        # Made again with its block, a copy lives no longer than what is called an activation.
        copied = precision in AUTOCAST_DTYPES and recompute == "none"
        return NetworkCost(
            weights=weights_of(network),
            buffer_bytes=sum(b.nbytes for b in network.buffers()),
            embedding_bytes=embeddings.element_size(),
            forward_bytes=forward,
            saved_bytes=saved,
            cast_bytes=sum(n for n, wide in weights_of(network) if wide) * 2 if copied else 0,
            backward_kept_bytes=kept.peak_bytes,
            backward_freed_bytes=freed.peak_bytes,
            backward_gathered_bytes=freed.peak_with_beside_bytes,
            flops=float(flops.get_total_flops()),
            moved_bytes=kept.moved_bytes,
        )


def _run_network(
    network: nn.Module, rows: int, precision: str, *, take_away: bool = False
) -> tuple[Tape, int, int, torch.Tensor]:
    """Forward and backward; the tape, whose peaks are those of backward, and bytes in forward.

    Those are the most that was alive, and what is alive after it. Gradients stay, or are taken
    away as they come, and the weight that stage 3 has made whole with each.
    """
    with Tape() as tape:
        with autocast(precision):
            embeddings = network(torch.empty(rows, 3, IMAGE_SIZE, IMAGE_SIZE))
        most, saved = tape.peak_bytes, tape.live_bytes
        if take_away:
            _take_away_gradients(network, tape)
        tape.peak_bytes, tape.peak_with_beside_bytes = saved, saved + tape.beside_bytes
        embeddings.backward(torch.empty_like(embeddings))
    return tape, most, saved, embeddings


def _take_away_gradients(network: nn.Module, tape: Tape) -> None:
    """As soon as they are there; the weights of stage 3 are what is beside."""

    def take_away(parameter: torch.Tensor) -> None:
        parameter.grad = None
        tape.beside_bytes -= _gathered_bytes(parameter)

    for parameter in network.parameters():
        tape.beside_bytes += _gathered_bytes(parameter)
        parameter.register_post_accumulate_grad_hook(take_away)  # type: ignore[no-untyped-call]


def _gathered_bytes(weight: torch.Tensor) -> int:
    """What stage 3 makes of ``weight`` for a step."""
    return weight.nbytes if weight.numel() >= PERSISTENT_ELEMENTS else 0


def stored_head_cost(config: Config, classes: int, rows: int, embedding_bytes: int) -> HeadCost:
    """Head and loss where the scores of ``rows`` embeddings for all classes are stored.

    Raises:
        UserError: a margin or several sub-centres with a linear head.
    """
    spec = PairLossSpec.of_run(config)
    shapes = on_meta(lambda: build_head(config.head, config.model.embedding_dim, classes))
    with FakeTensorMode():
        head = as_fake(shapes)
        embeddings = _embeddings(rows, config.model.embedding_dim, embedding_bytes)
        labels = torch.empty(rows, dtype=torch.int64)
        with counting() as (tape, flops):
            with autocast(config.train.precision):
                scores = head(embeddings)
            forward = tape.live_bytes
            loss = _stored_loss(config, scores, labels, spec)
            del scores
            torch.autograd.backward(loss)
        return HeadCost(
            weights=weights_of(head),
            forward_bytes=forward,
            peak_bytes=tape.peak_bytes,
            gradient_bytes=sum(p.nbytes for p in head.parameters()),
            flops=float(flops.get_total_flops()),
            moved_bytes=tape.moved_bytes,
            low_precision=config.head.kind == "linear",
        )


def _embeddings(rows: int, dim: int, size: int) -> torch.Tensor:
    dtype = torch.float32 if size == 4 else torch.bfloat16
    return torch.empty(rows, dim, dtype=dtype).requires_grad_()


def _is_native(config: Config) -> bool:
    return planned_name(config.loss.implementation, device_of(config)) == "native"


def _stored_loss(
    config: Config, scores: torch.Tensor, labels: torch.Tensor, spec: PairLossSpec
) -> torch.Tensor:
    if config.train.images == "first":
        return F.cross_entropy(margined_logits(scores.float(), labels, spec), labels)
    native = _is_native(config)
    compute = fused.row_terms if native else plain.row_terms
    first, second = scores.chunk(2)
    pairs = labels[: len(first)]
    return reduce_terms(compute(first, second, pairs, TEMPERATURE, spec), pairs, 1.0, spec).total


def streamed_head_cost(
    config: Config, classes: int, rows: int, embedding_bytes: int, budget_bytes: float
) -> HeadCost:
    """Head and loss where scores are made in chunks of classes, of which a budget may be kept.

    A few chunks are run. From there on memory grows by the gradient of the weight and by the
    scores that are kept, and work by the class.
    """
    dim, sub_centres = config.model.embedding_dim, config.head.sub_centres
    of_one = _scores_of_one(config, rows, embedding_bytes)
    chunk = default_chunk(of_one.features, sub_centres)
    few, more = min(classes, chunk * CHUNKS_TRACED // 2), min(classes, chunk * CHUNKS_TRACED)
    one, two = (_run_chunks(config, n, rows, embedding_bytes, chunk) for n in (few, more))
    scale = (classes - more) / (more - few) if more > few else 0.0
    per_class = two.gradient_bytes // more
    scores, all_scores = of_one.nbytes * chunk, of_one.nbytes * classes
    kept = _kept_bytes(budget_bytes, scores, all_scores)
    again = 1.0 - kept / all_scores
    # Backward was traced with a first chunk made again; where that is kept, it is one of those.
    first = min(scores, all_scores)
    counted_twice = first if kept >= first else 0
    sweeps_again = 2 if PairLossSpec.of_run(config).two_sweeps else 1
    return HeadCost(
        weights=((per_class // FLOAT_BYTES * classes, True),),
        forward_bytes=kept + two.forward_bytes,
        peak_bytes=two.peak_bytes + kept - counted_twice + per_class * (classes - more),
        gradient_bytes=per_class * classes,
        flops=2.0 * rows * classes * sub_centres * dim * (3.0 + sweeps_again * again),
        moved_bytes=two.moved_bytes + scale * (two.moved_bytes - one.moved_bytes),
        low_precision=True,
    )


def _scores_of_one(config: Config, rows: int, embedding_bytes: int) -> ClassScores:
    """The scores of one class for ``rows`` embeddings; each further class takes as much."""
    dim, cosine = config.model.embedding_dim, config.head.kind == "cosine"
    head = on_meta(lambda: build_head(config.head, dim, 1))
    with torch.device("meta"):
        embeddings = _embeddings(rows, dim, embedding_bytes)
        features = unit_rows((embeddings,)) if cosine else embeddings
    return ClassScores(features, head.weight, head.bias, cosine)


def _kept_bytes(budget_bytes: float, chunk_bytes: int, all_bytes: int) -> int:
    """What `Stream` keeps of all scores: chunks as long as there is room, the last may be small."""
    room = int(min(budget_bytes, all_bytes))
    last = all_bytes % chunk_bytes
    whole = min(room, all_bytes - last) // chunk_bytes * chunk_bytes
    return whole + (last if whole + last <= room else 0)


@lru_cache(maxsize=256)
def _run_chunks(
    config: Config, classes: int, rows: int, embedding_bytes: int, chunk: int
) -> HeadCost:
    spec, single = PairLossSpec.of_run(config), config.train.images == "first"
    cosine = config.head.kind == "cosine"
    plan = _none_kept(config, spec, chunk)
    shapes = on_meta(lambda: build_head(config.head, config.model.embedding_dim, classes))
    with FakeTensorMode():
        head = as_fake(shapes)
        sides = _embeddings(rows, config.model.embedding_dim, embedding_bytes)
        labels = torch.empty(rows if single else rows // 2, dtype=torch.int64)
        with counting() as (tape, flops):
            if single:
                features, own, _ = two_at_a_time(sides, labels, None, cosine=cosine)
            else:
                features, own = (unit_rows if cosine else torch.cat)(sides.chunk(2)), labels
            terms = linear_values(features, head.weight, head.bias, own, None, plan)
            del features
            forward = tape.live_bytes
            loss = reduce_rows(terms, labels) if single else reduce_terms(terms, labels, 1.0, spec)
            torch.autograd.backward(loss.total)
    return HeadCost(
        weights=(),
        forward_bytes=forward,
        peak_bytes=tape.peak_bytes,
        gradient_bytes=sum(p.nbytes for p in head.parameters()),
        flops=float(flops.get_total_flops()),  # not of products in place
        moved_bytes=tape.moved_bytes,
        low_precision=True,
    )


def _none_kept(config: Config, spec: PairLossSpec, chunk_classes: int) -> Plan:
    """How the loss is computed where every chunk's scores are made again in backward."""
    native = _is_native(config)
    return Plan(
        primitives=linear_native if native else linear_plain,
        spec=spec,
        choices=Choices.of(spec, TEMPERATURE),
        cosine=config.head.kind == "cosine",
        chunk_classes=chunk_classes,
        budget_bytes=0,
        all_or_none=False,
        shards=None,
        keep=True,
        single=config.train.images == "first",
    )
