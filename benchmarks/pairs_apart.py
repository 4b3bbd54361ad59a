"""How far a trained network's answers to held-out images are from those to their clean forms.

That is what the similarity term makes small on training pairs; top-1 and agreement see of it only
whether the most probable person changes.
"""

from __future__ import annotations

from pathlib import Path

import torch

from distill.data.batch import as_network_input
from distill.data.loader import make_eval_loader
from distill.data.manifest import read_pack
from distill.losses.reference import kl_divergence
from distill.trained import restore

TEMPERATURE = 3.0
"""One for all arms, whatever they were trained with."""


def apart(run: Path, evaluation: Path) -> dict[str, float]:
    """For every kind, and the mean of the kinds as ``processed``, means over photographs.

    ``KIND/apart`` is the symmetric KL divergence of the softened answers, in nats, and
    ``KIND/cosine`` the cosine of the embeddings, which does not depend on how sure answers are.

    Args:
        run: folder of a finished run.
        evaluation: the held-out pack.
    """
    trained, pack = restore(run, ["run.device=cpu"]), read_pack(evaluation)
    sums = torch.zeros(2, len(pack.manifest.kinds), dtype=torch.float64)
    batches = make_eval_loader(pack, trained.config.data, rank=0, world_size=1, batch_pairs=50)
    with torch.inference_mode():
        for batch in batches:
            clean, processed = (trained.model(as_network_input(side)) for side in batch.both)
            u, v = clean.logits.double() / TEMPERATURE, processed.logits.double() / TEMPERATURE
            both = (kl_divergence(u, v) + kl_divergence(v, u)) / 2
            cosines = torch.cosine_similarity(clean.embeddings, processed.embeddings)
            sums.index_add_(1, batch.kinds, torch.stack([both, cosines.double()]))
    # a pair of each kind for every photograph
    means = sums / pack.manifest.photographs
    columns = torch.cat([means, means.mean(1, keepdim=True)], 1).tolist()
    return {
        f"{kind}/{name}": value
        for name, values in zip(("apart", "cosine"), columns, strict=True)
        for kind, value in zip([*pack.manifest.kinds, "processed"], values, strict=True)
    }
