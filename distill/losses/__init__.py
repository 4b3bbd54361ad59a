"""The loss of a pair: both cross-entropies and the similarity of the two softened answers.

`pair_loss` is what a training step calls. `reference.py` says in plain torch what is computed;
`fused.py` calls `torch.ops.pairdistill.pair_loss`, built from `kernels/`.
"""

from distill.losses.choice import ImplementationInfo, implementation_info, implementation_name
from distill.losses.pair import pair_loss
from distill.losses.spec import IGNORED_LABEL, PairLoss, PairLossSpec

__all__ = [
    "IGNORED_LABEL",
    "ImplementationInfo",
    "PairLoss",
    "PairLossSpec",
    "implementation_info",
    "implementation_name",
    "pair_loss",
]
