"""Which piece of which parameter lives on this rank, whatever the ZeRO stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from distill.engine_parts.optimizer import state_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

WEIGHT = "weight"
"""Kind of the float32 master weights, beside the optimizer's moments."""


class Fragment(NamedTuple):
    """A run of elements of one flattened parameter (or of a moment of it), held by this rank.

    Attributes:
        name: the parameter, as ``module.named_parameters()`` calls it.
        start: index of the first element in the flattened parameter.
        values: float32 vector; a view of the live state: writing to it changes the training.
    """

    name: str
    start: int
    values: torch.Tensor


class Held(NamedTuple):
    """Where a fragment lies: elements [offset, offset + length) of one optimizer tensor."""

    name: str
    start: int
    tensor: torch.Tensor
    offset: int
    length: int

    def fragment(
        self, kind: str, optimizer: torch.optim.Optimizer, moments: tuple[str, ...]
    ) -> Fragment:
        """The weights, or a moment of the same elements."""
        if kind == WEIGHT:
            source = self.tensor.detach()
        else:
            source = state_of(optimizer, self.tensor, moments)[kind]
        values = source.view(-1).narrow(0, self.offset, self.length)
        return Fragment(self.name, self.start, values)


def held_whole(module: nn.Module) -> Iterator[Held]:
    """Stage 0: every rank holds every parameter whole."""
    for name, parameter in module.named_parameters():
        yield Held(name, 0, parameter, 0, parameter.numel())


def held_in_flat_groups(module: nn.Module, zero: Any) -> Iterator[Held]:
    """Stages 1 and 2: a slice of each flat group, cut without regard to parameters.

    ``zero`` is DeepSpeed's optimizer; `_hp_mapping` is what it attaches to each parameter that
    has elements in this rank's slice.
    """
    group_of = {id(p): g for g, group in enumerate(zero.bit16_groups) for p in group}
    for name, parameter in module.named_parameters():
        mapping = parameter._hp_mapping  # type: ignore[attr-defined]
        if mapping is None:
            continue
        flat = zero.single_partition_of_fp32_groups[group_of[id(parameter)]]
        at, piece = mapping.lp_fragment_address, mapping.hp_fragment_address
        yield Held(name, at.start, flat, piece.start, piece.numel)


def held_in_equal_parts(module: nn.Module, zero: Any, rank: int) -> Iterator[Held]:
    """Stage 3: the ``rank``-th of equal parts of each parameter, the last one padded."""
    for name, parameter in module.named_parameters():
        group, offset, length = zero.grad_position[zero.get_param_id(parameter)]
        start = rank * length
        length = min(length, parameter.ds_numel - start)  # type: ignore[attr-defined]
        if length > 0:
            yield Held(name, start, zero.fp32_partitioned_groups_flat[group], offset, length)


def where_parameters_lie(module: nn.Module, zero: Any, stage: int, rank: int) -> Iterator[Held]:
    """The pieces of ``module``'s parameters on this rank, for any ZeRO ``stage``."""
    if stage == 0:
        return held_whole(module)
    if stage == 3:
        return held_in_equal_parts(module, zero, rank)
    return held_in_flat_groups(module, zero)


@torch.no_grad()
def spread_weights(zero: Any, stage: int) -> None:
    """After master weights were written to: bring them to where the forward pass reads them."""
    if stage in (1, 2):
        zero.update_lp_params()
    elif stage == 3:
        # As DeepSpeed does after an update: master weights to the partitions, then the small
        # parameters, which it keeps whole on every rank, are gathered anew.
        zero._partition_all_parameters()
        for group in range(len(zero.fp32_partitioned_groups_flat)):
            zero._reassign_or_swap_out_partitioned_parameters(group)
        if zero.persistent_parameters:
            zero.persistent_parameters[0].all_gather(zero.persistent_parameters)
