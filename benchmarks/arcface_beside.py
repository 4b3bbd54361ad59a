"""A rank of our training with arcface_torch's beside it, step by step, for `arcface_parity.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from arcface_peer import Trainer, Ways, backbone_of, chosen, head_of

from distill.checkpoint.arcface import theirs
from distill.data.batch import PairBatch, as_network_input
from distill.schedules import learning_rate

if TYPE_CHECKING:
    from distill.engine import Engine
    from distill.step import Recipe

NETWORK, WIDTH, CLASSES, BATCH = "r18", 128, 40, 8
"""The batch is of all ranks and passes."""


class Pair:
    """Both sides of one rank, step by step."""

    def __init__(self, asked: dict[str, Any], engine: Engine, recipe: Recipe) -> None:
        ranks, checkout = engine.ranks, Path(asked["peer"])
        values = asked["values"]
        self.ways = Ways(**asked["ways"])
        backbone = backbone_of(checkout, NETWORK, WIDTH)
        rate = values.get("sample_rate", 1.0)
        head = head_of(checkout, values["margin_list"], WIDTH, CLASSES, rate)
        state = torch.load(Path(asked["root"], f"checkpoint_gpu_{ranks.rank}.pt"))
        backbone.load_state_dict(state["state_dict_backbone"])
        head.load_state_dict(state["state_dict_softmax_fc"])
        self.passes = recipe.config.train.accumulation
        total = recipe.total_steps * self.passes
        warmup = recipe.config.optimizer.warmup_steps * self.passes
        config = {"lr": values["lr"], "weight_decay": values["weight_decay"]}
        config |= {"warmup": warmup, "total": total}
        self.peer = Trainer(backbone, head, config, checkout, self.ways)
        self.engine, self.recipe, self.rows = engine, recipe, None
        self.begun = {name: one.clone() for name, one in self.weights_there().items()}
        self.losses: list[tuple[float, float]] = []

    def weights_there(self) -> dict[str, torch.Tensor]:
        """Theirs; `head` is this rank's rows."""
        named = dict(self.peer.backbone.module.named_parameters())
        return {n: p.detach() for n, p in named.items()} | {"head": self.peer.head.weight.detach()}

    def weights_here(self) -> dict[str, torch.Tensor]:
        """Ours, by their names."""
        assert self.engine.head is not None, "migrate places it by ranges"
        found = theirs(self.engine.weights(), self.recipe.config.model.name)
        assert found is not None, "migrate names a network of theirs"
        return found | {"head": self.engine.head.head.local.weight.detach()}

    def step(self, batches: Sequence[PairBatch], loss: float, step: int) -> None:
        """Theirs on the batches of our ``step``, whose mean loss over ranks was ``loss``."""
        given = [(as_network_input(b.first), b.labels.clone()) for b in batches]
        rate = learning_rate(self.recipe.config, step, self.recipe.total_steps) / self.passes
        with chosen(self.rows):
            losses = self.peer.step(given, rate)
        self.losses.append((loss, sum(losses) / len(losses)))

    def apart(self) -> dict[str, float]:
        """How far apart the sides are now, of all ranks the most."""
        here, there = self.weights_here(), self.weights_there()
        assert here.keys() == there.keys(), "names differ"
        sums = {"backbone": [0.0, 0.0], "head": [0.0, 0.0]}
        largest = 0.0
        for name, begun in self.begun.items():
            of = sums["head" if name == "head" else "backbone"]
            of[0] += float((here[name] - there[name]).double().square().sum())
            of[1] += float((there[name] - begun).double().square().sum())
            largest = max(largest, float((here[name] - there[name]).abs().max()))
        found = [largest, *((a / b) ** 0.5 for a, b in sums.values())]
        most = torch.tensor(found, dtype=torch.float64)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        losses = {"loss": max(abs(a - b) for a, b in self.losses)}
        ends = {"first": self.losses[0][1], "last": self.losses[-1][1]}
        return ends | losses | dict(zip(("largest", *sums), most.tolist(), strict=True))
