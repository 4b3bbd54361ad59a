"""Margins on the cosine between an embedding and the weight of its own class, in plain torch.

    psi(c) = cos(theta + m) - k     with theta = arccos(c), for 0 <= theta + m <= pi
    psi(c) = c - (1 - cos m) - k    beyond pi, where cos(theta + m) would rise again with theta
    psi(c) = 1 - k                  below 0 (m < 0 alone), where theta + m is held at 0

m is ArcFace's additive angle (Deng et al., 2019, equation 3), k CosFace's margin (Wang et al.,
2018, equation 4). A pair may have margins of its own for each image (`RowMargins`), with angles of
either sign, as AdaFace does (Kim et al., 2022). Branches meet where they change, so psi is
continuous and never falls with c. Where an image is farther from its class than pi - m, the slope
stays 1, or nothing would pull it back; where it is nearer than -m, the slope is 0, which is also
the limit from the other side. ArcFace's public code continues with c - m sin m, which has a step;
AdaFace's holds theta + m at pi too.

cos(theta + m) = c cos m - sqrt(1 - c^2) sin m needs no arccos. Its slope sin(theta + m) / sin
theta has no bound at c = 1, while the slope of c along the unit sphere vanishes there; the square
root is held above a small number, so that their product ends at 0 and not at NaN.

Only the target's cosine passes through here: the similarity of the two answers must see what the
classifier says, not what the training asks of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from distill.losses.spec import PairLossSpec


class RowMargins(NamedTuple):
    """Margins of each image; constants, no gradient reaches them.

    Attributes:
        angle_rad: added to the angle, (N,) radians in (-pi/2, pi/2).
        cosine: taken off the cosine, (N,). N = 2B, first images, then second ones, for a pair loss.
    """

    angle_rad: torch.Tensor
    cosine: torch.Tensor

    def sides(self) -> tuple[RowMargins, RowMargins]:
        """Those of the first images and of the second ones, (B,) each."""
        halves = (one.chunk(2) for one in self)
        return tuple(RowMargins(*side) for side in zip(*halves, strict=True))  # type: ignore[return-value]

    def table(self, dtype: torch.dtype) -> torch.Tensor:
        """As the operators take them, (B, 6): cos, sin, cosine, each of both sides."""
        angle, cosine = (one.detach().double() for one in self)
        rows = torch.cat([x.view(2, -1) for x in (angle.cos(), angle.sin(), cosine)])
        return rows.T.to(dtype).contiguous()


def logits_of(scores: torch.Tensor, spec: PairLossSpec) -> torch.Tensor:
    """Margin-free logits of scores, any shape."""
    return scores if spec.logit_scale == 1.0 else spec.logit_scale * scores


def margined_target(
    scores: torch.Tensor,
    labels: torch.Tensor,
    spec: PairLossSpec,
    margins: RowMargins | None = None,
) -> torch.Tensor | None:
    """Logits (N,) of the own classes with their margin, from scores (N, C); None without margin.

    Labels of -1 get class 0's. ``margins`` stand in place of those of ``spec``.
    """
    if margins is None and not spec.has_margin:
        return None
    own = scores.gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
    if margins is None:
        return logits_of(margined(own, spec.margin_angle_rad, spec.margin_cosine), spec)
    return logits_of(margined(own, *(one.detach().to(own.dtype) for one in margins)), spec)


def margined_logits(
    scores: torch.Tensor,
    labels: torch.Tensor,
    spec: PairLossSpec,
    margins: RowMargins | None = None,
) -> torch.Tensor:
    """Logits (N, C) of scores in which each own class has its margin."""
    logits, target = logits_of(scores, spec), margined_target(scores, labels, spec, margins)
    if target is None:
        return logits
    return logits.scatter(1, labels.clamp(min=0)[:, None], target[:, None])


def margined(
    target_cosines: torch.Tensor, angle_rad: float | torch.Tensor, cosine: float | torch.Tensor
) -> torch.Tensor:
    """The value psi of each target cosine, (N,) to (N,), in the dtype given.

    Args:
        target_cosines: (N,) floating point.
        angle_rad: m, radians in (-pi/2, pi/2), for all or (N,).
        cosine: k, for all or (N,).
    """
    if isinstance(angle_rad, torch.Tensor):
        return add_angle(target_cosines, angle_rad.cos(), angle_rad.sin()) - cosine
    if angle_rad == 0.0:
        return target_cosines - cosine
    return add_angle(target_cosines, math.cos(angle_rad), math.sin(angle_rad)) - cosine


def add_angle(
    cosines: torch.Tensor, cos_m: float | torch.Tensor, sin_m: float | torch.Tensor
) -> torch.Tensor:
    """Psi without k, of cosines (N,) and the angle's cosine and sine."""
    smallest = 8 * torch.finfo(cosines.dtype).eps
    # (1 - c)(1 + c) keeps the digits that 1 - c*c loses near |c| = 1
    sines = ((1 - cosines) * (1 + cosines)).clamp_min(smallest).sqrt()
    beyond = (cosines < -cos_m) & (sin_m > 0)
    moved = torch.where(beyond, cosines - (1 - cos_m), cosines * cos_m - sines * sin_m)
    return torch.where((cosines >= cos_m) & (sin_m < 0), 1.0, moved)
