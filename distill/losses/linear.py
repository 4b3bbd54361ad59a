"""The pair loss from features and the weight of the last layer, whose logits never all exist.

A head of C classes makes 2 B C logits, at a million classes more memory than all else. Here the
classes come in chunks: each chunk's scores are made by a matrix product, reduced to a few
numbers a pair and dropped; backward makes them again, takes their gradient in place of them, and
carries it on to features and weight at once. `linear_stream.py` has the sweeps.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F

from distill.losses import fused, linear_native, linear_plain
from distill.losses.choice import implementation_name
from distill.losses.linear_checks import HeadArguments, PairArguments
from distill.losses.linear_plan import Plan
from distill.losses.linear_scores import SMALLEST_NORM, sub_centres_of
from distill.losses.linear_state import Choices
from distill.losses.linear_stream import linear_values
from distill.losses.margin import RowMargins
from distill.losses.pair import reduce_terms
from distill.losses.sharded import ClassShards
from distill.losses.spec import (
    Implementation,
    PairLoss,
    PairLossSpec,
    Reduction,
    accumulation_dtype,
)

Head = Literal["linear", "cosine"]

SMALL_BYTES = 2**24
"""Scores of all classes that are kept from the first sweep unless the caller says otherwise."""
CHUNK_BYTES = 2**24
"""Scores and weights of a chunk: they stay in a GPU's second cache."""
CLASSES_STEP = 256
"""A chunk's classes are a multiple of it: matrix products like round sizes."""


def linear_pair_loss(
    features_first: torch.Tensor,
    features_second: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    *,
    temperature: float,
    similarity_weight: float,
    spec: PairLossSpec,
    bias: torch.Tensor | None = None,
    head: Head = "linear",
    sample_weights: torch.Tensor | None = None,
    margins: RowMargins | None = None,
    reduction: Reduction = "mean",
    memory_budget_bytes: int | None = None,
    chunk_classes: int | None = None,
    implementation: Implementation = "auto",
    shards: ClassShards | None = None,
) -> PairLoss:
    """`pair_loss` of the scores ``features @ weight.T + bias``, or of their cosines.

    Memory beyond arguments and gradients does not grow with C: ``memory_budget_bytes`` of kept
    scores, a few times a chunk, and some (2B, D).
    The products are made in the type of the features; cosines are float32 at least.

    Args:
        features_first: rows of the first images, (B, D); float64/32/16 or bfloat16. They need not
            have unit length for a cosine head.
        features_second: rows of the second images, same shape, type and device.
        weight: (C, D), any floating type; its gradient has its type. For a cosine head also
            (C, K, D): a class's score is the largest of its K cosines, and its gradient goes to
            the row of that one, of equal ones the first.
        labels: identities, (B,) int64 in [0, C), or -1 for a pair to ignore.
        temperature: softening temperature T > 0 of the similarity, a Python number.
        similarity_weight: weight of the similarity, >= 0; at 0 it is measured and not added.
        spec: the static choices; ``spec.logit_scale`` is the scale of a cosine head.
        bias: (C,) for a linear head, or None.
        head: ``linear`` or ``cosine``.
        sample_weights: (B,), or None for equal ones; as in `pair_loss`.
        margins: of each image, (2B,), for a cosine head; as in `pair_loss`.
        reduction: ``mean``, ``sum`` or ``none``; as in `pair_loss`.
        memory_budget_bytes: scores that may be kept from the first sweep, with a byte more of each
            where the weight is (C, K, D); those beyond are made again, for one more product in
            four. None keeps all where they take at most 16 MiB, and none where they take more.
        chunk_classes: classes in a chunk; None for about 16 MiB of their weights and scores.
            Results differ in rounding alone.
        implementation: of what is not a matrix product: ``auto``, ``native`` or ``reference``.
        shards: where ``weight`` and ``bias`` hold this rank's classes only. Features, labels and
            all else are then alike on all ranks (gathered by the caller), as is the result, to
            the bit; labels count through the classes of all ranks.

    Returns:
        As `pair_loss`. With ``shards`` the entropies are NaN unless asked for.

    Raises:
        UserError: an argument is out of its bounds; with ``shards``, also where it is on
            another rank or differs between the ranks.
        RuntimeError: in backward, where a second derivative is asked for.
    """
    device = features_first.device.type
    arguments = PairArguments(
        features_first=features_first,
        features_second=features_second,
        weight=weight,
        bias=bias,
        labels=labels,
        sample_weights=sample_weights,
        margins=margins,
        temperature=temperature,
        similarity_weight=similarity_weight,
        spec=spec,
        head=head,
        reduction=reduction,
        memory_budget_bytes=memory_budget_bytes,
        chunk_classes=chunk_classes,
        implementation=implementation_name(implementation, device),
    )
    check(arguments, shards)
    with torch.autocast(device, enabled=False):
        join = unit_rows if head == "cosine" else torch.cat
        features = join((features_first, features_second))
        table = fused.margin_table(margins, features)
        plan = plan_of(arguments, Choices.of(spec, temperature), features, shards)
        terms = linear_values(features, weight, bias, labels, table, plan)
        return reduce_terms(terms, labels, similarity_weight, spec, sample_weights, reduction)


def check(arguments: HeadArguments, shards: ClassShards | None) -> None:
    """Raise `UserError` for wrong arguments, and for those in which ranks differ."""
    if shards is None:
        arguments.check()
    else:
        shards.agree(arguments)


def plan_of(
    arguments: HeadArguments,
    choices: Choices,
    features: torch.Tensor,
    shards: ClassShards | None,
    *,
    single: bool = False,
) -> Plan:
    """How a call with these arguments is computed; ``features`` are the rows of both sides."""
    budget = arguments.memory_budget_bytes
    return Plan(
        primitives=linear_native if arguments.implementation == "native" else linear_plain,
        spec=arguments.spec,
        choices=choices,
        cosine=arguments.head == "cosine",
        chunk_classes=arguments.chunk_classes
        or default_chunk(features, sub_centres_of(arguments.weight)),
        budget_bytes=SMALL_BYTES if budget is None else budget,
        all_or_none=budget is None,
        shards=shards,
        keep=arguments.needs_gradient,
        single=single,
    )


def unit_rows(sides: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """Rows of all sides divided by their length, (2B, D), in float32 or wider.

    On CUDA rounded to 16 bits where the features have 16: its products take those, and sum up in
    float32. Rounding each of D numbers moves a cosine by far less than rounding the cosine would.
    """
    rows = torch.cat(sides)
    unit = F.normalize(rows.to(accumulation_dtype(rows)), eps=SMALLEST_NORM)
    return unit.to(rows.dtype) if rows.device.type == "cuda" else unit


def default_chunk(rows: torch.Tensor, sub_centres: int) -> int:
    """Classes whose weights, and scores of these for ``rows``, take about `CHUNK_BYTES`."""
    classes = CHUNK_BYTES // (sum(rows.shape) * rows.itemsize * sub_centres)
    return max(classes // CLASSES_STEP, 1) * CLASSES_STEP
