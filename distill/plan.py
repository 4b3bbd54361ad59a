"""What a run will do, and every check that can be made before anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distill.data.excluded import read_excluded
from distill.data.loader import check_layout
from distill.data.manifest import Pack, read_pack
from distill.data.order import check_global_batch, steps_of
from distill.data.protocols.found import AnySet, read_sets
from distill.data.training_set import TrainingSet
from distill.engine_parts.settings import check_precision, micro_batch_pairs
from distill.errors import UserError
from distill.losses import implementation_name
from distill.models.compiled import check_compiled
from distill.objective.checks import check_head
from distill.run_dir import RunDir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill.config import Config
    from distill.config.tree import CheckpointConfig, DataConfig, TrainConfig
    from distill.ranks import Ranks


_USES = {"train": "training", "evaluation": "evaluation"}


@dataclass(frozen=True)
class Plan:
    """A run whose settings and packs fit together.

    Attributes:
        run: where it lives.
        train: pairs to train on, of one pack or several.
        evaluation: held-out pairs, or None.
        sets: verification sets.
        total_steps: optimizer steps of the whole run.
        micro_batch_pairs: pairs of one forward pass of one rank.
        loss_implementation: what computes the pair loss, `native` or `reference`.
    """

    run: RunDir
    train: TrainingSet
    evaluation: Pack | None
    sets: list[AnySet]
    total_steps: int
    micro_batch_pairs: int
    loss_implementation: str

    @property
    def classes(self) -> list[str]:
        """Names of the C people, by label."""
        return self.train.identities

    @property
    def evaluates(self) -> bool:
        """Whether there is anything to measure on."""
        return self.evaluation is not None or bool(self.sets)


def make_plan(config: Config, ranks: Ranks) -> Plan:
    """Check everything that can be checked, and say what the run will do.

    Raises:
        UserError: the field or file at fault, what is wrong, and the fix.
    """
    check_precision(config, ranks.device)
    micro = micro_batch_pairs(config, ranks.world_size)
    implementation = implementation_name(config.loss.implementation, ranks.device.type)
    train = fitting_training_set(config)
    check_head(config, len(train.identities), ranks.world_size)
    evaluation = _evaluation(config.data.evaluation) if config.data.evaluation else None
    sets = _sets(config.evaluate.set_paths, evaluation)
    _check_best_metric(config.checkpoint, evaluation, sets)
    check_compiled(config, ranks.device)  # last, since it takes seconds
    return Plan(
        run=RunDir(Path(config.run.dir)),
        train=train,
        evaluation=evaluation,
        sets=sets,
        total_steps=config.train.steps or _steps_of_epochs(config.train, train.pairs),
        micro_batch_pairs=micro,
        loss_implementation=implementation,
    )


def fitting_training_set(config: Config) -> TrainingSet:
    """The packs to train on, as one, which have what the settings make batches of.

    Raises:
        UserError: no pack, no second images where they are asked for, or too few pairs.
    """
    train = training_set(config.data)
    check_layout(train, config.data)
    check_global_batch(train.pairs, config.train.global_batch_pairs, train.name)
    return train


def _steps_of_epochs(train: TrainConfig, pairs: int) -> int:
    return steps_of(train.epochs, pairs, train.global_batch_pairs)


def training_set(data: DataConfig) -> TrainingSet:
    """The packs to train on, as one, without what is to be left out of them."""
    folders = data.train_packs or [""]
    how = "--layout singles" if data.second == "online" else "--holdout 0.2"
    packs = [_open("data.train", folder, "train", how) for folder in folders]
    train = TrainingSet.of(packs, data.same_names)
    lists = [Path(path) for path in data.exclude_lists]
    return train.without(read_excluded(lists, packs)) if lists else train


def _evaluation(folder: str) -> Pack:
    """The held-out pack, with all that an evaluation hours from now will ask of it."""
    from distill.evaluate.provenance import other_photographs  # scikit-learn is slow to import

    pack = _open("data.evaluation", folder, "evaluation")
    other_photographs(pack)
    return pack


def _sets(paths: Sequence[str], evaluation: Pack | None) -> list[AnySet]:
    """The verification sets, none of them called as a condition of the held-out pack is."""
    try:
        sets = read_sets([Path(path) for path in paths])
    except UserError as error:
        raise UserError(f"evaluate.sets: {error.what}", fix=error.fix) from error
    taken = {"clean", "processed", *_conditions(evaluation)}
    for found in sets:
        if found.name in taken:
            raise UserError(
                f"evaluate.sets: {found.path}: the numbers of {found.name!r} are others",
                fix="rename the file",
            )
    return sets


def _conditions(evaluation: Pack | None) -> list[str]:
    """What numbers of the held-out pack are filed under."""
    return ["clean", "processed", *evaluation.manifest.kinds] if evaluation else []


def _check_best_metric(
    keep: CheckpointConfig, evaluation: Pack | None, sets: Sequence[AnySet]
) -> None:
    """What decides which checkpoint is kept as best is of something that will be measured.

    The default is let pass: it does not say that anybody asked for it. So is all where nothing is
    measured.

    Raises:
        UserError: it is of something else, or less of it is better.
    """
    measured = [*_conditions(evaluation), *(found.name for found in sets)]
    asked = keep.keep_best and keep.best_metric != type(keep)().best_metric
    if asked and measured and keep.best_metric.partition("/")[0] not in measured:
        raise UserError(
            f"checkpoint.best_metric = {keep.best_metric!r}: measured is {', '.join(measured)}",
            fix="begin it with one of these, as in clean/top1 and lfw/accuracy",
        )
    if asked and measured and keep.best_metric.endswith("/eer"):
        raise UserError(
            f"checkpoint.best_metric = {keep.best_metric!r}: of equal error rates the largest is"
            " the worst, and it would be kept",
            fix="take another one, such as auc or accuracy",
        )


def best_undecided(config: Config, total_steps: int) -> str:
    """Why no checkpoint can turn out to be the best, where one is to be kept; empty if one can.

    A checkpoint has the numbers of an evaluation after the same step. The last one has none: it is
    saved first. As above, the default is let pass.
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


def _open(field: str, folder: str, purpose: str, how: str = "--holdout 0.2") -> Pack:
    """The pack named by a field of the settings; ``how`` such a one is made."""
    make_it = f"make one with `pairdistill pack PHOTOGRAPHS OUT {how}` and set {field}"
    if not folder:
        raise UserError(f"{field} is empty: there is nothing to train on", fix=make_it)
    if Path(folder).is_file():
        raise UserError(f"{field} = {folder!r}: a file, and no pack of pairs", fix=make_it)
    if not Path(folder).is_dir():
        raise UserError(f"{field} = {folder!r}: no such folder", fix=make_it)
    pack = read_pack(folder)
    if pack.manifest.purpose != purpose:
        raise UserError(
            f"{field} = {folder!r}: a pack for {_USES[pack.manifest.purpose]}", fix=make_it
        )
    return pack
