"""Settings of arcface_torch as ours: by independent arithmetic, and by making its updates."""

from __future__ import annotations

import tomllib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from theirs import NEEDED, config_of, migrated, text_of
from torch import nn

from distill.config import Config, load_config
from distill.engine_parts.optimizer import build_optimizer, set_lr
from distill.errors import UserError
from distill.losses import PairLossSpec, pair_loss
from distill.migrate.write import as_toml
from distill.models import backbone_names
from distill.schedules import learning_rate

CHECKPOINTED = ["vit_b", "vit_b_dp005_mask_005", "vit_l_dp005_mask_005", "vit_h"]
"""Those that its backbones/__init__.py makes with using_checkpoint."""
NETWORKS = [
    *("r18", "r34", "r50", "r100", "r200", "mbf", "mbf_large"),
    *("vit_t", "vit_t_dp005_mask0", "vit_s", "vit_s_dp005_mask_0", *CHECKPOINTED),
]


@st.composite
def configurations(draw):
    return {
        "margin_list": draw(st.sampled_from([(1.0, 0.5, 0.0), (1, 0, 0.4), (1.0, 0.0, 0.0)])),
        "network": draw(st.sampled_from(NETWORKS)),
        "embedding_size": draw(st.integers(1, 1024)),
        "sample_rate": draw(st.sampled_from([1, 1.0, 0.1, 0.3])),
        "fp16": draw(st.booleans()),
        "batch_size": 2 * draw(st.integers(1, 400)),
        "optimizer": draw(st.sampled_from(["sgd", "adamw"])),
        "lr": draw(st.floats(1e-5, 1.0)),
        "weight_decay": draw(st.sampled_from([0, 5e-4, 0.1])),
        "gradient_acc": draw(st.integers(1, 12)),
        "seed": draw(st.integers(0, 2**32)),
        "num_workers": draw(st.integers(0, 8)),
        "frequent": draw(st.integers(1, 100)),
        "verbose": draw(st.integers(1, 10000)),
        "val_targets": draw(st.sampled_from([[], ["lfw"], ("lfw", "cfp_fp")])),
        "output": draw(st.sampled_from([None, "work_dirs/mine"])),
        "rec": draw(st.sampled_from(["/train_tmp/WebFace42M", "faces_emore/"])),
        "num_epoch": draw(st.integers(1, 40)),
        "warmup_epoch": draw(st.integers(-1, 5)),
        "num_image": draw(st.integers(1, 50_000_000)),
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(configurations(), st.integers(1, 64), st.sampled_from(["first", "pair"]))
def test_every_setting_by_independent_arithmetic(theirs, ranks, images):
    done = migrated(text_of(**theirs), ranks=ranks, images=images)
    ours, passes = done.config, theirs["gradient_acc"]
    per_pair = {"first": 1, "pair": 2}[images]
    # a step is of as many images as there, whoever counts them
    of_a_step = sum(theirs["batch_size"] for _ in range(ranks) for _ in range(passes))
    assert ours.train.global_batch_pairs * ours.train.images_per_pair == of_a_step
    assert ours.train.images_per_pair == per_pair and ours.train.images == images
    assert ours.train.global_batch_pairs % (ranks * ours.train.accumulation) == 0
    assert ours.train.accumulation == passes
    assert ours.optimizer.lr_batch_pairs == ours.train.global_batch_pairs
    if theirs["optimizer"] == "sgd":
        assert ours.optimizer.lr == pytest.approx(theirs["lr"] * passes)
        assert ours.optimizer.weight_decay * passes == pytest.approx(theirs["weight_decay"])
        assert ours.optimizer.momentum == 0.9
    else:
        assert ours.optimizer.lr == pytest.approx(theirs["lr"])
        assert ours.optimizer.weight_decay == pytest.approx(theirs["weight_decay"])
        assert ours.optimizer.eps * passes == pytest.approx(1e-8)
    assert ours.optimizer.name == theirs["optimizer"]
    assert ours.optimizer.clip_norm * passes == pytest.approx(5)
    pairs_a_pass = theirs["batch_size"] * ranks // per_pair
    warmup = max(theirs["warmup_epoch"], 0) * (theirs["num_image"] // pairs_a_pass)
    assert ours.optimizer.warmup_steps == warmup // passes
    assert (ours.optimizer.schedule, ours.optimizer.power) == ("polynomial", 1.0)
    assert ours.train.epochs == theirs["num_epoch"] and ours.train.steps == 0
    network = theirs["network"]
    name = "iresnet" + network[1:] if network[0] == "r" else "insight_" + network
    assert ours.model.name == name in backbone_names()
    assert ours.model.recompute == ("blocks" if network in CHECKPOINTED else "none")
    assert ours.model.embedding_dim == theirs["embedding_size"] and not ours.model.dropout
    _, angle, cosine = theirs["margin_list"]
    assert ours.head.margin == ("cosface" if cosine else "arcface")
    assert (ours.head.cos_margin if cosine else ours.head.arc_margin_rad) == cosine + angle
    assert ours.head.margin_slope == ("exact" if cosine else "one") and not ours.optimizer.clip_head
    assert (ours.head.kind, ours.head.scale, ours.head.placement) == ("cosine", 64, "sharded")
    assert ours.head.sample_rate == theirs["sample_rate"]
    assert ours.train.precision == ("fp16" if theirs["fp16"] else "fp32")
    assert (ours.run.seed, ours.run.dir) == (theirs["seed"], theirs["output"] or "runs/c")
    assert ours.data.workers == max(theirs["num_workers"], 1)
    augmented = (ours.data.shift_pixels, ours.data.brightness, ours.data.contrast)
    assert ours.data.flip_probability == 0.5 and augmented == (0, 0, 0)
    folder = theirs["rec"].rstrip("/")
    assert ours.data.train == "packs/" + folder.split("/")[-1] and ours.data.second == "online"
    assert ours.evaluate.sets == [f"{folder}/{name}.bin" for name in theirs["val_targets"]]
    every = max(theirs["verbose"] // passes, 1) if theirs["val_targets"] else 0
    assert ours.evaluate.every_steps == every
    assert ours.monitor.log_every_steps == max(theirs["frequent"] // passes, 1)
    assert not done.lost
    assert Config.model_validate(tomllib.loads(as_toml(done, "c.py", ranks, "run.toml"))) == ours


def test_defaults_are_those_of_its_base():
    """Of configs/base.py; and what train_v2.py needs and base.py does not have is asked for."""
    ours = config_of()
    assert ours == config_of(
        margin_list=(1.0, 0.5, 0.0), network="r50", embedding_size=512, sample_rate=1, fp16=False,
        batch_size=128, optimizer="sgd", lr=0.1, weight_decay=5e-4, verbose=2000, frequent=10,
        gradient_acc=1, seed=2048, num_workers=2, output="ms1mv3_arcface_r50",
    )  # fmt: skip
    assert (ours.model.name, ours.train.global_batch_pairs) == ("iresnet50", 1024)
    for name in ("rec", "num_epoch", "warmup_epoch", "val_targets"):
        left = {key: value for key, value in NEEDED.items() if key != name}
        with pytest.raises(UserError, match=rf"c\.py: config\.{name} is missing"):
            migrated(text_of(**left))
    some = {key: value for key, value in NEEDED.items() if key != "num_image"}
    assert migrated(text_of(**some)).config == ours
    with pytest.raises(UserError, match=r"config\.num_image is missing"):
        migrated(text_of(**{**some, "warmup_epoch": 1}))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("passes", [1, 3])
def test_updates_are_the_same(name, passes):
    """Theirs, as train_v2.py makes them: gradients of all passes added up, the sum clipped."""
    ours = config_of(optimizer=name, gradient_acc=passes, lr=0.02, weight_decay=0.3)
    torch.manual_seed(0)
    there = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    here = nn.Linear(4, 3, bias=False, dtype=torch.float64)
    here.load_state_dict(there.state_dict())
    parameters = [{"params": there.parameters()}]
    if name == "sgd":
        theirs = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=0.3)
    else:
        theirs = torch.optim.AdamW(parameters, lr=0.02, weight_decay=0.3)
    optimizer = build_optimizer(here, ours.optimizer)
    set_lr(optimizer, ours.optimizer.lr)
    clipped = []
    for step in range(6):
        batches = [(step % 2 + 0.1) * 3 * torch.randn(5, 4).double() for _ in range(passes)]
        for x in batches:
            there(x).square().sum(1).mean().backward()
        clipped.append(float(nn.utils.clip_grad_norm_(there.parameters(), 5)) > 5)
        theirs.step()
        theirs.zero_grad()
        # ours: the mean over the global batch
        here(torch.cat(batches)).square().sum(1).mean().backward()
        nn.utils.clip_grad_norm_(here.parameters(), ours.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        assert torch.allclose(here.weight, there.weight, rtol=1e-5)  # clipping adds 1e-6 to norms
    assert True in clipped and False in clipped


def test_the_rate_is_that_of_its_schedule():
    """Of PolynomialLRWarmup in its own recurrence; in warm-up one step ahead of it."""
    ours = config_of(num_image=3200, batch_size=16, num_epoch=3, warmup_epoch=1, lr=0.4, ranks=2)
    warmup, total = 100, 300
    assert ours.optimizer.warmup_steps == warmup
    rates = [0.4]
    for step in range(1, total):
        if step <= warmup:
            rates.append(0.4 * step / warmup)
        else:
            left = (1 - (step - at - warmup) / (total - warmup) for at in (0, 1))
            rates.append(rates[-1] * next(left) / next(left))
    found = [learning_rate(ours, step, total) for step in range(total)]
    assert found[warmup:] == pytest.approx(rates[warmup:])
    assert found[:warmup] == pytest.approx(rates[1 : warmup + 1])


def margin_loss(cosines, labels, m2, m3):
    """Its CombinedMarginLoss, and the mean cross-entropy over all images."""
    own = torch.arange(len(labels)), labels
    logits = cosines.clone()
    logits[own] = cosines[own] - m3 if m3 > 0 else torch.cos(torch.arccos(cosines[own]) + m2)
    return nn.functional.cross_entropy(64 * logits, labels)


@pytest.mark.parametrize("margins", [(1.0, 0.5, 0.0), (1.0, 0.0, 0.4), (1.0, 0.3, 0.2)])
def test_the_images_of_pairs_weigh_as_there(margins):
    """The loss of the images of a step, whether they are pairs or not."""
    loss = config_of(images="pair", margin_list=margins)
    spec = PairLossSpec.from_config(loss.loss, loss.head)
    torch.manual_seed(0)
    first, second = torch.empty(2, 5, 7, dtype=torch.float64).uniform_(-0.5, 0.5)
    labels = torch.randint(7, (5,))
    found = pair_loss(first, second, labels, temperature=3.0, weight=0.0, spec=spec,
                      implementation="reference").total  # fmt: skip
    both = torch.cat([first, second]), torch.cat([labels, labels])
    assert float(found) == pytest.approx(float(margin_loss(*both, *margins[1:])))
    default = load_config(None).loss
    assert loss.loss.weight / default.weight == 1 / 2  # as a mean of two to their sum
    assert (loss.loss.ce, default.ce) == ("mean", "sum")
