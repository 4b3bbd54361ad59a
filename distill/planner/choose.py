"""Every ZeRO stage, head and loss for a job: what each takes, which fit, which is fastest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from distill.config import Config
from distill.engine_parts.optimizer import moments_of
from distill.engine_parts.settings import bucket_elements, micro_batch_pairs
from distill.errors import UserError
from distill.losses import PairLossSpec
from distill.losses.choice import plain_on_gpu
from distill.losses.linear_stream import numbers_told
from distill.models.classifier import check_people
from distill.models.compiled import check_stage
from distill.objective.checks import check_head
from distill.planner.clock import Machine, Seconds, seconds_of
from distill.planner.facts import (
    Choice,
    Form,
    HeadCost,
    Job,
    NetworkCost,
    Placement,
    device_of,
    local_classes,
    sampled_classes,
    seen_rows,
)
from distill.planner.memory import Memory, memory_of
from distill.planner.network import Traffic, traffic_of
from distill.planner.trace import network_cost, stored_head_cost, streamed_head_cost

MIB = 2**20
PLACEMENTS: tuple[Placement, ...] = ("replicated", "sharded")
FORMS: tuple[Form, ...] = ("plain", "fused")
NEARLY = 1.02
"""Choices within 2% of the fastest count as equally fast."""
SAMPLE_RATES_TRIED = (0.5, 0.2, 0.1, 0.05)
RECOMPUTE = "recompute blocks"
"""The remedy model.recompute="blocks", in words."""
NOT_COMPILED = "model.compile: memory and time are those of the network without it"
MOST_TIMES = 64
"""More ranks than this many times those asked for are not proposed."""


@dataclass(frozen=True)
class Row:
    """What a choice takes.

    Attributes:
        choice: the choice.
        memory: bytes of a rank.
        traffic: collectives of a step.
        seconds: of a step.
        fits: whether the memory does.
        remedy: where it does not: the smallest change of the job with which it would, and whether
            blocks that are made again would do.
    """

    choice: Choice
    memory: Memory
    traffic: list[Traffic]
    seconds: Seconds
    fits: bool
    remedy: str = ""


@dataclass(frozen=True)
class Comparison:
    """All choices for a job.

    Attributes:
        job: the job.
        machine: where it runs.
        rows: what each choice takes.
        best: the one to take; None where none fits.
        notes: what the figures leave out.
    """

    job: Job
    machine: Machine
    rows: list[Row]
    best: Row | None
    notes: tuple[str, ...] = ()


def job_of(config: Config, classes: int, ranks: int) -> Job:
    """The job of a configuration.

    Raises:
        UserError: fewer than two identities, a global batch that does not divide, or settings of
            the loss that do not go together.
    """
    check_people(classes)
    return Job(
        classes=classes,
        embedding_dim=config.model.embedding_dim,
        ranks=ranks,
        micro_pairs=micro_batch_pairs(config, ranks),
        accumulation=config.train.accumulation,
        images_per_pair=config.train.images_per_pair,
        precision=config.train.precision,
        optimizer=config.optimizer.name,
        moments=len(moments_of(config.optimizer)),
        weight_decay=config.optimizer.weight_decay > 0.0,
        device=device_of(config),
        bucket_elements=bucket_elements(),
        statistics=numbers_told(
            PairLossSpec.of_run(config),
            single=config.train.images == "first",
        ),
    )


def choices_for(config: Config, job: Job, rates: tuple[float, ...]) -> Iterator[Choice]:
    """All choices that the trainer takes; sharded heads with each of the sampling ``rates``."""
    for stage in range(4):
        for placement, form in product(PLACEMENTS, FORMS):
            for rate in rates if placement == "sharded" else (1.0,):
                choice = Choice(stage, placement, form, rate)
                if _possible(config, job, choice):
                    yield choice


def _possible(config: Config, job: Job, choice: Choice) -> bool:
    try:
        _check_choice(config, job, choice)
    except UserError:
        return False
    return True


def _check_choice(config: Config, job: Job, choice: Choice) -> None:
    head = {"placement": choice.placement, "sample_rate": choice.sample_rate}
    changed = {
        "head": config.head.model_copy(update=head),
        "loss": config.loss.model_copy(update={"form": choice.form}),
        "train": config.train.model_copy(update={"zero_stage": choice.zero_stage}),
    }
    chosen = config.model_copy(update=changed)
    check_head(chosen, job.classes, job.ranks)
    check_stage(chosen)


def costs_of(config: Config, job: Job, choice: Choice) -> tuple[NetworkCost, HeadCost]:
    """What network and head cost in this job."""
    model = config.model
    network = network_cost(
        model.name,
        model.embedding_dim,
        model.dropout,
        job.rows,
        config.train.precision,
        model.recompute,
    )
    settings = _what_heads_depend_on(config)
    return network, _head_cost(settings, job, replace(choice, zero_stage=0), network)


def _what_heads_depend_on(config: Config) -> Config:
    """The configuration with all else as by default, so that equal work is done once."""
    train = {"precision": config.train.precision, "images": config.train.images}
    return Config.model_validate(
        {"model": config.model, "head": config.head, "loss": config.loss, "train": train}
    )


@lru_cache(maxsize=512)
def _head_cost(config: Config, job: Job, choice: Choice, network: NetworkCost) -> HeadCost:
    rows, classes = seen_rows(job, choice), sampled_classes(job, choice)
    if choice.placement == "replicated" and choice.form == "plain":
        return stored_head_cost(config, classes, rows, network.embedding_bytes)
    budget = config.loss.kept_scores_mb * MIB if choice.form == "fused" else math.inf
    cost = streamed_head_cost(config, classes, rows, network.embedding_bytes, budget)
    (elements, decays), *_ = cost.weights
    whole = elements // classes * local_classes(job, choice)
    return replace(cost, weights=((whole, decays),))


def row_of(config: Config, job: Job, choice: Choice, machine: Machine) -> Row:
    """What ``choice`` takes, without a remedy."""
    network, head = costs_of(config, job, choice)
    memory = memory_of(job, choice, network, head)
    traffic = traffic_of(job, choice, network, head)
    seconds = seconds_of(job, choice, network, head, traffic, machine)
    return Row(choice, memory, traffic, seconds, memory.peak_bytes <= machine.usable_bytes)


def compare(
    config: Config,
    classes: int,
    machine: Machine,
    ranks: int,
    rates: tuple[float, ...] = (),
    *,
    remedies: bool = True,
) -> Comparison:
    """Every choice for a configuration on ``ranks`` ranks.

    Args:
        config: settings; its stage, placement and form do not matter.
        classes: identities.
        machine: where.
        ranks: W.
        rates: sampling rates to show besides 1 and that of the configuration.
        remedies: whether to find out what would make those fit that do not.

    Raises:
        UserError: as `job_of`, an unknown backbone, a linear head with a margin or with
            sub-centres, more classes taken by themselves (`loss.topk_classes`) than there are.
    """
    job = job_of(config, classes, ranks)
    head, wanted = config.head, config.head.sample_rate
    all_rates = tuple(sorted({1.0, wanted, *rates}, reverse=True))
    choices = list(choices_for(config, job, all_rates))
    if not choices:  # then not that of the settings either, which says why
        own = Choice(config.train.zero_stage, head.placement, config.loss.form, wanted)
        _check_choice(config, job, own)
    rows = [row_of(config, job, choice, machine) for choice in choices]
    if remedies:
        rows = [row if row.fits else _mended(config, job, row, machine) for row in rows]
    notes = NOT_COMPILED if config.model.compile else "", plain_on_gpu(config, job.device)
    return Comparison(job, machine, rows, best_of(rows, wanted), tuple(filter(None, notes)))


def best_of(rows: list[Row], rate: float) -> Row | None:
    """The fastest that fits, those with the sampling ``rate`` that was asked for first.

    Of those that are nearly as fast the lowest stage, which has the fewest and the largest
    collectives, and then the one that leaves least to be hidden.
    """
    fitting = [row for row in rows if row.fits]
    fitting = [row for row in fitting if row.choice.sample_rate == rate] or fitting
    if not fitting:
        return None
    limit = NEARLY * min(row.seconds.step for row in fitting)
    near = [row for row in fitting if row.seconds.step <= limit]
    return min(near, key=lambda row: (row.choice.zero_stage, sum(vars(row.seconds).values())))


def _mended(config: Config, job: Job, row: Row, machine: Machine) -> Row:
    """The row with the smallest change that makes it fit."""
    whatever_batch = ("between steps", "reduction", "update")
    least = max(row.memory.phases[phase].total() for phase in whatever_batch)
    smaller_batch_helps = least <= machine.usable_bytes
    changes = _changes(job, row.choice, smaller_batch_helps=smaller_batch_helps)
    found = (
        words
        for changed, words in changes
        if _possible(config, *changed) and row_of(config, *changed, machine).fits
    )
    words = [next(found, "")]
    if smaller_batch_helps and _fits_made_again(config, job, row.choice, machine):
        words.append(RECOMPUTE)
    return replace(row, remedy=" or ".join(filter(None, words)))


def _fits_made_again(config: Config, job: Job, choice: Choice, machine: Machine) -> bool:
    """Whether it would, with blocks of the backbone that are made again in backward."""
    model = config.model.model_copy(update={"recompute": "blocks"})
    try:
        return row_of(config.model_copy(update={"model": model}), job, choice, machine).fits
    except UserError:  # it has none
        return False


def _changes(
    job: Job, choice: Choice, *, smaller_batch_helps: bool
) -> Iterator[tuple[tuple[Job, Choice], str]]:
    """Changes of a job, those that cost least first; the global batch stays."""
    times = 2
    while smaller_batch_helps and job.micro_pairs % times == 0 and job.rows // times >= 2:
        yield (job.accumulating(times), choice), f"accumulation {job.accumulation * times}"
        times *= 2
    times = 2
    while times <= MOST_TIMES and job.micro_pairs % times == 0 and job.rows // times >= 2:
        yield (job.on_ranks(times), choice), f"{job.ranks * times} ranks"
        times *= 2
    if choice.placement == "sharded":
        for rate in SAMPLE_RATES_TRIED:
            if rate < choice.sample_rate:
                yield (job, replace(choice, sample_rate=rate)), f"sample rate {rate:g}"
