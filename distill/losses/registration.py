"""The operators' shapes for tracing, and their gradients; loaded with the native extension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from distill.losses.spec import accumulation_dtype

VALUES_OF_ROW = 3
EXTRAS_OF_ROW = 4
STATS_OF_ROW = 12
STATE_OF_ROW = 14
"""Columns of the tensors that the operators exchange; `kernels/pair_loss.h` says what they hold."""

NO_CLASS = torch.iinfo(torch.int64).max
"""In the tops of a state: no column seen yet."""

Tensors = tuple[torch.Tensor, ...]


def register() -> None:
    """Fakes of every operator, and the gradient of `pair_loss`; once for a process."""
    for name, fake in _FAKES.items():
        torch.library.register_fake(f"pairdistill::{name}", fake)
    torch.library.register_autograd(
        "pairdistill::pair_loss", _backward, setup_context=_setup_context
    )
    torch.library.register_autograd("pairdistill::pair_loss_backward", _double_backward)
    torch.library.register_autograd("pairdistill::pair_loss_and_grad", _no_backward)


def empty_state(
    pairs: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The state (B, 14) and the tops (B, 2) of B rows of which no class has been seen.

    Args:
        pairs: B.
        dtype: float32, or float64 for float64 scores.
        device: where the scores are.
    """
    state = torch.zeros(pairs, STATE_OF_ROW, dtype=dtype, device=device)
    state[:, :2] = -torch.inf
    return state, torch.full((pairs, 2), NO_CLASS, device=device)


def _outputs_of_rows(like: torch.Tensor, dtype: torch.dtype) -> Tensors:
    """Values, by-products and tops of B rows."""
    B = like.shape[0]
    return (
        like.new_empty((B, VALUES_OF_ROW), dtype=dtype),
        like.new_empty((B, EXTRAS_OF_ROW), dtype=dtype),
        like.new_empty((B, 2), dtype=torch.int64),
    )


def _fake_forward(first: torch.Tensor, *_: Any) -> Tensors:
    dtype = accumulation_dtype(first)
    stats = first.new_empty((first.shape[0], STATS_OF_ROW), dtype=dtype)
    return (*_outputs_of_rows(first, dtype), stats)


def _fake_backward(
    _up: torch.Tensor, first: torch.Tensor, second: torch.Tensor, *_: Any
) -> Tensors:
    return first.new_empty(first.shape), second.new_empty(second.shape)


def _fake_and_grad(first: torch.Tensor, second: torch.Tensor, *_: Any) -> Tensors:
    gradients = first.new_empty(first.shape), second.new_empty(second.shape)
    return (*_fake_and_grad_in_place(first), *gradients)


def _fake_and_grad_in_place(first: torch.Tensor, *_: Any) -> Tensors:
    dtype = accumulation_dtype(first)
    return (first.new_empty((), dtype=dtype), *_outputs_of_rows(first, dtype))


def _fake_merge(states: torch.Tensor, tops: torch.Tensor, *_: Any) -> Tensors:
    return states.new_empty(states.shape[1:]), tops.new_empty(tops.shape[1:])


def _fake_finish(state: torch.Tensor, *_: Any) -> Tensors:
    stats = state.new_empty((state.shape[0], STATS_OF_ROW))
    return (*_outputs_of_rows(state, state.dtype), stats)


def _fake_in_place(*_: Any) -> None:
    """Writes into its arguments."""


_FAKES: dict[str, Callable[..., Any]] = {
    "pair_loss": _fake_forward,
    "pair_loss_backward": _fake_backward,
    "pair_loss_and_grad": _fake_and_grad,
    "pair_loss_and_grad_": _fake_and_grad_in_place,
    "pair_loss_accumulate_": _fake_in_place,
    "pair_loss_merge": _fake_merge,
    "pair_loss_finish": _fake_finish,
    "pair_loss_mmd_accumulate_": _fake_in_place,
    "pair_loss_mmd_finish_": _fake_in_place,
    "pair_loss_gradient_": _fake_in_place,
}


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensors) -> None:
    first, second, labels, *rest = inputs
    _, extras, tops, stats = output
    ctx.save_for_backward(first, second, labels, stats)
    ctx.choices = rest[:-1]  # without margins: their effect is in the statistics
    ctx.mark_non_differentiable(extras, tops, stats)


def _backward(ctx: Any, grad_values: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
    first, second = torch.ops.pairdistill.pair_loss_backward(
        grad_values.contiguous(), *ctx.saved_tensors, *ctx.choices
    )
    return (first, second, None, *([None] * (len(ctx.choices) + 1)))


def _double_backward(ctx: Any, *grads: torch.Tensor) -> None:
    raise RuntimeError(
        "pair_loss: a second derivative is not implemented by the native op; "
        "choose loss.implementation = 'reference'"
    )


def _no_backward(ctx: Any, *grads: torch.Tensor) -> None:
    raise RuntimeError(
        "pair_loss_and_grad: its outputs have no gradient; they come with one. Call pair_loss for "
        "a loss that autograd can go through"
    )
