"""What a run reads: packs, verification sets and weights to start from, and whether they fit.

`pairdistill plan` and `pairdistill train` ask it alike, so a mistake has the same words in both.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from distill.checkpoint import check_start
from distill.data.excluded import read_excluded
from distill.data.loader import check_layout
from distill.data.manifest import Pack, read_pack
from distill.data.order import check_global_batch
from distill.data.protocols.found import AnySet, read_sets
from distill.data.training_set import TrainingSet
from distill.errors import UserError, told_of
from distill.models.classifier import shapes_of
from distill.run_dir import RunDir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distill.config import Config
    from distill.config.tree import DataConfig
    from distill.evaluate.rehearsal import Foreseen


Known = dict[str, tuple[str, Any]]
"""By kind what was read last, after the settings that it was read for."""
_Read = TypeVar("_Read")
_USES = {"train": "training", "evaluation": "evaluation"}


class Inputs(NamedTuple):
    """What a run reads, checked.

    Attributes:
        train: pairs to train on, of one pack or several.
        evaluation: held-out pairs, or None.
        sets: verification sets.
    """

    train: TrainingSet
    evaluation: Pack | None
    sets: list[AnySet]

    @property
    def evaluates(self) -> bool:
        """Whether there is anything to measure on."""
        return self.evaluation is not None or bool(self.sets)


def read_inputs(config: Config, known: Known | None = None) -> Inputs:
    """Open all that a run with these settings reads; nothing is written.

    Args:
        config: settings.
        known: what was read for another run of many; what this one reads alike is not read again.
            Afterwards it holds what this one reads.

    Raises:
        UserError: the field or file at fault, what is wrong, and the fix.
    """
    known = {} if known is None else known
    train = _fitting_training_set(config, known)
    folder, paths = config.data.evaluation, config.evaluate.set_paths
    evaluation = _once(known, "held out", folder, lambda: _evaluation(folder)) if folder else None
    sets = _once(known, "sets", repr((folder, paths)), lambda: _sets(paths, evaluation))
    inputs = Inputs(train, evaluation, sets)
    _check_best_metric(config, inputs)
    _check_init_from(config, train.identities)
    return inputs


def _once(known: Known, kind: str, settings: str, read: Callable[[], _Read]) -> _Read:
    """What ``read`` reads, unless the last that was read of its kind was for the same settings."""
    if known.get(kind, ("", None))[0] != settings:
        known[kind] = (settings, read())
    found: _Read = known[kind][1]
    return found


def _fitting_training_set(config: Config, known: Known) -> TrainingSet:
    """The packs to train on, as one, which have what the settings make batches of.

    Raises:
        UserError: no pack, no second images where they are asked for, or too few pairs.
    """
    data = config.data
    train = _once(known, "train", data.model_dump_json(), lambda: training_set(data))
    check_layout(train, data)
    check_global_batch(train.pairs, config.train.global_batch_pairs, train.name)
    return train


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
    with told_of("evaluate.sets"):
        sets = read_sets([Path(path) for path in paths])
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


def _check_best_metric(config: Config, inputs: Inputs) -> None:
    """What decides which checkpoint is kept as best will be measured.

    The default is let pass: it does not say that anybody asked for it. So is all where nothing is
    measured.

    Raises:
        UserError: it never will be, or less of it is better.
    """
    keep = config.checkpoint
    measured = [*_conditions(inputs.evaluation), *(found.name for found in inputs.sets)]
    asked = keep.keep_best and keep.best_metric != type(keep)().best_metric
    if not asked or not measured:
        return
    condition, _, name = keep.best_metric.partition("/")
    wrong = f"checkpoint.best_metric = {keep.best_metric!r}"
    if condition not in measured:
        raise UserError(
            f"{wrong}: measured is {', '.join(measured)}",
            fix="begin it with one of these, as in clean/top1 and lfw/accuracy",
        )
    if name == "eer":
        raise UserError(
            f"{wrong}: of equal error rates the largest is the worst, and it would be kept",
            fix="take another one, such as auc or accuracy",
        )
    names, reasons = _foreseen(config, inputs, condition)
    if name not in names:
        why = f": {reasons[name]}" if name in reasons else ""
        there = ", ".join(f"{condition}/{each}" for each in names if each != "eer")
        raise UserError(
            f"{wrong}: no evaluation of this run will have it{why}",
            fix=f"take one of {there}" if there else "take one of another set or condition",
        )


def _foreseen(config: Config, inputs: Inputs, condition: str) -> Foreseen:
    """The numbers that there will be of one condition of the held-out pack, or of one set."""
    from distill.evaluate import rehearsal  # scikit-learn is slow to import

    pack = inputs.evaluation
    if pack is None or condition not in _conditions(pack):
        (found,) = (each for each in inputs.sets if each.name == condition)
        return rehearsal.foreseen_of_set(found)
    limit = config.evaluate.impostor_pairs_max
    return rehearsal.foreseen_of_pack(pack, condition, inputs.train.identities, limit)


def _check_init_from(config: Config, identities: Sequence[str]) -> None:
    """Weights to start from fit, as far as their headers tell.

    A run that has a checkpoint goes on from that, wherever the first one started from.

    Raises:
        UserError: they are missing, of another network, or of people with other labels.
    """
    model, run = config.model, RunDir(Path(config.run.dir))
    if model.init_from and not (run.checkpoint_steps() or run.complete.exists()):
        shapes = shapes_of(config, len(identities))
        check_start(Path(model.init_from), shapes, identities, head=model.init_head)


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
