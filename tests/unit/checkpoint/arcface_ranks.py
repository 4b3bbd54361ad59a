"""One rank of test_checkpoint_arcface_head.py; no test itself.

    python arcface_ranks.py WEIGHTS IMAGES OUT

Starts fresh networks from WEIGHTS under several placements and stages, and writes to OUT, a file
for each rank, the logits of IMAGES for the people of this rank and who these are.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

from distill.checkpoint import start_from
from distill.config import load_config
from distill.engine import Engine
from distill.models.classifier import build_for_training
from distill.processes.spawn import spawned_rank
from distill.ranks import from_environment, init_process_group, leave_process_group

PLACES = {"flat": ("replicated", 1), "cut": ("replicated", 3), "by labels": ("sharded", 2)}
PEOPLE = 7
"""Three on one rank and four on the other where the head is sharded."""
SETTINGS = ["model.name=iresnet18", "model.embedding_dim=32", "run.device=cpu", "train.steps=1"]


def logits(weights, images, placement, stage, ranks):
    words = [*SETTINGS, f"head.placement={placement}", f"train.zero_stage={stage}"]
    config = load_config(None, words)
    torch.manual_seed(1)
    model, head = build_for_training(config, PEOPLE, ranks)
    engine = Engine.create(model, config, ranks, head)
    start = start_from(Path(weights), engine, [str(label) for label in range(PEOPLE)])
    with engine.evaluating() as network:
        embeddings = network.backbone(images)
        if head is None:
            return str(start), range(PEOPLE), network(images).logits
        rows = F.normalize(engine.head.weight)
    return str(start), engine.head.ranges.mine, 64 * F.normalize(embeddings) @ rows.T


def main(weights, images, out):
    with spawned_rank():
        config = load_config(None, SETTINGS)
        ranks = from_environment(config)
        init_process_group(config, ranks)
        x = torch.load(images)
        found = {}
        for name, place in PLACES.items():
            told, mine, scores = logits(weights, x, *place, ranks)
            found[name] = (told, list(mine), scores.detach())
        torch.save(found, f"{out}-{ranks.rank}")
        leave_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
