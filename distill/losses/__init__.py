"""The loss of a pair: both cross-entropies and the similarity of the two softened answers.

`pair_loss` is what a training step calls. `reference.py` says in plain torch what is computed;
`fused.py` calls `torch.ops.pairdistill`, built from `kernels/`.
"""

from distill.losses.choice import ImplementationInfo, implementation_info, implementation_name
from distill.losses.linear import linear_pair_loss
from distill.losses.linear_rows import linear_cross_entropy
from distill.losses.margin import RowMargins, margined_logits
from distill.losses.pair import pair_loss, pair_loss_and_grad
from distill.losses.sharded import ClassShards
from distill.losses.spec import IGNORED_LABEL, PairLoss, PairLossAndGrad, PairLossSpec, RowLoss

__all__ = [
    "IGNORED_LABEL",
    "ClassShards",
    "ImplementationInfo",
    "PairLoss",
    "PairLossAndGrad",
    "PairLossSpec",
    "RowLoss",
    "RowMargins",
    "implementation_info",
    "implementation_name",
    "linear_cross_entropy",
    "linear_pair_loss",
    "margined_logits",
    "pair_loss",
    "pair_loss_and_grad",
]
