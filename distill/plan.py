"""What a run will do, and every check that can be made before anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from distill.data.order import steps_of
from distill.engine_parts.settings import check_precision, micro_batch_pairs
from distill.inputs import Inputs, read_inputs
from distill.losses import implementation_name
from distill.models.classifier import check_network
from distill.models.compiled import check_compiled, check_stage
from distill.objective.checks import check_head
from distill.run_dir import RunDir

if TYPE_CHECKING:
    from distill.config import Config
    from distill.config.tree import TrainConfig
    from distill.data.manifest import Pack
    from distill.data.protocols.found import AnySet
    from distill.data.training_set import TrainingSet
    from distill.inputs import Known
    from distill.ranks import Ranks


@dataclass(frozen=True)
class Plan:
    """A run whose settings and packs fit together.

    Attributes:
        run: where it lives.
        train: pairs to train on, of one pack or several.
        evaluation: held-out pairs, or None.
        sets: verification sets.
        evaluates: whether there is anything to measure on.
        total_steps: optimizer steps of the whole run.
        micro_batch_pairs: pairs of one forward pass of one rank.
        loss_implementation: what computes the pair loss, `native` or `reference`.
    """

    run: RunDir
    train: TrainingSet
    evaluation: Pack | None
    sets: list[AnySet]
    evaluates: bool
    total_steps: int
    micro_batch_pairs: int
    loss_implementation: str

    @property
    def classes(self) -> list[str]:
        """Names of the C people, by label."""
        return self.train.identities


def make_plan(config: Config, ranks: Ranks) -> Plan:
    """Check everything that can be checked, and say what the run will do.

    Raises:
        UserError: the field or file at fault, what is wrong, and the fix.
    """
    check_precision(config, ranks.device)
    micro = micro_batch_pairs(config, ranks.world_size)
    implementation = implementation_name(config.loss.implementation, ranks.device.type)
    inputs = _fitting_inputs(config, ranks.world_size)
    check_compiled(config, ranks.device)  # last, since it takes seconds
    return Plan(
        run=RunDir(Path(config.run.dir)),
        train=inputs.train,
        evaluation=inputs.evaluation,
        sets=inputs.sets,
        evaluates=inputs.evaluates,
        total_steps=steps_of_run(config.train, inputs.train.pairs),
        micro_batch_pairs=micro,
        loss_implementation=implementation,
    )


def check_elsewhere(config: Config, world_size: int, known: Known | None = None) -> None:
    """Refuse what a run of W = ``world_size`` ranks on another machine would be refused for.

    All but what that machine alone can tell: its device, its kernels, its compiler. Of several runs
    ``known`` holds what was read for the last one, see `read_inputs`.

    Raises:
        UserError: as `make_plan` and `build_for_training`.
    """
    if config.run.device == "cpu":
        check_precision(config, torch.device("cpu"))
    micro_batch_pairs(config, world_size)
    inputs = _fitting_inputs(config, world_size, known)
    check_network(config, len(inputs.train.identities))
    check_stage(config)


def _fitting_inputs(config: Config, world_size: int, known: Known | None = None) -> Inputs:
    """What a run reads, for which the head can be placed on so many ranks."""
    inputs = read_inputs(config, known)
    check_head(config, len(inputs.train.identities), world_size)
    return inputs


def steps_of_run(train: TrainConfig, pairs: int) -> int:
    """Optimizer steps of a run that begins, on so many ``pairs``."""
    return train.steps or steps_of(train.epochs, pairs, train.global_batch_pairs)


def come_to_nothing(config: Config, total_steps: int, *, evaluates: bool) -> list[str]:
    """What is asked for and will not be in a run of ``total_steps``, to warn of; mostly nothing.

    Such settings change no number of the training, so it is no error to have them.
    """
    undecided = best_undecided(config, total_steps) if evaluates else ""
    return [text for text in (undecided, _no_pictures(config, total_steps)) if text]


def _no_pictures(config: Config, total_steps: int) -> str:
    """Why there will be no pictures of pairs, where they are asked for; empty if there will be."""
    monitor, why = config.monitor, ""
    if not monitor.tensorboard:
        why = "monitor.tensorboard = false, and they stand there alone"
    elif config.train.images == "first":
        why = "train.images = 'first', and there are no pairs"
    elif monitor.pictures_every_steps > total_steps:
        why = (
            f"monitor.pictures_every_steps = {monitor.pictures_every_steps} of {total_steps} steps"
        )
    return (
        f"monitor.images = true: no pictures will be shown ({why})"
        if monitor.images and why
        else ""
    )


def slow_precision(config: Config, device: torch.device) -> str:
    """What float32 leaves unused on a GPU; empty where there is nothing to say."""
    if device.type != "cuda" or config.train.precision != "fp32":
        return ""
    return (
        'train.precision = "fp32" leaves the matrix units of the GPU unused: "bf16" is faster'
        " there, and takes less memory; the loss is computed in float32 all the same"
    )


def best_undecided(config: Config, total_steps: int) -> str:
    """Why no checkpoint can turn out to be the best, where one is to be kept; empty if one can.

    A checkpoint has the numbers of an evaluation after the same step. The last one has none: it is
    saved first. The default is let pass: it does not say that anybody asked for it.
    """
    keep, default = config.checkpoint, type(config.checkpoint)()
    asked = (keep.keep_best, keep.best_metric) != (default.keep_best, default.best_metric)
    evaluates, saves = config.evaluate.every_steps, keep.every_steps
    meet = math.lcm(evaluates, saves)
    if not keep.keep_best or not asked or 0 < meet < total_steps:
        return ""
    return (
        f"no checkpoint will be kept as best by checkpoint.best_metric = {keep.best_metric!r}:"
        f" evaluate.every_steps = {evaluates} and checkpoint.every_steps = {saves} never fall on"
        f" one step before the last, {total_steps}"
    )
