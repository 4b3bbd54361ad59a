"""What an objective says of a micro-batch, and what all of them make it from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
import torch.nn.functional as F

from distill.data.batch import PairBatch, as_network_input
from distill.losses import PairLoss, RowLoss

if TYPE_CHECKING:
    from distill.heads.answers import Answers

Scalars = dict[str, torch.Tensor]


class PairAnswers(NamedTuple):
    """What the network says of the first P pairs of a batch.

    Attributes:
        classes: most probable class of the first and of the second images, (2, P) int64.
        probabilities: its probability, (2, P).
    """

    classes: torch.Tensor
    probabilities: torch.Tensor


class BatchLoss(NamedTuple):
    """The loss of a micro-batch.

    Attributes:
        total: float32 scalar with gradient.
        scalars: what is logged of it.
        finite: whether what this rank's own pairs give is finite, a scalar.
        answers: to the first pairs, where they were asked for.
    """

    total: torch.Tensor
    scalars: Scalars
    finite: torch.Tensor
    answers: PairAnswers | None = None


def images_of(batch: PairBatch, images: Literal["pair", "first"]) -> torch.Tensor:
    """First images, then second ones, (2B, 3, 112, 112), or first ones, as the network takes them.

    Args:
        batch: B pairs, or what was asked for of them.
        images: `train.images`.
    """
    return as_network_input(torch.cat(batch.both) if images == "pair" else batch.first)


def measured(
    loss: PairLoss | RowLoss, embeddings: torch.Tensor, answers: PairAnswers | None = None
) -> BatchLoss:
    """What is logged of the loss of a batch, with the embeddings of all its images."""
    total = loss.total.detach()
    scalars = {"loss/total": total}
    scalars |= _of_first(loss) if isinstance(loss, RowLoss) else _of_pairs(loss, embeddings)
    return BatchLoss(loss.total, scalars, torch.isfinite(total), answers)


def _of_first(loss: RowLoss) -> Scalars:
    return {"loss/ce_first": loss.ce, "accuracy/first": loss.correct}


def _of_pairs(loss: PairLoss, embeddings: torch.Tensor) -> Scalars:
    first, second = embeddings.detach().float().chunk(2)
    return {
        "loss/ce_first": loss.ce_first,
        "loss/ce_second": loss.ce_second,
        "loss/similarity": loss.similarity,
        "accuracy/first": loss.correct_first,
        "accuracy/second": loss.correct_second,
        "pair/agreement": loss.agreement,
        "pair/embedding_cosine": F.cosine_similarity(first, second).mean(),
    }


def of_first_pairs(rows: torch.Tensor, pairs: int) -> torch.Tensor:
    """Of rows (2B, n) those of the first ``pairs`` pairs, without gradient, (2P, n)."""
    return rows.detach().view(2, -1, rows.shape[1])[:, :pairs].flatten(0, 1)


def nobody(rows: torch.Tensor) -> torch.Tensor:
    """Right classes of ``rows`` where none is asked for."""
    return torch.full((len(rows),), -1, dtype=torch.int64, device=rows.device)


def best_of_pairs(answers: Answers) -> PairAnswers:
    """Answers to (2P,) rows as those to P pairs."""
    return PairAnswers(answers.predicted.view(2, -1), answers.confidence.view(2, -1))
