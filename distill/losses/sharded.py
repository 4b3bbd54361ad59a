"""Classes spread over ranks: the few numbers that ranks exchange about a pair.

Every rank has the features of the whole batch and the weight of its own classes. In forward the
ranks exchange their states, 10 numbers a pair: the merge primitive then makes one state of them,
in rank order, so that all ranks hold the same bits. Backward needs nothing more about logits; the
gradient of the features is a sum over the ranks.

An arg-max is a class number and would be an eleventh and a twelfth number. What the accuracies and
the agreement need of it are three bits: whether both sides have the same one among this rank's
classes, and whether it lies before the label, for each side. They travel as signs of sums that are
never negative.

Single images (labels for each side) tell less: 3 numbers each, and whether theirs lies before the
label.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F

from distill.collectives import gather_objects, gathered
from distill.errors import UserError
from distill.losses.checks import debugging
from distill.losses.linear_checks import HeadArguments
from distill.losses.linear_state import STATE_COLUMNS, Choices, State
from distill.losses.registration import NO_CLASS

CARRIERS = [STATE_COLUMNS.index("s") * 2, STATE_COLUMNS.index("t") * 2]
CARRIERS.append(CARRIERS[-1] + 1)
"""Columns whose signs carry: the same arg-max on both sides, the first's before the label, the
second's before the label."""
SINGLE_CARRIERS = [CARRIERS[0], CARRIERS[0] + 1]
"""Of single images: the first one's before its label, the second one's before its label."""


@dataclass
class ClassShards:
    """The share of the classes that each rank of a process group has; made by `create`.

    Attributes:
        group: the process group; None for the default one.
        rank: place in the group.
        bounds: first class of each rank, and the number of all classes: W + 1 numbers.
        sum_feature_gradients: whether every rank gets the whole gradient of the features; else
            each gets what its own classes contribute, for a reduce-scatter by the caller.
        gather_entropies: whether states carry 2 more numbers a pair, for the entropies.
    """

    group: dist.ProcessGroup | None
    rank: int
    bounds: tuple[int, ...]
    sum_feature_gradients: bool = True
    gather_entropies: bool = False
    _agreed: bool = False
    _on_device: dict[tuple[tuple[int, ...], torch.device], torch.Tensor] = field(
        default_factory=dict, repr=False, compare=False
    )

    @classmethod
    def create(
        cls,
        group: dist.ProcessGroup | None,
        rows: int,
        *,
        sum_feature_gradients: bool = True,
        gather_entropies: bool = False,
    ) -> ClassShards:
        """Tell all ranks of ``group`` how many classes each has; a collective, to be called once.

        Args:
            group: the process group; None for the default one.
            rows: classes of this rank, the rows of its weight; 0 for none. Rank r's classes
                follow those of rank r - 1.
            sum_feature_gradients: see the class; alike on all ranks.
            gather_entropies: see the class; alike on all ranks.

        Raises:
            UserError: no process group, a rank's ``rows`` is not a number of classes, fewer than
                two classes in all, or ranks want different things; on all ranks.
        """
        if not dist.is_initialized():
            raise UserError(
                "shards: there is no process group",
                fix="call torch.distributed.init_process_group, or pass shards=None",
            )
        shown = rows if isinstance(rows, int) else repr(rows)
        told = gather_objects([shown, sum_feature_gradients, gather_entropies], group)
        for rank, (theirs, *_) in enumerate(told):
            if not isinstance(theirs, int) or theirs < 0:
                raise UserError(
                    f"rows = {theirs!r} on rank {rank}: must be a whole number >= 0",
                    fix="pass weight.shape[0]",
                )
        names = ("sum_feature_gradients", "gather_entropies")
        raise_if_different([dict(zip(names, one[1:], strict=True)) for one in told])
        bounds = [0]
        for theirs, *_ in told:
            bounds.append(bounds[-1] + theirs)
        if bounds[-1] < 2:
            raise UserError(
                f"rows: {bounds[-1]} classes over all ranks, must be at least 2",
                fix="share out the rows of the whole weight",
            )
        options = (sum_feature_gradients, gather_entropies)
        return cls(group, dist.get_rank(group), tuple(bounds), *options)

    @property
    def world_size(self) -> int:
        """Number of ranks W."""
        return len(self.bounds) - 1

    @property
    def classes(self) -> int:
        """Classes of all ranks."""
        return self.bounds[-1]

    @property
    def class_start(self) -> int:
        """Number of this rank's first class."""
        return self.bounds[self.rank]

    @property
    def rows(self) -> int:
        """Classes of this rank."""
        return self.bounds[self.rank + 1] - self.class_start

    def agree(self, arguments: HeadArguments) -> None:
        """Check this rank's arguments, and that the other ranks have the same.

        On the CPU the ranks compare in every call; on a GPU that would make the host wait, so
        they do in the first one, and in all of them where ``PAIRDISTILL_DEBUG=1`` is set.

        Raises:
            UserError: some rank's arguments are wrong or differ; on all ranks that compare.
        """
        on_cpu = arguments.labels.device.type == "cpu"
        if self._agreed and not on_cpu and not debugging():
            arguments.check(self.classes, self.rows)
            return
        told = gather_objects(self._report(arguments), self.group)
        for rank, one in enumerate(told):
            if "wrong" in one:
                where = "" if rank == self.rank else f"rank {rank}: "
                raise UserError(where + one["wrong"]["what"], fix=one["wrong"]["fix"])
        raise_if_different([one["is"] for one in told])
        self._agreed = True

    def _report(self, arguments: HeadArguments) -> dict[str, Any]:
        """What this rank tells the others of its arguments."""
        try:
            arguments.check(self.classes, self.rows)
        except UserError as error:
            return {"wrong": {"what": error.what, "fix": error.fix}}
        return {"is": arguments.described()}

    def gather_states(self, state: State, labels: torch.Tensor, choices: Choices) -> State:
        """The states of all ranks, (W, B, 14) and (W, B, 2); one all-gather.

        Labels are (B,) of pairs, or (B, 2) of single images.
        """
        return self.unpack(self.gathered(self.pack(state, labels, choices)), labels, choices)

    def pack(self, state: State, labels: torch.Tensor, choices: Choices) -> torch.Tensor:
        """What this rank tells the others, (B, 10) or a little more (see `columns_told`)."""
        columns, carriers = self._columns(choices, labels)
        # Column by column: a list as an index would have the host wait for a GPU.
        sums = list(state.sums.unbind(1))
        told = told_of_tops(state.tops, labels).unbind(1)
        for carrier, bit in zip(carriers, told, strict=True):
            sums[carrier] = torch.where(bit, -sums[carrier], sums[carrier])
        return torch.stack([sums[column] for column in columns], 1)

    def unpack(self, gathered: torch.Tensor, labels: torch.Tensor, choices: Choices) -> State:
        """States from what all ranks told, (W, B, 10).

        The arg-max of a rank's classes is one that lies among them and has the same place
        relative to the label and to the other side's, but need not be the very class.
        """
        columns, carriers = self._columns(choices, labels)
        given = dict(zip(columns, gathered.unbind(2), strict=True))
        told = torch.stack([given[carrier].signbit() for carrier in carriers], 2)
        given |= {carrier: given[carrier].abs() for carrier in carriers}
        nobody = torch.full_like(gathered[..., 0], torch.nan)
        whole = [given.get(column, nobody) for column in range(2 * len(STATE_COLUMNS))]
        sums = torch.stack(whole, 2)
        return State(sums, self._tops(told, sums[..., :2], labels))

    def _columns(self, choices: Choices, labels: torch.Tensor) -> tuple[list[int], list[int]]:
        """Columns that travel, and those of them that carry; as in a state, so in what is told."""
        smoothing = choices.label_smoothing
        if labels.dim() == 2:
            return columns_told(smoothing, single=True), SINGLE_CARRIERS
        return columns_told(smoothing, entropies=self.gather_entropies), CARRIERS

    def _tops(self, told: torch.Tensor, m: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Classes of each rank that fit what it told of its arg-max, (W, B, 2).

        Of all ranks at once: at 1,000 ranks, operators for each would be 26,000 launches.
        """
        bounds = self._bounds_on(labels.device)
        low, high = bounds[:-1], bounds[1:]
        label, before = labels.view(len(labels), -1), told[..., -2:]
        own = (label >= low) & (label < high)
        tops = torch.where(own, torch.where(before, label - 1, label + 1), low)
        if labels.dim() == 1:
            same, beside = told[..., :1], torch.where(own & before[..., 1:], -1, 1)
            beside_first = m[..., :1] != -torch.inf  # else there is nothing to stand apart from
            apart = ~same & beside_first & (~own | (before[..., :1] == before[..., 1:]))
            tops[..., 1:] += torch.where(apart, beside, 0)
        return tops.masked_fill_(m == -torch.inf, NO_CLASS)

    def _bounds_on(self, device: torch.device) -> torch.Tensor:
        """The bounds as (W + 1, 1, 1), kept until they change.

        Filled in one by one: a copy of the host's list would have the host wait for a GPU.
        """
        key = self.bounds, device
        if key not in self._on_device:
            self._on_device.clear()
            filled = [torch.full((1, 1), bound, device=device) for bound in self.bounds]
            self._on_device[key] = torch.stack(filled)
        return self._on_device[key]

    def sum_small(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the ranks in rank order, on all ranks; one all-gather."""
        return _sum_in_order(self.gathered(values))

    def sum_large(self, values: torch.Tensor) -> torch.Tensor:
        """The same for large tensors: each rank adds up its share, then the shares are gathered.

        Memory of about 2 more such tensors, however many ranks there are.
        """
        if self.world_size == 1:
            return values
        share = -(-values.numel() // self.world_size)
        sent = F.pad(values.flatten(), (0, share * self.world_size - values.numel()))
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)
        shares = self.gathered(_sum_in_order(received.view(self.world_size, share)))
        return shares.flatten()[: values.numel()].view_as(values)

    def gathered(self, values: torch.Tensor) -> torch.Tensor:
        """The values of all ranks, (W, ...), in rank order."""
        return gathered(values, self.group)


def columns_told(
    label_smoothing: float, *, entropies: bool = False, single: bool = False
) -> list[int]:
    """Columns of a state that travel: 10, and 2 for smoothing, and 2 for entropies.

    Of two ``single`` images 6, and 2 for smoothing.
    """
    names = ["m", "s", "y"] if single else ["m", "s", "t", "a", "y"]
    names += ["sum"] * (label_smoothing > 0.0) + ["h"] * entropies
    return [2 * STATE_COLUMNS.index(name) + side for name in names for side in (0, 1)]


def told_of_tops(tops: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The bits of `CARRIERS`, (B, 3) bool, from the arg-max of a rank's classes, (B, 2).

    Those of `SINGLE_CARRIERS`, (B, 2), where each side has its own label.
    """
    if labels.dim() == 2:
        return tops < labels
    same = tops[:, :1] == tops[:, 1:]
    return torch.cat([same, tops < labels[:, None]], 1)


def raise_if_different(told: list[dict[str, Any]]) -> None:
    """`UserError` for the first thing in which a rank differs from rank 0."""
    for rank, theirs in enumerate(told):
        for name, value in told[0].items():
            if theirs[name] != value:
                raise UserError(
                    f"{name} differs between the ranks: {value} on rank 0, "
                    f"{theirs[name]} on rank {rank}",
                    fix="pass the same on every rank",
                )


def _sum_in_order(parts: torch.Tensor) -> torch.Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
