"""Margins on the cosine between an embedding and the weight of its own class, in plain torch.

    psi(c) = cos(theta + m) - k     with theta = arccos(c), for theta <= pi - m
    psi(c) = c - (1 - cos m) - k    beyond it, where cos(theta + m) would rise again

m is ArcFace's additive angle (Deng et al., 2019, equation 3), k CosFace's margin (Wang et al.,
2018, equation 4). Both branches give -1 - k at theta = pi - m, so psi is continuous and never
falls with c; ArcFace's public code continues with c - m sin m, which has a step there.

cos(theta + m) = c cos m - sqrt(1 - c^2) sin m needs no arccos. Its slope sin(theta + m) / sin
theta has no bound at c = 1, while the slope of c along the unit sphere vanishes there; the square
root is held above a small number, so that their product ends at 0 and not at NaN.

Only the target's cosine passes through here: the similarity of the two answers must see what the
classifier says, not what the training asks of it.
"""

from __future__ import annotations

import math

import torch

from distill.losses.spec import PairLossSpec


def logits_of(scores: torch.Tensor, spec: PairLossSpec) -> torch.Tensor:
    """Margin-free logits of scores, any shape."""
    return scores if spec.logit_scale == 1.0 else spec.logit_scale * scores


def margined_target(
    scores: torch.Tensor, labels: torch.Tensor, spec: PairLossSpec
) -> torch.Tensor | None:
    """Logits (N,) of the own classes with their margin, from scores (N, C); None without margin.

    Labels of -1 get class 0's.
    """
    if not spec.has_margin:
        return None
    own = scores.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    return logits_of(margined(own, spec.margin_angle_rad, spec.margin_cosine), spec)


def margined_logits(scores: torch.Tensor, labels: torch.Tensor, spec: PairLossSpec) -> torch.Tensor:
    """Logits (N, C) of scores in which each own class has its margin."""
    logits, target = logits_of(scores, spec), margined_target(scores, labels, spec)
    if target is None:
        return logits
    return logits.scatter(1, labels.clamp(min=0)[:, None], target[:, None])


def margined(target_cosines: torch.Tensor, angle_rad: float, cosine: float) -> torch.Tensor:
    """The value psi of each target cosine, (N,) to (N,), in the dtype given.

    Args:
        target_cosines: (N,) floating point.
        angle_rad: ArcFace's m, radians in [0, pi/2).
        cosine: CosFace's k, in [0, 1).
    """
    moved = add_angle(target_cosines, angle_rad) if angle_rad else target_cosines
    return moved - cosine


def add_angle(cosines: torch.Tensor, angle_rad: float) -> torch.Tensor:
    """cos(arccos(c) + m) where that falls with the angle, c - (1 - cos m) beyond, (N,) to (N,)."""
    cos_m, sin_m = math.cos(angle_rad), math.sin(angle_rad)
    smallest = 8 * torch.finfo(cosines.dtype).eps
    # (1 - c)(1 + c) keeps the digits that 1 - c*c loses near |c| = 1
    sines = ((1 - cosines) * (1 + cosines)).clamp_min(smallest).sqrt()
    return torch.where(cosines >= -cos_m, cosines * cos_m - sines * sin_m, cosines - (1 - cos_m))
