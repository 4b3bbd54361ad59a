"""Settings of arcface_torch as ours: by independent arithmetic, and by making its updates."""

from __future__ import annotations

import math
import tomllib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from distill.config import Config, load_config
from distill.engine_parts.optimizer import build_optimizer, set_lr
from distill.errors import UserError
from distill.losses import PairLossSpec, pair_loss
from distill.migrate.given import Given
from distill.migrate.read import read_text
from distill.migrate.translate import migrate
from distill.migrate.write import as_toml
from distill.schedules import learning_rate

HEAD = "from easydict import EasyDict as edict\nconfig = edict()\n"
NEEDED = {
    "rec": "/data/ms1mv3", "num_epoch": 20, "warmup_epoch": 0, "val_targets": [],
    "num_classes": 93431, "num_image": 5179510,
}  # fmt: skip


def text_of(**values):
    return HEAD + "".join(f"config.{name} = {value!r}\n" for name, value in values.items())


def migrated(text, *overrides, ranks=8, images="first"):
    found = read_text(text, "c.py")
    return migrate(Given("c.py", found), ranks=ranks, images=images, overrides=overrides)


def config_of(*overrides, ranks=8, images="first", **values):
    return migrated(text_of(**{**NEEDED, **values}), *overrides, ranks=ranks, images=images).config


@st.composite
def configurations(draw):
    return {
        "margin_list": draw(st.sampled_from([(1.0, 0.5, 0.0), (1, 0, 0.4), (1.0, 0.0, 0.0)])),
        "network": draw(st.sampled_from(["r18", "r34", "r50", "r100", "r200"])),
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
    assert ours.model.name == "iresnet" + theirs["network"][1:]
    assert ours.model.embedding_dim == theirs["embedding_size"] and not ours.model.dropout
    _, angle, cosine = theirs["margin_list"]
    assert ours.head.margin == ("cosface" if cosine else "arcface")
    assert (ours.head.cos_margin if cosine else ours.head.arc_margin_rad) == cosine + angle
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


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"network": "mbf"}, "config.network = 'mbf': has no counterpart"),
        ({"network": "vit_b"}, "config.network = 'vit_b': has no counterpart"),
        ({"network": 50}, "config.network = 50: must be a text"),
        ({"margin_list": (1.0, 0.5)}, "must be a list of 3 numbers"),
        ({"margin_list": (1.0, "0.5", 0)}, "must be a list of 3 numbers"),
        ({"margin_list": (0.9, 0.5, 0.0)}, "refused by arcface_torch itself"),
        ({"margin_list": (1.0, 0.0, -0.4)}, "refused by arcface_torch itself"),
        ({"margin_list": (1.0, 1.6, 0.0)}, "an angle below 0, or of 90 degrees"),
        ({"margin_list": (1.0, 0.0, 1.0)}, "a cosine margin of 1 or more"),
        ({"sample_rate": 0}, "has no counterpart, which is a share"),
        ({"sample_rate": 1.5}, "has no counterpart, which is a share"),
        ({"sample_rate": True}, "must be a number"),
        ({"optimizer": "lamb"}, 'must be "sgd" or "adamw"'),
        ({"lr": 0}, "must be a number above 0"),
        ({"lr": -0.1}, "must be a number above 0"),
        ({"lr": "0.1"}, "must be a number above 0"),
        ({"weight_decay": -1}, "must be a number 0 or more"),
        ({"batch_size": 64.0}, "must be a whole number, 1 or more"),
        ({"gradient_acc": 0}, "must be a whole number, 1 or more"),
        ({"num_epoch": 2.5}, "must be a whole number, 1 or more"),
        ({"warmup_epoch": None}, "must be a number"),
        ({"fp16": "yes"}, "must be True or False"),
        ({"seed": -1}, "must be a whole number, 0 or more"),
        ({"seed": 2**70}, "must be a whole number, 0 or more"),
        ({"val_targets": "lfw"}, "must be a list of texts"),
        ({"rec": ""}, "must be a text of one line"),
        ({"rec": "/"}, "names no folder"),
        ({"output": "a\nb"}, "must be a text of one line"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(values, says):
    ((name, _),) = values.items()
    text = text_of(**{**NEEDED, **values})
    line = next(n for n, each in enumerate(text.splitlines(), 1) if f"config.{name} " in each)
    with pytest.raises(UserError) as caught:
        migrated(text)
    assert f"c.py:{line}: config.{name}" in str(caught.value) and says in str(caught.value)


def test_a_value_that_was_not_read_matters_where_it_is_asked_for():
    text = text_of(**NEEDED) + "import os\nconfig.lr = float(os.environ['LR'])\n"
    with pytest.raises(UserError, match=r"c\.py:10: config\.lr: Call is not understood"):
        migrated(text)
    done = migrated(text_of(**NEEDED) + "config.notes = ' '.join(['a'])\nconfig.mine = len('')\n")
    assert done.config == config_of()
    assert any("config.notes: of wandb" in each for each in done.neutral)
    (lost,) = done.lost
    assert lost.startswith("c.py:10: config.mine: Call is not understood; train_v2.py")


def test_what_has_no_counterpart_is_told_and_nothing_is_dropped():
    values = {
        "dali": True, "dali_aug": True, "interclass_filtering_threshold": 0.4, "resume": True,
        "using_wandb": True, "wandb_key": "SECRET", "api_token": "SECRET", "momentum": 0.8,
        "loss": "cosface", "margin_list": (1.0, 0.5, 0.4), "save_all_states": True, "lr": 0.1,
    }  # fmt: skip
    done = migrated(text_of(**{**NEEDED, **values}))
    written = as_toml(done, "c.py", 8, "run.toml")
    for name in values:
        assert f"config.{name}" in written
    assert "SECRET" not in written
    lost = {each.split(": ")[1].split(" ")[0] for each in done.lost}
    neutral = {"wandb_key", "save_all_states", "lr"}
    assert lost == {f"config.{name}" for name in values.keys() - neutral}
    assert (done.config.head.margin, done.config.head.cos_margin) == ("cosface", 0.4)
    assert done.config.optimizer.momentum == 0.9
    asks = {"dali": False, "interclass_filtering_threshold": 0, "resume": False, "momentum": 0.9}
    assert not migrated(text_of(**{**NEEDED, **asks})).lost


def test_overrides_stand_in_for_what_has_no_counterpart():
    odd = {"network": "mbf", "sample_rate": 0, "margin_list": (0.9, 0.4, 0.0)}
    words = ["model.name=mobile", "head.sample_rate=0.01", "head.margin=combined", "train.steps=9"]
    done = migrated(text_of(**{**NEEDED, **odd}), *words)
    assert done.config == load_config(None, [*words, *_others(config_of())])
    assert len(done.lost) == 3
    with pytest.raises(UserError, match=r"train\.steps = 'x'"):
        migrated(text_of(**NEEDED), "train.steps=x")
    with pytest.raises(UserError, match=r"run\.dir = .*must be a valid string"):
        migrated(text_of(**NEEDED), "run.dir=2020-01-01")
    with pytest.raises(UserError, match="must be a table"):
        migrated(text_of(**NEEDED), "model=3")


def _others(config):
    """The settings of ``config`` that the overrides above leave alone, as words."""
    from distill.config import as_override

    changed = {"model.name", "head.sample_rate", "head.margin", "train.steps"}
    changed |= {"head.arc_margin_rad"}  # of the margin
    return [
        as_override(f"{section}.{name}", value)
        for section, inside in config.model_dump().items()
        for name, value in inside.items()
        if f"{section}.{name}" not in changed
    ]


def test_made_up_images_and_odd_batches():
    done = migrated(text_of(**{**NEEDED, "rec": "synthetic", "val_targets": ["lfw"]}))
    assert done.config.data.train == "" and done.config.evaluate.sets == []
    assert len(done.lost) == 2
    assert config_of(batch_size=63).train.global_batch_pairs == 504
    with pytest.raises(UserError, match=r"c\.py:9: config\.batch_size = 63.*--images first"):
        config_of(batch_size=63, images="pair")


LINES = st.sampled_from(text_of(**NEEDED, lr=0.1, batch_size=64, fp16=True).splitlines())
VALUES = st.one_of(
    st.integers(), st.floats(), st.text(max_size=6), st.none(), st.lists(st.floats(), max_size=3)
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_settings_give_a_run_or_a_mistake_with_its_line(data):
    base = {**NEEDED, "lr": 0.1, "batch_size": 64, "network": "r18", "margin_list": (1, 0, 0.4)}
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(base)), VALUES, max_size=3))
    text = text_of(**{**base, **changed}).replace("nan", "(1e308*10)").replace("inf", "1e999")
    try:
        done = migrated(text)
    except UserError as error:
        assert str(error).startswith("c.py:"), error
        return
    found = tomllib.loads(as_toml(done, "c.py", 8, "run.toml"))
    assert Config.model_validate(found) == done.config
    assert math.isfinite(done.config.optimizer.lr)
