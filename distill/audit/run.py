"""An audit from beginning to end, on all ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from distill.arrays import Numbers
from distill.audit.centres import Centres
from distill.audit.compare import Alike, alike
from distill.audit.summary import Summary
from distill.audit.suspects import named, suspects, write_suspects
from distill.audit.votes import (
    FAR,
    far_file,
    far_rows,
    files_beside,
    row_type,
    seen,
    store,
    stored,
    with_nearest,
)
from distill.collectives import all_reduce_sum, merged_on_first, together
from distill.data.loader import (
    make_chosen_loader,
    make_photograph_loader,
    pairs_per_photograph,
)
from distill.data.pack.tables import Table
from distill.data.people import are_numbers
from distill.errors import UserError
from distill.files import disk_errors, whole_files
from distill.ranks import Ranks

if TYPE_CHECKING:
    from distill.checkpoint import Stored
    from distill.data.manifest import Pack
    from distill.trained import TrainedBackbone

ALIKE_LIMIT = 100_000
"""Most pairs of people in the list, and those that a rank keeps of its own."""
Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""A bar for a title and a number of units of work; what it gives is told of those that are done."""
PEOPLE_COLUMNS = ("identity", "other", "cosine", "photographs", "other_photographs")


class Asked(NamedTuple):
    """What is looked for.

    Attributes:
        out: the list of photographs; that of people stands beside it.
        degrees: largest angle to the dominant centre that is not listed.
        alike_degrees: smallest angle of two centres that is not listed; 0 for no such list.
        few: photographs that an identity had better have.
    """

    out: Path
    degrees: float = 75.0
    alike_degrees: float = 60.0
    few: int = 10

    @property
    def people_out(self) -> Path:
        """The list of pairs of people."""
        return self.out.with_name(f"{self.out.stem}-people{self.out.suffix}")


class Found(NamedTuple):
    """What all ranks together have seen.

    Attributes:
        looked: photographs of each class, (C,).
        dominant: the sub-centre that most of them chose, the first of equal ones, (C,).
        alike: pairs of people, nearest first, on rank 0; none elsewhere.
    """

    looked: Numbers
    dominant: Numbers
    alike: Alike


@contextmanager
def no_bar(title: str, units: int) -> Iterator[Callable[[int], None]]:
    """Nobody is told."""
    yield lambda done: None


def audit(
    trained: TrainedBackbone,
    stored_weights: Stored,
    pack: Pack,
    ranks: Ranks,
    asked: Asked,
    bar: Bar = no_bar,
) -> Summary | None:
    """Look at the photographs of a pack, and write what is suspicious; all ranks must call it.

    Args:
        trained: the backbone, on the device of ``ranks``.
        stored_weights: where it came from, with the head.
        pack: the training pack.
        ranks: this process among the ranks.
        asked: what for, and where to.
        bar: shows how far each part of the work is.

    Returns:
        What was found, on rank 0; None on the others.

    Raises:
        UserError: a head without centres, people whom it does not know, or a corrupt image.
    """
    centres = Centres.of(stored_weights, ranks.device)
    classes_of = classes_of_labels(pack, stored_weights)
    with files_beside(asked.out, ranks) as files, torch.inference_mode():
        work = _Work(trained, pack, centres, ranks, asked, files, bar)
        found = _counted(_look(work, classes_of), work)
        _look_again(found, work)
        with together():
            return _written(found, work, stored_weights.identities) if ranks.is_first else None


class _Work(NamedTuple):
    """What the parts of an audit share.

    Attributes:
        trained: the backbone.
        pack: whose photographs are looked at.
        centres: of all identities.
        ranks: this process among the ranks.
        asked: what for, and where to.
        files: one of each rank, for what it has seen.
        bar: shows how far each part is.
    """

    trained: TrainedBackbone
    pack: Pack
    centres: Centres
    ranks: Ranks
    asked: Asked
    files: list[Path]
    bar: Bar

    @property
    def file(self) -> Path:
        """That of this rank."""
        return self.files[self.ranks.rank]

    @property
    def photographs(self) -> int:
        """In the pack."""
        return self.pack.manifest.pairs // pairs_per_photograph(self.pack)


def classes_of_labels(pack: Pack, weights: Stored) -> torch.Tensor:
    """Class of each identity of the pack by its name, -1 where there is none, (I,) int64.

    Raises:
        UserError: it is -1 for all.
    """
    place = {name: number for number, name in enumerate(weights.identities)}
    classes = torch.tensor([place.get(name, -1) for name in pack.manifest.identities])
    if bool((classes < 0).all()):
        raise UserError(
            f"{pack.path}: {str(weights.origin)!r} knows none of its people by name",
            fix="give a run that was trained on this pack (not with data.same_names ="
            ' "different_people", which changes names)',
        )
    return classes


def may_be_others(pack: Pack, weights: Stored) -> bool:
    """Whether equal names may be other people: numbers, of a pack that was not trained on."""
    known = weights.packs_digest
    is_another = bool(known) and pack.manifest.digest not in known.split("+")
    return is_another and are_numbers(pack.manifest.identities)


def _look(work: _Work, classes_of: torch.Tensor) -> Numbers:
    """This rank's share of the photographs; votes for each sub-centre, (C, K)."""
    trained, ranks = work.trained, work.ranks
    votes = np.zeros(work.centres.shape[:2], np.int64)
    batches = make_photograph_loader(
        work.pack,
        trained.config.data,
        rank=ranks.rank,
        world_size=ranks.world_size,
        batch_images=trained.config.evaluate.batch_images,
    )
    title, share = ranks.own_part("audit"), work.photographs // ranks.world_size
    with together(), work.bar(title, share) as advance:  # a corrupt image stops all ranks
        rows = seen(trained.model.backbone, batches, classes_of, work.centres, advance)
        store(rows, work.file, votes)
    return votes


def _counted(votes: Numbers, work: _Work) -> Found:
    """The votes of all ranks, and the people whose centres are near each other."""
    asked, ranks = work.asked, work.ranks
    everyones = all_reduce_sum(torch.from_numpy(votes)).numpy()
    looked, dominant = everyones.sum(1), everyones.argmax(1)
    if not asked.alike_degrees:
        return Found(looked, dominant, Alike.none())
    there = np.flatnonzero(looked)
    title, share = ranks.own_part("people"), len(there) // ranks.world_size
    with together(), work.bar(title, share) as advance:
        mine = alike(
            work.centres,
            torch.from_numpy(there),
            torch.from_numpy(dominant[there]),
            least_cosine=math.cos(math.radians(asked.alike_degrees)),
            rank=ranks.rank,
            world_size=ranks.world_size,
            limit=ALIKE_LIMIT,
            advance=advance,
        )
    return Found(looked, dominant, nearest_of_all(mine, ALIKE_LIMIT))


def nearest_of_all(mine: Alike, limit: int) -> Alike:
    """The nearest ``limit`` of what `alike` found on all ranks, on rank 0; none elsewhere."""
    found = merged_on_first(mine.rows, lambda rows: Alike.of_rows(rows).nearest(limit).rows)
    return Alike.none() if found is None else Alike.of_rows(found)


def _look_again(found: Found, work: _Work) -> None:
    """Compare those of this rank's photographs that are far with everybody."""
    trained, least_cosine = work.trained, math.cos(math.radians(work.asked.degrees))
    seen_before = stored(work.file, row_type(work.centres.shape[1]))
    rows = far_rows(seen_before, found.dominant, least_cosine)
    batches = make_chosen_loader(
        work.pack, trained.config.data, rows["pair"], trained.config.evaluate.batch_images
    )
    title = work.ranks.own_part("whose they may be")
    with together(), work.bar(title, len(rows)) as advance:
        with_nearest(rows, trained.model.backbone, batches, work.centres, advance)
        with disk_errors(work.asked.out):
            far_file(work.file).write_bytes(rows.tobytes())


def _written(found: Found, work: _Work, identities: list[str]) -> Summary:
    """Both lists, which appear together."""
    asked, pack = work.asked, work.pack
    people_out = asked.people_out if asked.alike_degrees else None
    outs = [path for path in (people_out, asked.out) if path is not None]
    far = suspects(chain.from_iterable(stored(far_file(file), FAR) for file in work.files))
    with whole_files(*outs) as folder, work.bar("names", pack.manifest.pairs) as advance:
        listed = write_suspects(
            named(far, pack, advance), folder / asked.out.name, asked.out, pack, identities
        )
        if people_out is not None:
            _write_people(found, folder / people_out.name, people_out, identities)
    pairs = len(found.alike.cosines)
    return Summary.of(
        identities,
        found.looked,
        listed,
        unknown=work.photographs - int(found.looked.sum()),
        few_than=asked.few,
        alike=pairs,
        alike_limited=pairs == ALIKE_LIMIT,
    )


def _write_people(found: Found, path: Path, named_path: Path, identities: list[str]) -> None:
    with Table(path, named_path, *PEOPLE_COLUMNS) as table:
        for cosine, first, second in zip(*map(torch.Tensor.tolist, found.alike), strict=True):
            names = identities[first], identities[second]
            counts = int(found.looked[first]), int(found.looked[second])
            table.row(*names, f"{cosine:.4f}", *counts)
