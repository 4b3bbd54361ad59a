"""Settings of arcface_torch that are wrong, or have no counterpart: named, never dropped."""

from __future__ import annotations

import math
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theirs import NEEDED, config_of, migrated, text_of

from distill.config import Config, load_config
from distill.errors import UserError
from distill.migrate.write import as_toml


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"network": "r2060"}, "config.network = 'r2060': has no counterpart"),
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
    odd = {"network": "r2060", "sample_rate": 0, "margin_list": (0.9, 0.4, 0.0)}
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
    changed |= {"head.arc_margin_rad", "head.margin_slope"}  # of the margin
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


def test_a_product_that_is_no_setting_is_told_with_the_file():
    with pytest.raises(UserError, match=r"^c\.py: in our settings optimizer\.warmup_steps = "):
        config_of(warmup_epoch=1e25)


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
