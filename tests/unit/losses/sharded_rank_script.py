"""What each of four ranks runs in `test_loss_sharded.py`: all cases, in groups of 1 to 4 ranks."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

sys.path.insert(0, str(Path(__file__).parent))
import row_cases
from linear_cases import ARC, Inputs, loss_of, make_inputs, row_margins, with_gradients

from distill.collectives import _GATHER
from distill.config.tree import Config
from distill.errors import UserError
from distill.heads import AdaFace
from distill.losses import ClassShards, PairLossSpec, RowMargins
from distill.ranks import from_environment, init_process_group, leave_process_group

ROWS = {
    1: ([23],),
    2: ([23, 0], [7, 16]),
    3: ([9, 0, 14], [1, 21, 1]),
    4: ([0, 10, 3, 10], [6, 6, 6, 5]),
}
SPECS = {
    "kl": {},
    "ce": {"similarity": "ce", "direction": "reverse", "stop_gradient": "first"},
    "mmd": {"similarity": "mmd"},
    "smoothing": {"label_smoothing": 0.1},
}


@contextmanager
def float_collectives(seen: list[str]) -> Iterator[None]:
    """Names and element counts of the collectives on floats; arguments travel as bytes."""
    originals = {name: getattr(dist, name) for name in (_GATHER, "all_to_all_single")}

    def watched(name: str) -> Callable[..., object]:
        def call(out: object, values: torch.Tensor, *args: object, **kwargs: object) -> object:
            if values.is_floating_point():
                seen.append(f"{name.replace(_GATHER, 'all_gather')} {values.numel()}")
            return originals[name](out, values, *args, **kwargs)

        return call

    for name in originals:
        setattr(dist, name, watched(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def share(inputs: Inputs, shards: ClassShards) -> Inputs:
    """What one rank has of the weight and the bias."""
    mine = slice(shards.class_start, shards.class_start + shards.rows)
    bias = None if inputs.bias is None else inputs.bias[mine]
    return dataclasses.replace(inputs, weight=inputs.weight[mine], bias=bias)


def compare(
    shards: ClassShards,
    head: str,
    spec: PairLossSpec,
    dtype: torch.dtype,
    sub_centres: int = 1,
    **options,
) -> dict:
    """This rank's loss and gradients against those of all classes at once."""
    inputs = make_inputs(6, 5, 23, head, sub_centres=sub_centres).to(dtype)
    whole = inputs.leaves()
    true = with_gradients(loss_of(whole, inputs, spec, head, "auto", **options), whole)
    seen: list[str] = []
    leaves = share(inputs, shards).leaves()
    with float_collectives(seen):
        loss = loss_of(leaves, inputs, spec, head, "auto", shards=shards, **options)
        forward = list(seen)
        ours = with_gradients(loss, leaves)
    mine = slice(shards.class_start, shards.class_start + shards.rows)
    true[13:] = [x[mine] for x in true[13:]]
    names = [*loss._fields, "dfirst", "dsecond", "dweight", "dbias"]
    errors = errors_of(names, ours, true)
    if not shards.gather_entropies:
        errors = {name: one for name, one in errors.items() if not name.startswith("entropy")}
    return {
        "bits": bits_of(ours[:13]),
        "errors": errors,
        "forward": forward,
        "backward": seen[len(forward) :],
        "entropies": str(float(ours[4])),
    }


def errors_of(
    names: list[str], ours: list[torch.Tensor], true: list[torch.Tensor]
) -> dict[str, float]:
    """The largest error of each, relative to 1 and more; infinite where there is a NaN."""
    return {
        name: float(((a - b).abs() / (1 + b.abs())).nan_to_num(torch.inf).max()) if a.numel() else 0
        for name, a, b in zip(names, ours, true, strict=False)
    }


def bits_of(tensors: list[torch.Tensor]) -> str:
    alike = torch.cat([x.flatten().double() for x in tensors]).numpy().tobytes()
    return hashlib.sha256(alike).hexdigest()


def single_images(group: dist.ProcessGroup, rank: int, world: int) -> dict:
    """As `equal_results`, without partners, of 7 images: this rank's against torch's."""
    told = {}
    words = [("linear", {}, 1), ("cosine", ARC, 1), ("cosine", {"logit_scale": 16.0}, 1)]
    words.append(("cosine", ARC, 3))
    for rows in ROWS[world]:
        shards = ClassShards.create(group, rows[rank], gather_entropies=True)
        for (head, more, count), smoothing in itertools.product(words, (0.0, 0.1)):
            for dtype in (torch.float64, torch.float32):
                spec = PairLossSpec(**more, label_smoothing=smoothing)
                margins = row_cases.margins_of(7) if head == "cosine" and more != ARC else None
                key = f"{rows} {head} {count} {spec.has_margin} {smoothing} {dtype}"
                inputs = make_inputs(7, 5, 23, head, sub_centres=count).to(dtype)
                told[key] = compare_single(shards, head, spec, inputs, margins)
    return told


def compare_single(
    shards: ClassShards,
    head: str,
    spec: PairLossSpec,
    inputs: Inputs,
    margins: RowMargins | None,
) -> dict:
    _, weights, right, mean, *gradients = row_cases.by_torch(
        inputs.to(torch.float64), spec, head, margins
    )
    mine = slice(shards.class_start, shards.class_start + shards.rows)
    correct = (weights * right).sum() / weights.sum()
    true = [mean, mean, correct, gradients[0], *(g[mine] for g in gradients[1:])]
    seen: list[str] = []
    leaves = row_cases.leaves_of(share(inputs, shards))
    with float_collectives(seen):
        loss = row_cases.loss_of(leaves, inputs, spec, head, "auto", shards=shards, margins=margins)
        forward = list(seen)
        ours = [x.detach() for x in (*loss, *torch.autograd.grad(loss.total, leaves))]
    names = [*loss._fields, "dfeatures", "dweight", "dbias"]
    return {
        "bits": bits_of(ours[:4]),
        "errors": errors_of(names, ours, true),
        "forward": forward,
        "backward": seen[len(forward) :],
    }


def equal_results(group: dist.ProcessGroup, rank: int, world: int) -> dict:
    """Every head, similarity and type, for each way to share 23 classes out."""
    told = {}
    for rows in ROWS[world]:
        shards = ClassShards.create(group, rows[rank])
        for head in ("linear", "cosine"):
            for name, choices in SPECS.items():
                for dtype in (torch.float64, torch.float32):
                    spec = PairLossSpec(**(ARC if head == "cosine" else {}), **choices)
                    key = f"{rows} {head} {name} {dtype}"
                    told[key] = compare(shards, head, spec, dtype)
    entropies = ClassShards.create(group, ROWS[world][0][rank], gather_entropies=True)
    told["entropies"] = compare(entropies, "linear", PairLossSpec(), torch.float64)
    spec = PairLossSpec(logit_scale=16.0)
    options = {"margins": row_margins(6)}
    told["margins"] = compare(shards, "cosine", spec, torch.float64, **options)
    for name, choices in (("kl", {}), ("mmd", {"similarity": "mmd"})):
        spec = PairLossSpec(topk_classes=4, **choices)
        told[f"topk {name}"] = compare(shards, "linear", spec, torch.float64)
    told["sub-centres"] = compare(shards, "cosine", PairLossSpec(**ARC), torch.float64, 3)
    return told


def adaface(rank: int, world: int) -> dict:
    """Margins and running numbers of each rank's share of 12 embeddings, and of all of them."""
    made = torch.Generator().manual_seed(5)
    shared, alone = AdaFace(0.4, 0.333, 0.5), AdaFace(0.4, 0.333, 0.5)
    for _ in range(3):
        rows = 9.0 * torch.randn(12, 5, generator=made)
        mine = shared(rows.chunk(world)[rank])
        with patch("distill.heads.adaface.all_reduce_sum", torch.clone):
            whole = alone(rows)
    errors = [
        float((a - b.chunk(world)[rank]).abs().max()) for a, b in zip(mine, whole, strict=True)
    ]
    errors += [float((a - b).abs()) for a, b in zip(shared.buffers(), alone.buffers(), strict=True)]
    return {"errors": errors, "buffers": [float(one).hex() for one in shared.buffers()]}


def local_gradients(group: dist.ProcessGroup, rank: int, world: int) -> dict:
    """With the sum left to the caller: no collective in backward, and the sum is right."""
    shards = ClassShards.create(group, ROWS[world][0][rank], sum_feature_gradients=False)
    inputs = make_inputs(6, 5, 23, "linear")
    leaves, whole = share(inputs, shards).leaves(), inputs.leaves()
    true = with_gradients(loss_of(whole, inputs, PairLossSpec(), "linear"), whole)[11]
    seen: list[str] = []
    loss = loss_of(leaves, inputs, PairLossSpec(), "linear", shards=shards)
    with float_collectives(seen):
        mine = with_gradients(loss, leaves)[11]
    dist.all_reduce(mine, group=group)
    return {"backward": seen, "error": float((mine - true).abs().max())}


def mistakes(group: dist.ProcessGroup, rank: int, world: int) -> dict:
    """The error that this rank sees where the last rank is given something else."""
    odd = rank == world - 1
    shards = ClassShards.create(group, ROWS[world][0][rank])
    inputs = share(make_inputs(6, 5, 23, "linear"), shards)
    other = share(make_inputs(4, 5, 23, "linear"), shards)
    wide = share(make_inputs(6, 9, 23, "linear"), shards)
    moved = dataclasses.replace(inputs, labels=inputs.labels.flip(0))
    wrong = dataclasses.replace(inputs, weight=inputs.weight[:, :2])
    unweighted = dataclasses.replace(inputs, sample_weights=None)
    spec = PairLossSpec()
    cases = {
        "temperature": (inputs, spec, {"temperature": 3.0}),
        "similarity_weight": (inputs, spec, {"similarity_weight": 0.1}),
        "spec": (inputs, PairLossSpec(direction="forward"), {}),
        "reduction": (inputs, spec, {"reduction": "sum"}),
        "B": (other, spec, {}),
        "D": (wide, spec, {}),
        "dtype": (inputs.to(torch.float32), spec, {}),
        "labels": (moved, spec, {}),
        "sample_weights": (unweighted, spec, {}),
        "wrong": (wrong, spec, {}),
    }
    told = {}
    for name, (given, its_spec, options) in cases.items():
        used = (given, its_spec, options) if odd else (inputs, spec, {})
        told[name] = error_of(shards, *used)
    no_gradient = inputs.leaves()
    for leaf in no_gradient[:2]:
        leaf.requires_grad_(not odd)
    told["requires_grad"] = error_of(shards, inputs, spec, {}, no_gradient)
    told["after"] = error_of(shards, inputs, spec, {})
    return told | rows_mistakes(group, rank, odd)


def rows_mistakes(group: dist.ProcessGroup, rank: int, odd: bool) -> dict:
    told = {}
    for name, rows, options in (
        ("rows", -1 if odd else 5, {}),
        ("rows type", torch.zeros(2) if odd else 5, {}),
        ("too few", 1 if odd else 0, {}),
        ("options", 5, {"sum_feature_gradients": odd}),
    ):
        try:
            ClassShards.create(group, rows, **options)
        except UserError as error:
            told[name] = str(error)
    return told


def error_of(shards, inputs, spec, options, leaves=None) -> str:
    try:
        loss_of(leaves or inputs.leaves(), inputs, spec, "linear", shards=shards, **options)
    except UserError as error:
        return str(error)
    return ""


def main(out: str) -> None:
    torch.set_num_threads(1)
    config = Config()
    ranks = from_environment(config)
    init_process_group(config, ranks)
    told: dict[str, dict] = {}
    for world in ROWS:
        group = dist.new_group(range(world))
        if ranks.rank < world:
            told[str(world)] = equal_results(group, ranks.rank, world)
            told[str(world)]["local"] = local_gradients(group, ranks.rank, world)
            told[f"{world} single"] = single_images(group, ranks.rank, world)
            if world == 3:
                told["mistakes"] = mistakes(group, ranks.rank, world)
        dist.barrier()
    told["adaface"] = adaface(ranks.rank, ranks.world_size)
    Path(out, f"rank{ranks.rank}.json").write_text(json.dumps(told))
    leave_process_group()


main(*sys.argv[1:])
