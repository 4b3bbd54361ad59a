"""Settings of head and loss that do not go together, found before a run begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill.errors import UserError
from distill.heads.rows import ClassRanges
from distill.heads.sampling import fewest_sampled
from distill.losses.spec import PairLossSpec
from distill.models.classifier import check_people

if TYPE_CHECKING:
    from distill.config.tree import Config, HeadConfig


def check_head(config: Config, classes: int, world_size: int) -> None:
    """Refuse what the placement of the head, or the form of the loss, cannot do.

    Args:
        config: the settings.
        classes: people to tell apart, C.
        world_size: number of ranks, W.

    Raises:
        UserError: the field at fault.
    """
    check_people(classes)
    _check_ranks(config.head, classes, world_size)
    least = fewest_sampled(ClassRanges.even(classes, 0, world_size), config.head.sample_rate)
    _check_sample(config.head, classes, least)
    if config.head.placement == "replicated" and not config.optimizer.clip_head:
        raise UserError(
            "optimizer.clip_head = False: a replicated head is clipped with the network it is in",
            fix="set head.placement = 'sharded', or optimizer.clip_head = True",
        )
    spec = PairLossSpec.of_run(config)
    if config.train.images == "pair":  # else there is no similarity, whatever its settings are
        _check_topk(config, classes, least)
    _check_streamed(config, spec)


def _check_ranks(head: HeadConfig, classes: int, world_size: int) -> None:
    """More of them than a head by ranges of people has people."""
    if head.placement == "sharded" and classes < world_size:
        raise UserError(
            f"head.placement = 'sharded': {classes} identities over {world_size} ranks would leave"
            f" {world_size - classes} of them without one",
            fix=f"start at most {classes} ranks, or set head.placement = 'replicated'",
        )


def _check_sample(head: HeadConfig, classes: int, least: int) -> None:
    """A sample of a head that has none, or of one identity alone, which nothing is told from."""
    if head.placement == "replicated" and head.sample_rate < 1.0:
        raise UserError(
            f"head.sample_rate = {head.sample_rate}: a replicated head is updated whole",
            fix="set head.placement = 'sharded', or head.sample_rate = 1.0",
        )
    if least < 2:
        raise UserError(
            f"head.sample_rate = {head.sample_rate:g}: may leave a step one of {classes}"
            " identities, and no other to tell it from",
            fix=f"set it above {1 / classes:.3g}",
        )


def _check_topk(config: Config, classes: int, least: int) -> None:
    """More classes in every step, ``least`` of them, than the similarity takes by themselves."""
    topk, rate = config.loss.topk_classes, config.head.sample_rate
    if topk >= least:
        of = "" if rate == 1.0 else f", of which head.sample_rate = {rate:g} may leave {least}"
        raise UserError(
            f"loss.topk_classes = {topk}: must be smaller than the number of identities of a step;"
            f" there are {classes}{of}",
            fix=f"set it below {least}, or to 0 for all identities",
        )


def _check_streamed(config: Config, spec: PairLossSpec) -> None:
    """What needs the scores of a batch for all classes in one place."""
    if config.head.placement == "sharded":
        what = "head.placement = 'sharded'"
    elif config.loss.form == "fused":
        what = "loss.form = 'fused'"
    else:
        return
    if spec.over_batch:
        raise UserError(
            f"loss.mmd_kernel = 'rbf' with {what}: it compares all pairs of a batch over all"
            " identities at once, and no rank has those",
            fix="set loss.mmd_kernel = 'linear', or set head.placement = 'replicated' and"
            " loss.form = 'plain'",
        )
