"""Settings: what is read is what was meant, and every mistake is named with its mend."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.config import (
    Config,
    Ramp,
    as_override,
    dump_toml,
    explained_toml,
    load_config,
    parse_overrides,
)
from distill.config.explain import known_keys
from distill.errors import UserError


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[loss]\nweight = 2.0\ntemperature = 4.0\n")
    config = load_config(path, ["loss.weight=0.5", "run.dir=runs/with space"])
    assert (config.loss.weight, config.loss.temperature) == (0.5, 4.0)
    assert config.run.dir == "runs/with space"


def test_a_ramp_is_read_from_a_table_and_from_overrides() -> None:
    table = "loss.weight={start = 0.0, end = 1.0, over_steps = 10}"
    parts = ["loss.weight.start=0.0", "loss.weight.end=1.0", "loss.weight.over_steps=10"]
    ramp = Ramp(start=0.0, end=1.0, over_steps=10)
    assert load_config(None, [table]).loss.weight == ramp
    assert load_config(None, parts).loss.weight == ramp


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("loss.temprature=3", "unknown key loss.temprature (did you mean loss.temperature?)"),
        ("lr=3", "unknown key lr (did you mean optimizer.lr?)"),
        ("optim.lr=3", "unknown key optim (did you mean optimizer?)"),
        ("loss.temperature=0", "loss.temperature = 0: must be greater than 0"),
        ("loss.weight=-1", "loss.weight = -1: must be at least 0"),
        ("loss.weight={start=0.0,end=-1.0,over_steps=9}", "loss.weight.end = -1.0: must be at"),
        ("loss.weight.start=1", "loss.weight.end is missing"),
        ("loss.temperature={start=0.0,end=1.0,over_steps=9}", "loss.temperature.start = 0.0: must"),
        ("loss.temperature={start=3.0,end=0.0,over_steps=9}", "loss.temperature.end = 0.0: must"),
        ("run.dir=", "run.dir = '': must not be empty"),
        ("loss.similarity=kll", "must be one of 'kl', 'ce', 'mmd' or 'none'"),
        ("loss.weight={start=0.0,ende=1.0,over_steps=9}", "ende (did you mean loss.weight.end?)"),
        ("train.steps=1.5", "train.steps = 1.5: must be a whole number"),
        ("train.steps=many", "train.steps = 'many': must be a whole number"),
        ("model.compile=yes", "model.compile = 'yes': must be true or false"),
        ("train.zero_stage=4", "train.zero_stage = 4: must be at most 3"),
        (f"run.seed={2**63}", "run.seed = 9223372036854775808: must be at most 9.22"),
        ("run.threads_per_rank=1025", "run.threads_per_rank = 1025: must be at most 1024"),
        ("data.prefetch_batches=1025", "data.prefetch_batches = 1025: must be at most 1024"),
        ("optimizer.lr=nan", "optimizer.lr = nan: must be a finite number"),
        ("data.flip_probability=true", "data.flip_probability = True: must be a valid number"),
        ("data.train=3", "data.train = 3: must be a valid string"),
        ('data.train=["a", 3]', "data.train.1 = 3: must be a valid string"),
        ("data.same_names=merge", "must be one of 'refuse', 'same_person' or 'different_people'"),
        ("loss=3", "loss = 3: must be a table of settings"),
        ("loss.weight", "is not of the form a.b=c"),
        ("=3", "is not of the form a.b=c"),
    ],
)
def test_a_mistake_is_named(word: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, [word])
    assert says in str(caught.value)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        load_config(None, ["loss.temperature=-1", "train.zero_stage=9", "model.nam=x"])
    for path in ("loss.temperature", "train.zero_stage", "model.nam"):
        assert path in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"[loss", "is not TOML"), (b"\xff\xfe", "cannot be read"), (None, "does not exist")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        load_config(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Is a directory; give a text file"):
        load_config(tmp_path)


IN_LOCALE = """
import sys
from pathlib import Path
from distill.config import load_config
from distill.errors import UserError
from distill.run_dir import RunDir
try:
    config = load_config(sys.argv[1], sys.argv[2:])
    with RunDir(Path(config.run.dir)).acquire():
        pass
except UserError as error:
    print(ascii(str(error)))
"""


def test_names_of_any_letters_in_the_locale_c(tmp_path: Path) -> None:
    """Python takes them as UTF-8 there, unless it is told not to: then the way out is said."""
    (tmp_path / "run.toml").write_text(f'[run]\ndir = "{tmp_path}/läuf Ω"\n', encoding="utf-8")
    (tmp_path / "plain.toml").write_text("")

    def said(*words: str, **env: str) -> str:
        argv = [sys.executable, "-c", IN_LOCALE, *words]
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C", **env}
        done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode("ascii")

    assert said("run.toml") == ""
    assert (tmp_path / "läuf Ω" / "run.lock").is_file()
    assert said("plain.toml", "run.dir=läuf Ω") == ""
    out = "settings are UTF-8, and file names here ascii"
    for words in (["run.toml"], ["plain.toml", "run.dir=läuf Ω"]):
        refused = said(*words, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
        assert out in refused and "set PYTHONUTF8=1, or LC_ALL=C.UTF-8" in refused
    assert "is no UTF-8, which settings are" in said("plain.toml", os.fsdecode(b"run.dir=l\xe4uf"))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    lr=st.floats(min_value=1e-300, max_value=1e30),
    seed=st.integers(min_value=0, max_value=2**62),
)
def test_what_is_dumped_is_read_back(text: str, lr: float, seed: int) -> None:
    base = Config()
    config = base.model_copy(
        update={
            "run": base.run.model_copy(update={"dir": text, "seed": seed}),
            "optimizer": base.optimizer.model_copy(update={"lr": lr}),
            "loss": base.loss.model_copy(update={"weight": Ramp(start=0.0, end=lr, over_steps=3)}),
        }
    )
    assert Config.model_validate(tomllib.loads(dump_toml(config))) == config


def test_what_is_shown_is_explained_and_read_back() -> None:
    config = load_config(None, ["loss.weight={start=0.0,end=1.0,over_steps=9}", "run.dir=a b"])
    text = explained_toml(config)
    assert Config.model_validate(tomllib.loads(text)) == config
    lines = text.splitlines()
    assert lines[lines.index("[loss]") - 1].startswith("# w_ce (CE(first)")
    assert lines[lines.index("every_steps = 1000") - 1].startswith("# Steps between checkpoints")
    described = [i for i, line in enumerate(lines) if " = " in line and not line.startswith("#")]
    assert all(lines[i - 1].startswith("# ") for i in described)
    assert max(map(len, lines)) <= 100


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_an_override_value_cannot_add_keys(text: str) -> None:
    assert parse_overrides([f"run.dir={text}"]).keys() == {"run"}
    assert parse_overrides([f"run.dir={text}"])["run"].keys() == {"dir"}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_an_override_carries_any_text(text: str) -> None:
    assert parse_overrides([as_override("run.dir", text)]) == {"run": {"dir": text}}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=4))
def test_several_training_packs_are_read_back(folders: list[str]) -> None:
    config = load_config(None, [as_override("data.train", folders)])
    assert config.data.train == folders
    assert Config.model_validate(tomllib.loads(dump_toml(config))) == config
    assert config.data.train_packs == (folders if any(folders) else [])


def test_one_training_pack_needs_no_list() -> None:
    assert load_config(None, ["data.train=packs/a"]).data.train_packs == ["packs/a"]
    moved = load_config(None, ['data.train=["a","b"]', "data.evaluation=c"]).with_packs(str.upper)
    assert (moved.data.train, moved.data.evaluation) == (["A", "B"], "C")
    alone = load_config(None, ["data.train=a"]).with_packs(str.upper).data
    assert (alone.train, alone.evaluation) == ("A", "")
    assert Config().with_packs(str.upper) == Config()


def test_one_verification_set_needs_no_list() -> None:
    assert load_config(None, ["evaluate.sets=lfw.bin"]).evaluate.set_paths == ["lfw.bin"]
    both = load_config(None, ['evaluate.sets=["lfw.bin", "cfp_fp.bin"]']).evaluate
    assert both.set_paths == ["lfw.bin", "cfp_fp.bin"]
    assert load_config(None, ["evaluate.sets="]).evaluate.set_paths == []


def test_settings_with_lists_can_be_keys_too() -> None:
    """The planner remembers what it has traced by them."""
    words = ['data.train=["a","b"]', 'evaluate.sets=["lfw.bin"]']
    one, same, other = (load_config(None, w) for w in (words, words, words[:1]))
    assert {one: 1, other: 2}[same] == 1 and len({one, same, other}) == 2


def test_every_field_says_what_it_means() -> None:
    for name, section in Config.model_fields.items():
        for field, info in section.default.__class__.model_fields.items():
            assert info.description, f"{name}.{field} has no docstring"
    assert "loss.weight" in known_keys()
