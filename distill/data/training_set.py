"""Several packs as one set to train on: one line of pairs, one list of people, one list of kinds.

Pairs are numbered through from pack to pack, so order, ranks, resuming and shuffling know no
packs. People are told apart by their names. Whether a name that two packs have is one person, only
who made them knows (record files number people from 0: each has a "0"), so it has to be said
(``data.same_names``); nothing is merged on a guess. Classes keep the order of the first pack,
followed by the people that each further one adds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple, Self, TypeAlias

import numpy as np

from distill.arrays import Numbers
from distill.data.excluded import NONE_EXCLUDED, Excluded
from distill.data.gaps import Gaps
from distill.data.manifest import Pack
from distill.data.pack_index import Joined, PackIndex, Renumbering
from distill.errors import UserError

SameNames: TypeAlias = Literal["refuse", "same_person", "different_people"]
_SHOWN = 5


class People(NamedTuple):
    """The people of several packs.

    Attributes:
        names: by class.
        classes: class of each label, of each pack.
        shared: how many names several packs have.
    """

    names: list[str]
    classes: list[Numbers]
    shared: int


@dataclass(frozen=True)
class TrainingSet:
    """Packs that are trained on together; one pack is itself, unchanged.

    Attributes:
        packs: in the order of their pairs.
        people: of all.
        kinds: of all, by number.
        excluded: what of it is left out.
    """

    packs: tuple[Pack, ...]
    people: People
    kinds: list[str]
    excluded: Excluded = NONE_EXCLUDED

    @classmethod
    def of(cls, packs: Sequence[Pack], same_names: SameNames = "refuse") -> Self:
        """The set that ``packs`` make.

        Raises:
            UserError: packs of different forms, one given twice, or names that several packs have
                while ``same_names`` does not say whose they are.
        """
        if len(packs) == 1:
            manifest = packs[0].manifest
            labels = np.arange(len(manifest.identities))
            return cls(tuple(packs), People(manifest.identities, [labels], 0), manifest.kinds)
        _check_forms(packs)
        kinds = list(dict.fromkeys(chain.from_iterable(p.manifest.kinds for p in packs)))
        return cls(tuple(packs), joined_people(packs, same_names), kinds)

    @property
    def name(self) -> str:
        """What errors call it: the folders."""
        return ", ".join(str(pack.path) for pack in self.packs)

    @property
    def identities(self) -> list[str]:
        """Names of the C people, by class."""
        return self.people.names

    @property
    def pairs(self) -> int:
        """Pairs of all packs, without those left out."""
        return sum(pack.manifest.pairs for pack in self.packs) - len(self.gaps)

    @property
    def gaps(self) -> Gaps:
        """The pairs that are left out."""
        return self.excluded.gaps

    def without(self, excluded: Excluded) -> Self:
        """The same without some pairs; everybody keeps their class.

        Raises:
            UserError: nothing is left.
        """
        left = replace(self, excluded=excluded)
        if not left.pairs:
            raise UserError(
                f"data.exclude: leaves none of the {len(left.gaps)} pairs of {self.name}",
                fix="look at the list: the run or the angle that it was made with is a bad one",
            )
        return left

    @property
    def emptied(self) -> int:
        """People all of whose pairs are left out."""
        classes = np.concatenate(self.people.classes)
        counts = np.concatenate([pack.manifest.pairs_per_identity for pack in self.packs])
        before = np.bincount(classes, counts)
        after = np.bincount(
            classes, counts - np.bincount(self.excluded.runs, minlength=len(counts))
        )
        return int(((before > 0) & (after <= 0)).sum())

    @property
    def digest(self) -> str:
        """That of the packs, and where pairs are left out, after a ``~``, SHA-256 of which."""
        return self.packs_digest + (f"~{self.excluded.digest}" if self.gaps else "")

    @property
    def packs_digest(self) -> str:
        """SHA-256 of the content of each pack, in their order, joined by ``+``."""
        return "+".join(pack.manifest.digest for pack in self.packs)

    @cached_property
    def index(self) -> PackIndex:
        """Where every image is.

        Raises:
            UserError: a shard is missing, damaged, or does not hold what its manifest says.
        """
        parts = [pack.index for pack in self.packs]
        if len(parts) == 1:
            return parts[0]
        return PackIndex(
            tuple(chain.from_iterable(part.shards for part in parts)),
            classes=max(part.classes for part in parts),
            kinds=max(part.kinds for part in parts),
            joined=Joined(
                self._per_shard_numbers(self.people.classes),
                self._per_shard_numbers(self.kind_numbers()),
                self.per_shard(np.cumsum([0, *map(len, parts[:-1])])),
            ),
        )

    def kind_numbers(self) -> list[Numbers]:
        """Number among all kinds of each kind, of each pack."""
        number = {kind: n for n, kind in enumerate(self.kinds)}
        return [np.array([number[kind] for kind in p.manifest.kinds]) for p in self.packs]

    def per_shard(self, of_packs: Numbers) -> Numbers:
        """For each shard what is said of its pack, (shards,)."""
        return np.repeat(of_packs, [len(pack.manifest.shards) for pack in self.packs])

    def _per_shard_numbers(self, new: Sequence[Numbers]) -> Renumbering:
        counts = np.array([len(part) for part in new])
        starts = np.cumsum(counts) - counts
        return Renumbering(self.per_shard(starts), self.per_shard(counts), np.concatenate(new))


def _check_forms(packs: Sequence[Pack]) -> None:
    """Refuses packs that no batch can mix, and a pack that is there already.

    Raises:
        UserError: naming both.
    """
    first, seen = packs[0], dict[str, Path]()
    for pack in packs:
        mine, its = pack.manifest, first.manifest
        if mine.image_side != its.image_side:
            raise _apart(first, pack, f"{its.image_side} and {mine.image_side} pixels a side")
        if mine.second != its.second:
            raise _apart(first, pack, f"second images {its.second} and {mine.second}")
        if mine.digest in seen:
            raise UserError(
                f"data.train: {seen[mine.digest]} and {pack.path} hold the same pairs",
                fix="name each pack once",
            )
        seen[mine.digest] = pack.path


def _apart(first: Pack, other: Pack, what: str) -> UserError:
    return UserError(
        f"data.train: {first.path} and {other.path} do not fit together: {what}",
        fix="pack one of them again, or train on one of them",
    )


def joined_people(packs: Sequence[Pack], same_names: SameNames) -> People:
    """One list of the people of all packs.

    A name that several packs have is one person (``same_person``), or one in each pack
    (``different_people``: "NAME (pack 1)" and so on). The place of somebody who was forgotten stays
    a class of its own.

    Raises:
        UserError: such names, where ``same_names`` is ``refuse``.
    """
    held = Counter(chain.from_iterable(map(_remembered, packs)))
    shared = [name for name, times in held.items() if times > 1]
    if shared and same_names == "refuse":
        raise _refused(shared)
    apart = set(shared) if same_names == "different_people" else set[str]()
    numbered = _numbering(held)
    class_of: dict[str, int] = {}
    classes = []
    for number, pack in enumerate(packs, 1):
        forgotten = set(pack.manifest.forgotten)
        names = (
            numbered(name, number) if name in apart or label in forgotten else name
            for label, name in enumerate(pack.manifest.identities)
        )
        classes.append(np.array([class_of.setdefault(name, len(class_of)) for name in names]))
    return People(list(class_of), classes, len(shared))


def _remembered(pack: Pack) -> Iterator[str]:
    """Names of a pack, without the places of people who were forgotten."""
    forgotten = set(pack.manifest.forgotten)
    names = enumerate(pack.manifest.identities)
    return (name for label, name in names if label not in forgotten)


def _numbering(taken: Iterable[str]) -> Callable[[str, int], str]:
    """What makes "NAME (pack 2)" of a name: something that nobody is called."""
    names = set(taken)

    def numbered(name: str, pack: int) -> str:
        found = f"{name} (pack {pack})"
        while found in names:
            found = f"{found} (pack {pack})"
        names.add(found)
        return found

    return numbered


def _refused(shared: Sequence[str]) -> UserError:
    some = ", ".join(map(repr, shared[:_SHOWN])) + (", ..." if len(shared) > _SHOWN else "")
    return UserError(
        f"data.train: {len(shared)} names stand in several packs ({some})",
        fix='set data.same_names to "same_person" where equal names are the same people, or to'
        ' "different_people" where they are not, as with numbers of different data sets',
    )
