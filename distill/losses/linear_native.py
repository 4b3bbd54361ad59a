"""The streaming steps of :mod:`distill.losses.linear_state` by the native operators."""

from __future__ import annotations

import torch

from distill.losses.linear_state import Choices, Finished, State

# ruff: noqa: D103 - each is described once, in `linear_state.Primitives`


def accumulate_(
    state: State,
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    class_start: int,
    choices: Choices,
) -> None:
    torch.ops.pairdistill.pair_loss_accumulate_(
        *state, first, second, labels, class_start, *choices
    )


def merge(states: State, choices: Choices) -> State:
    return State(*torch.ops.pairdistill.pair_loss_merge(*states, *choices))


def finish(
    state: State,
    labels: torch.Tensor,
    classes: int,
    choices: Choices,
    margins: torch.Tensor | None = None,
) -> Finished:
    return Finished(
        *torch.ops.pairdistill.pair_loss_finish(*state, labels, classes, *choices, margins=margins)
    )


def mmd_accumulate_(
    sums: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    class_start: int,
    stats: torch.Tensor,
    choices: Choices,
) -> None:
    torch.ops.pairdistill.pair_loss_mmd_accumulate_(
        sums, first, second, labels, class_start, stats, *choices
    )


def mmd_finish_(
    stats: torch.Tensor,
    values: torch.Tensor,
    sums: torch.Tensor,
    labels: torch.Tensor,
    choices: Choices,
) -> None:
    torch.ops.pairdistill.pair_loss_mmd_finish_(stats, values, sums, labels, *choices)


def gradient_(
    first: torch.Tensor,
    second: torch.Tensor,
    labels: torch.Tensor,
    class_start: int,
    grad_values: torch.Tensor,
    stats: torch.Tensor,
    classes: int,
    choices: Choices,
) -> None:
    torch.ops.pairdistill.pair_loss_gradient_(
        first, second, labels, class_start, grad_values, stats, classes, *choices
    )
