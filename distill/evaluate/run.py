"""An evaluation from beginning to end, on all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from distill.data.loader import make_eval_loader
from distill.errors import UserError
from distill.evaluate.embed import CLEAN_KIND, Probes, counted, embed
from distill.evaluate.identify import identify
from distill.evaluate.report import CLEAN, Condition, Report, as_condition
from distill.evaluate.verify import verify
from distill.ranks import Ranks, gather_objects

if TYPE_CHECKING:
    from distill.config.tree import Config
    from distill.data.manifest import Pack

PAIR_SEED = 20151121
"""Of the draw of verification pairs: a constant, so that models and steps can be compared."""


def evaluate(
    model: nn.Module,
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
        model: a `PairClassifier` on the device of ``ranks``, with equal weights on all ranks, whole
            on each (not sharded); set to evaluation mode, and back to the mode it had.
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
    check_purpose(pack)
    names = list(class_names) if class_names is not None else pack.manifest.identities
    classes_of = classes_of_identities(pack, names)
    probes = embedded(model, pack, config, ranks, classes_of, advance)
    check_finite(probes)
    conditions = measured(probes, pack, config, ranks, classes_of, len(names))
    clean = probes.select(probes.kinds == CLEAN_KIND)
    return Report(
        conditions=conditions,
        images=len(clean),
        people=len(set(clean.labels.tolist())),
        classes=len(names),
        pack={"name": pack.path.name, "digest": pack.manifest.beton_sha256},
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
    model: nn.Module,
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


def check_finite(probes: Probes) -> None:
    """Refuse NaN and infinite embeddings.

    Raises:
        UserError: how many images have them; the same on all ranks.
    """
    broken = int((~probes.embeddings.isfinite().all(1)).sum())
    if broken:
        raise UserError(
            f"the embeddings of {broken} of {len(probes)} images are not finite",
            fix="the weights have diverged: evaluate an older checkpoint, or train at a lower lr",
        )


def measured(
    probes: Probes,
    pack: Pack,
    config: Config,
    ranks: Ranks,
    classes_of: torch.Tensor,
    classes: int,
) -> list[Condition]:
    """All conditions, clean first; each is measured by one rank and then known to all."""
    clean = probes.select(probes.kinds == CLEAN_KIND)
    enrolled = clean.select(clean.labels.argsort(stable=True))
    names = [CLEAN, *pack.manifest.kinds]
    mine = {}
    for index, name in list(enumerate(names))[ranks.rank :: ranks.world_size]:
        kind = index - 1
        part = None if kind == CLEAN_KIND else probes.select(probes.kinds == kind)
        condition = Condition(
            name,
            identify(
                clean if part is None else part,
                None if part is None else matching(clean, part),
                classes_of,
                classes,
            ),
            verify(enrolled, part, limit=config.evaluate.impostor_pairs_max, seed=PAIR_SEED),
        )
        mine[name] = asdict(condition)
    gathered = {name: found for part in gather_objects(mine) for name, found in part.items()}
    return [as_condition(gathered[name]) for name in names]


def matching(clean: Probes, processed: Probes) -> Probes:
    """The clean image of each processed one; ``clean`` is sorted by photograph."""
    return clean.select(torch.searchsorted(clean.photographs, processed.photographs))
