"""The similarity of few classes: K primary ones each by itself, all the rest as one class.

At a million classes most of the softened answers' mass lies, spread thin, on classes that nobody
is like. Grouped answers leave that mass one number:

    p~ = (p_c for the primary classes c, and 1 - their sum)

and so q~. The primary classes of a pair are its label and the K - 1 others that have the largest
scores in its first image, the same for both sides; which of equal ones is taken is not defined.
The choice is a constant. The gradient is exact, through the rest's probability too: the logit of
the rest is the logsumexp of its logits, and the softmax of grouped logits is the grouped answer.

A pair with its label ignored has class 0 in its place.
"""

from __future__ import annotations

import torch


def primary_classes(scores: torch.Tensor, labels: torch.Tensor, count: int) -> torch.Tensor:
    """Primary classes of each row, (B, K) int64, the label first; from scores (B, C), K < C."""
    y = labels.clamp(min=0)[:, None]
    # an excluded class (-inf) still comes before the label, which is in already
    others = scores.detach().clamp(min=torch.finfo(scores.dtype).min).scatter(1, y, -torch.inf)
    return torch.cat([y, others.topk(count - 1, 1).indices], 1)


def grouped(logits: torch.Tensor, primary: torch.Tensor) -> torch.Tensor:
    """Logits (B, K + 1) of the primary classes and of the rest, from logits (B, C)."""
    rest = logits.scatter(1, primary, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([logits.gather(1, primary), rest], 1)
