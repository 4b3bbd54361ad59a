"""An evaluation from beginning to end, on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch

from distill.arrays import Numbers
from distill.collectives import gather_objects, together
from distill.data.loader import make_eval_loader
from distill.data.pairs_table import has_table
from distill.errors import UserError
from distill.evaluate.embed import CLEAN_KIND, Network, Probes, counted, embed
from distill.evaluate.identify import identify
from distill.evaluate.provenance import other_photographs
from distill.evaluate.report import CLEAN, Condition, Report, as_condition
from distill.evaluate.verify import verify
from distill.finite import check_finite
from distill.ranks import Ranks

if TYPE_CHECKING:
    from distill.config.tree import Config
    from distill.data.manifest import Pack

PAIR_SEED = 20151121
"""Of the draw of verification pairs: a constant, so that models and steps can be compared."""


@dataclass(frozen=True)
class Task:
    """What the answers to a pack are measured by.

    Attributes:
        kinds: names of the processings.
        classes_of: class of the classifier for each identity of the pack, -1 where it has none.
        classes: C.
        others: number of a second photograph that a pair was made from, -1 for none, (pairs,).
        pairs_max: most genuine, and most impostor pairs.
    """

    kinds: list[str]
    classes_of: torch.Tensor
    classes: int
    others: Numbers
    pairs_max: int

    @classmethod
    def of(cls, pack: Pack, class_names: Sequence[str] | None, pairs_max: int) -> Task:
        """The task of ``pack`` for a classifier of ``class_names`` (None: those of the pack).

        Raises:
            UserError: the pack's `pairs.csv` cannot be read.
        """
        names = list(class_names) if class_names is not None else pack.manifest.identities
        classes_of = classes_of_identities(pack, names)
        others = other_photographs(pack)
        return cls(pack.manifest.kinds, classes_of, len(names), others, pairs_max)


def evaluate(
    model: Network,
    pack: Pack,
    config: Config,
    ranks: Ranks,
    *,
    class_names: Sequence[str] | None = None,
    checkpoint: dict[str, Any] | None = None,
    advance: Callable[[int], None] = lambda pairs: None,
) -> Report:
    """Identification and verification of the held-out photographs; every rank gets the report.

    Each rank embeds its share of the pairs, then measures its share of the conditions. Random
    states, weights and running statistics stay as they are.

    Args:
        model: on the device of ``ranks``, with equal weights on all ranks, whole on each, but for
            a head by ranges of classes; set to evaluation mode, and back to the mode it had.
        pack: an evaluation pack.
        config: the settings; `evaluate` and `data` are used here, all are written to the report.
        ranks: this process among the ranks.
        class_names: who each class of the classifier is; None where these are the identities of
            the pack, in its order.
        checkpoint: what the report says of where the weights came from.
        advance: told the number of pairs of each batch that is done with (for a progress bar).

    Raises:
        UserError: the pack is no evaluation pack, or the embeddings are not finite.
    """
    with together():
        check_purpose(pack)
        task = Task.of(pack, class_names, config.evaluate.impostor_pairs_max)
    probes = embedded(model, pack, config, ranks, task.classes_of, advance)
    check_finite(probes.embeddings, "embeddings", "images")  # the same on all ranks
    conditions = measured(probes, task, ranks)
    clean = probes.select(probes.kinds == CLEAN_KIND)
    return Report(
        conditions=conditions,
        images=len(clean),
        people=len(set(clean.labels.tolist())),
        classes=task.classes,
        pack={
            "name": pack.path.name,
            "digest": pack.manifest.digest,
            "sources_known": has_table(pack),
        },
        checkpoint=checkpoint or {},
        config=config.model_dump(mode="json"),
        ranks=ranks.world_size,
    )


def check_purpose(pack: Pack) -> None:
    """Refuse a training pack: its photographs and kinds are laid out in another way.

    Raises:
        UserError: it is one.
    """
    if pack.manifest.purpose != "evaluation":
        raise UserError(
            f"{pack.path}: a training pack, not one for evaluation",
            fix="give the pack OUT/evaluation of `pairdistill pack --holdout`",
        )


def classes_of_identities(pack: Pack, class_names: Sequence[str]) -> torch.Tensor:
    """The class of each identity of the pack, by its name; -1 where there is none. (I,) int64."""
    place = {name: index for index, name in enumerate(class_names)}
    return torch.tensor([place.get(name, -1) for name in pack.manifest.identities])


def embedded(
    model: Network,
    pack: Pack,
    config: Config,
    ranks: Ranks,
    classes_of: torch.Tensor,
    advance: Callable[[int], None],
) -> Probes:
    """All images of the pack through the model, each once over all ranks."""
    kinds = len(pack.manifest.kinds)
    batches = make_eval_loader(
        pack,
        config.data,
        rank=ranks.rank,
        world_size=ranks.world_size,
        # each pair brings its second image, and one in `kinds` its first one too
        batch_pairs=max(1, config.evaluate.batch_images * kinds // (kinds + 1)),
    )
    training = model.training
    model.eval()
    try:
        return embed(
            model,
            counted(batches, advance),
            kinds=kinds,
            classes_of=classes_of,
            device=ranks.device,
        )
    finally:
        model.train(training)


def measured(probes: Probes, task: Task, ranks: Ranks) -> list[Condition]:
    """All conditions, clean first; each is measured by one rank and then known to all."""
    clean = probes.select(probes.kinds == CLEAN_KIND)
    kinds = range(CLEAN_KIND, len(task.kinds))
    mine = [
        asdict(condition_of(kind, probes.select(probes.kinds == kind), clean, task))
        for kind in kinds[ranks.rank :: ranks.world_size]
    ]
    # rank r has measured the conditions r, r + W, r + 2W, ...
    parts = gather_objects(mine)
    turns = zip_longest(*parts)
    return [as_condition(found) for turn in turns for found in turn if found]


def condition_of(kind: int, probes: Probes, clean: Probes, task: Task) -> Condition:
    """Identification and verification of the probes of one kind."""
    is_clean = kind == CLEAN_KIND
    enrolled = clean.select(clean.labels.argsort(stable=True))
    return Condition(
        CLEAN if is_clean else task.kinds[kind],
        identify(
            probes, None if is_clean else matching(clean, probes), task.classes_of, task.classes
        ),
        verify(
            enrolled,
            None if is_clean else probes,
            task.others[kind :: len(task.kinds)],
            limit=task.pairs_max,
            seed=PAIR_SEED,
        ),
    )


def matching(clean: Probes, processed: Probes) -> Probes:
    """The clean image of each processed one; ``clean`` is sorted by photograph."""
    return clean.select(torch.searchsorted(clean.photographs, processed.photographs))
