"""Both sides' heads and training steps, of equal weights, for `bench_arcface.py`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.distributed as dist
from arcface_peer import Trainer, Ways, backbone_of, head_of, text_of, theirs_as_ours
from head_ways import Found, Problem, ours
from head_wire import Wire

from distill.data.batch import PairBatch, as_network_input
from distill.engine import Engine
from distill.heads import ClassRanges, build_sharded_head
from distill.losses import ClassShards, PairLossSpec
from distill.migrate.given import Given
from distill.migrate.read import read_text
from distill.migrate.translate import migrate
from distill.models.classifier import Embedder
from distill.models.registry import build_backbone
from distill.ranks import Ranks
from distill.step import Recipe, train_step

COSFACE, ARCFACE = (1.0, 0.0, 0.4), (1.0, 0.5, 0.0)
SCALE, FUSED_BYTES, ALL_BYTES = 64.0, 256 * 2**20, 2**62
NETWORK, STEP_CLASSES, LR = "r18", 10_000, 1e-4
THEIRS = "theirs"
Step = Callable[[], object]


class Margined(Problem):
    """With CosFace's margin."""

    @property
    def spec(self) -> PairLossSpec:
        """Symmetric KL, T^2; a mean over all images, as theirs."""
        return PairLossSpec(logit_scale=SCALE, margin_cosine=COSFACE[2], ce="mean")


def head_ways(
    args: argparse.Namespace, classes: int, images: str
) -> dict[str, Callable[[], Found]]:
    """Both sides' heads, of one weight and the same images, on this rank."""
    rank, world = dist.get_rank(), dist.get_world_size()
    made = torch.Generator().manual_seed(1000 + rank)
    rows = torch.randn(args.rows, args.width, generator=made).requires_grad_()
    labels = torch.randint(0, classes, (args.rows,), generator=made)
    if images == "pair":
        labels = labels[: args.rows // 2].repeat(2)
    ranges = ClassRanges.even(classes, rank, world)
    heads = {THEIRS: COSFACE, f"{THEIRS}, arcface": ARCFACE}
    known = {
        name: head_of(args.peer, margins, args.width, classes) for name, margins in heads.items()
    }
    weight = known[THEIRS].weight
    for head in known.values():
        head.weight = weight
    assert len(weight) == len(ranges.mine), "C is to divide"

    def there(head: torch.nn.Module) -> Found:
        loss = head(rows, labels.clone())
        return loss.detach(), *torch.autograd.grad(loss, (rows, weight))

    sides = rows.detach().chunk(2 if images == "pair" else 1)
    shards = ClassShards.create(None, len(weight), sum_feature_gradients=False)
    few = labels[: len(sides[0])]
    problems = {
        name: Margined(
            tuple(side.clone().requires_grad_() for side in sides), few, weight,
            True, shards, Wire(), budget,
        )
        for name, budget in (("ours, plain", ALL_BYTES), ("ours, fused", FUSED_BYTES))
    }  # fmt: skip
    ways = {name: lambda head=head: there(head) for name, head in known.items()}
    return ways | {name: lambda p=problem: ours(p) for name, problem in problems.items()}


def agree(ways: dict[str, Callable[[], Found]]) -> None:
    """The loss of images, and both gradients; theirs of embeddings is W times as large."""
    loss, d_rows, d_weight = ways[THEIRS]()
    d_rows = d_rows / dist.get_world_size()
    for name in ("ours, plain", "ours, fused"):
        for found, wanted in zip(ways[name](), (loss, d_rows, d_weight), strict=True):
            apart = float((found - wanted).abs().max() / wanted.abs().max())
            if not apart < 2e-4:
                raise SystemExit(f"error: {name} is {apart:.1e} off theirs")


def step_ways(args: argparse.Namespace, ranks: Ranks, images: str) -> dict[str, Step]:
    """Both sides' training steps, from the same weights, on one batch."""
    made = torch.Generator().manual_seed(ranks.rank)
    pixels = torch.randint(0, 256, (args.images, 3, 112, 112), dtype=torch.uint8, generator=made)
    labels = torch.randint(0, STEP_CLASSES, (args.images,), generator=made)
    text = text_of(
        {"network": NETWORK, "margin_list": COSFACE, "lr": LR, "batch_size": args.images}
        | {"embedding_size": args.width}
    )
    done = migrate(Given("c.py", read_text(text, "c.py")), ranks=ranks.world_size, images=images,
                   overrides=["run.device=cpu"])  # fmt: skip
    config = done.config
    sides = 2 if images == "pair" else 1
    first, *second = pixels.chunk(sides)
    if sides == 2:
        labels = labels[: len(first)].repeat(2)
    few = labels[: len(first)]
    batch = PairBatch(first, second[0] if second else None, few, few.clone(), few.clone())
    backbone = backbone_of(args.peer, NETWORK, args.width)
    head = head_of(args.peer, COSFACE, args.width, STEP_CLASSES)
    network = build_backbone(config.model.name, embedding_dim=args.width)
    network.load_state_dict(theirs_as_ours(backbone.state_dict(), config.model.name))
    ranges = ClassRanges.even(STEP_CLASSES, ranks.rank, ranks.world_size)
    shard = build_sharded_head(config.head, args.width, ranges)
    shard.local.weight.data.copy_(head.weight.data)
    engine = Engine.create(Embedder(network), config, ranks, shard)
    recipe = Recipe(config, 10**6)
    known = {"lr": LR, "weight_decay": 5e-4, "warmup": 0, "total": 10**6}
    peer = Trainer(backbone, head, known, args.peer, Ways())
    given = [(as_network_input(pixels).contiguous(), labels)]
    return {
        THEIRS: lambda: peer.step(given, 0.0)[0],
        "ours": lambda: train_step(engine, [batch], recipe, 0, [0.0] * 3).scalars["loss/total"],
    }
