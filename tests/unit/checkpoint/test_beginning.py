"""Where a run begins: every way to begin, and every refusal."""

# over 300 lines: all of them begin in the same small folder

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from distill import console, gpus
from distill.beginning import begin_or_resume
from distill.checkpoint import TrainState, find, save
from distill.config import load_config
from distill.data.batch import OrderState
from distill.errors import TryAgain, UserError
from distill.losses import choice
from distill.run_dir import RunDir
from launcher.status import statuses

PEOPLE = ("ann", "bob")
PAIRS = 9


class Folder:
    """A run folder in which runs begin."""

    def __init__(self, root, engine_of):
        self.run, self._engine_of = RunDir(root), engine_of

    def begin(self, *words, digest="digest-1", people=PEOPLE, total_steps=9, seed=3):
        """A fresh engine, and what it begins with."""
        words = f"train.steps={total_steps}", *words
        pack = SimpleNamespace(digest=digest, identities=people, pairs=PAIRS, packs=[None])
        pack.packs_digest, pack.gaps = digest.partition("~")[0], ()
        parts = {"run": self.run, "classes": people, "train": pack, "total_steps": total_steps}
        plan = SimpleNamespace(**parts, evaluates=True, loss_implementation="native")
        engine = self._engine_of(seed)
        config = load_config(None, [f"run.dir={self.run.root}", *words])
        return begin_or_resume(config, plan, engine), engine

    def save(self, step, facts, place=(0, 0)):
        state = TrainState(step, OrderState(*place))
        return save(self.run.checkpoints, self._engine_of(step), state, facts)


@pytest.fixture
def folder(tmp_path, engine_of):
    root = tmp_path / "run"
    root.mkdir()
    return Folder(root, engine_of)


@pytest.fixture
def told(monkeypatch):
    """What is said on the terminal, and what is warned of."""
    lines = []
    monkeypatch.setattr(console, "note", lambda text: lines.append(("note", text)))
    monkeypatch.setattr(console, "warn", lambda text: lines.append(("warn", text)))
    return lines


def test_afresh_and_then_from_the_checkpoint(folder, engine_of, told):
    first, engine = folder.begin()
    nothing_yet = TrainState(0, OrderState(0, 0), {}, skipped=0, skipped_in_a_row=0)
    assert (first.state, first.saved) == (nothing_yet, None)
    assert engine.same_as(engine_of(3))
    assert told.pop()[1].endswith("9 steps, learning rate 0.1, a fresh start")
    saved = folder.save(5, first.facts)

    second, engine = folder.begin()
    assert (second.state.step, second.saved, second.facts) == (5, saved, first.facts)
    assert engine.same_as(engine_of(5))
    assert told.pop()[1].endswith(f", going on after step 5 ({saved})")


def test_each_fresh_run_is_another(folder):
    runs = [folder.begin()[0].facts.run_id for _ in range(2)]
    assert runs[0] != runs[1]


def test_settings_of_the_start_stand_in_the_folder(folder):
    folder.begin("run.seed=77")
    assert load_config(folder.run.config_toml, []).run.seed == 77


def test_status_knows_the_length_of_a_run_that_settings_give_in_epochs(folder):
    """Before its first step is logged."""
    folder.run.root.mkdir(exist_ok=True)
    folder.begin("train.steps=0", "train.epochs=3")
    folder.run.metrics.mkdir()  # which nobody can read
    with folder.run.acquire():
        (found,) = statuses([folder.run])
    assert (found.state, found.step, found.total_steps) == ("RUNNING", 0, 9)


def test_weights_of_another_run_count_until_there_is_a_checkpoint(
    folder, engine_of, told, tmp_path
):
    other = Folder(tmp_path / "other", engine_of)
    other.run.root.mkdir()
    facts = other.begin()[0].facts
    source = other.save(4, facts)
    words = f"model.init_from={other.run.root}"

    begun, engine = folder.begin(words)
    assert (begun.state.step, begun.saved) == (0, None)
    assert begun.facts.run_id != facts.run_id
    assert engine.state["weight", "backbone.bias"].equal(
        engine_of(4).state["weight", "backbone.bias"]
    )
    assert f"from weights of {source} (step 4); of its people 2 kept" in told[-1][1]

    folder.save(6, begun.facts)
    begun, engine = folder.begin(words)
    assert begun.state.step == 6
    assert engine.same_as(engine_of(6))


@pytest.mark.parametrize(
    ("people", "digest", "words", "warned"),
    [
        (("0", "1"), "digest-2", [], True),  # another data set counts from 0, too
        (("0", "1"), "digest-1", [], False),
        (("0", "1"), "digest-1~without some", [], False),  # the second training, after an audit
        (("0", "1"), "digest-2", ["model.init_head=false"], False),
        (("7", "8"), "digest-2", [], False),  # nobody is taken for another
        (("0", "eve"), "digest-2", [], False),
    ],
)
def test_numbers_that_may_be_other_people_are_warned_of(
    folder, engine_of, told, tmp_path, people, digest, words, warned
):
    other = Folder(tmp_path / "other", engine_of)
    other.run.root.mkdir()
    other.save(4, other.begin(people=("0", "1"))[0].facts)
    told.clear()
    folder.begin(f"model.init_from={other.run.root}", *words, people=people, digest=digest)
    warnings = [text for how, text in told if how == "warn"]
    assert len(warnings) == warned
    assert all("2 rows of the head went to equal numbers" in text for text in warnings)


def test_what_was_set_aside_is_told_before_the_run_opens(folder, told):
    facts = folder.begin()[0].facts
    folder.save(1, facts)
    (folder.save(2, facts) / "manifest.json").write_text(json.dumps({"format": 2}))
    told.clear()
    begun, _ = folder.begin()
    assert begun.state.step == 1
    assert [how for how, _ in told] == ["warn", "note"]
    assert "checkpoint damaged and set aside: " in told[0][1]
    assert "step-00000002.corrupt (manifest.json does not match" in told[0][1]


@pytest.mark.parametrize("times", [1, 3, 4])
def test_a_run_does_not_go_back_where_nfs_is_out_of_date(folder, told, monkeypatch, times):
    """Its newest checkpoint is there, and nobody can have removed it: it is looked for again."""
    facts = folder.begin()[0].facts
    for step in (1, 2):
        folder.save(step, facts)
    real, stale = find.verify_file, [OSError(errno.ESTALE, os.strerror(errno.ESTALE))] * times
    there = sorted(path.name for path in folder.run.checkpoints.iterdir())

    def verify(path, entry):
        if path.parent.name == "step-00000002" and stale:
            raise stale.pop()
        real(path, entry)

    monkeypatch.setattr(find, "verify_file", verify)
    monkeypatch.setattr(find, "_SECONDS_BETWEEN_LOOKS", 0.0)
    if times < 4:
        assert folder.begin()[0].state.step == 2
    else:
        with pytest.raises(TryAgain, match="step-00000002' is listed and its files are not"):
            folder.begin()
    assert sorted(path.name for path in folder.run.checkpoints.iterdir()) == there


@pytest.mark.parametrize(
    ("words", "wanted", "said"),
    [
        (["run.resume=false"], {}, "holds a checkpoint, and run.resume is false"),
        ([], {"total_steps": 4}, "has 5 steps behind it, and the settings ask for 4 in all"),
        (
            ["train.steps=0", "train.epochs=1"],
            {},
            "has 1.556 epochs behind it, and the settings ask for 1 in all",
        ),
        ([], {"people": ("ann", "bob", "dee")}, "classes: 2 there -> 3 here"),
        (["model.dropout=0.3"], {}, "model.dropout: 0.0 there -> 0.3 here"),
    ],
)
def test_refused_and_the_settings_there_stay(folder, told, words, wanted, said):
    folder.save(5, folder.begin("train.global_batch_pairs=3")[0].facts, place=(1, 5))
    before = folder.run.config_toml.read_bytes()
    told.clear()
    with pytest.raises(UserError, match=said):
        folder.begin("run.seed=77", *words, **wanted)
    assert folder.run.config_toml.read_bytes() == before
    assert told == []


def test_all_steps_made_is_not_too_many(folder):
    folder.save(5, folder.begin()[0].facts)
    assert folder.begin(total_steps=5)[0].state.step == 5


@pytest.mark.parametrize(
    ("batch", "place", "total_steps"),
    [
        (3, (2, 0), 6 + 6),  # as before
        (9, (2, 0), 6 + 2),
        (2, (2, 0), 6 + 9),
        (4, (1, 6), 6 + 6),  # 21 pairs are left
        (9, (4, 2), 6),  # the last step of the batch that was has begun an epoch more
    ],
)
def test_epochs_are_seen_whatever_the_batch_becomes(folder, told, batch, place, total_steps):
    """Four epochs of nine pairs: what is left of them decides, not the steps that were made."""
    words = "train.steps=0", "train.epochs=4"
    folder.save(6, folder.begin(*words, "train.global_batch_pairs=3")[0].facts, place)
    begun, _ = folder.begin(*words, f"train.global_batch_pairs={batch}", total_steps=99)
    assert begun.total_steps == total_steps
    assert f"; {total_steps} steps, " in told[1][1]
    assert json.loads(folder.run.length.read_text()) == {"steps": total_steps}


def test_it_is_warned_where_no_checkpoint_will_be_kept_as_best(folder, told):
    folder.begin("checkpoint.best_metric=clean/top5")
    assert told[-1][0] == "warn" and "no checkpoint will be kept as best" in told[-1][1]


def test_it_is_warned_where_no_pictures_will_be_shown(folder, told):
    folder.begin("monitor.images=true", "monitor.tensorboard=false")
    assert told[-1][0] == "warn" and "no pictures will be shown" in told[-1][1]


def test_it_is_warned_where_gpus_of_this_machine_stay_idle(folder, told, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID", "SLURM_GPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    gpus.DRIVER.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug\n")
    folder.begin("run.device=cpu")
    assert not any("GPU" in text or "CUDA" in text for _, text in told)
    folder.begin("run.device=auto")
    how, text = told[-1]
    assert how == "warn" and text.startswith("run.device = 'auto': trains on the CPU; ")
    assert "NVIDIA driver 535.104.05 is here, and torch sees no CUDA device: torch " in text
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "2")
    folder.begin("run.device=auto")
    assert told[-1] == (how, text)
    monkeypatch.delenv("SLURM_GPUS_ON_NODE")  # a job without GPUs on a node that has some
    folder.begin("run.device=auto")
    assert told[-1][0] == "note"


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_it_is_not_warned_of_gpus_that_are_hidden(folder, told, tmp_path, monkeypatch, hidden):
    """By somebody, or by Slurm."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path / "version")
    gpus.DRIVER.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    folder.begin("run.device=auto")
    assert told[-1][0] == "note"


def test_it_is_warned_where_the_loss_of_a_gpu_is_plain_torch(folder, told, monkeypatch, engine_of):
    """The native op as a machine without nvcc builds it, and a rank with a GPU."""
    built = ["cpu"]
    monkeypatch.setattr(choice, "native_devices", lambda: tuple(built))
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)

    def on_gpu(seed):
        engine = engine_of(seed)
        engine.ranks = replace(engine.ranks, device=torch.device("cuda"))
        return engine

    folder._engine_of = on_gpu
    folder.begin("loss.implementation=reference")  # as it was asked for
    folder.begin("train.images=first")  # has no pair loss
    assert not any("plain torch" in text for _, text in told)
    folder.begin()
    how, text = next(one for one in told if "plain torch" in one[1])
    assert how == "warn" and text.startswith("loss.implementation = 'auto': plain torch on GPUs")
    assert "module load cuda" in text and "make setup" in text
    built.append("cuda")
    told.clear()
    folder.begin()
    assert {how for how, _ in told} == {"note"}


def test_settings_that_a_run_was_not_made_with_are_told(folder, told):
    folder.save(5, folder.begin()[0].facts)
    told.clear()
    silent = "monitor.log_every_steps=3", "train.zero_stage=2", "model.recompute=blocks"
    folder.begin(*silent, "model.compile=true")  # which say how a step is made, not what it is
    assert [how for how, _ in told] == ["note"]
    folder.begin("optimizer.lr=0.5", "data.flip_probability=0.0", "run.seed=7")
    assert told[-1][1] == (
        "from here on with other settings: run.seed: 0 there -> 7 here;"
        " data.flip_probability: 0.5 there -> 0.0 here; optimizer.lr: 0.1 there -> 0.5 here"
    )
    folder.begin("head.placement=sharded", "head.sample_rate=0.5")
    said = "from here on with other settings: head.sample_rate: 1.0 there -> 0.5 here"
    assert told[-1][1] == said


def test_a_finished_run_that_goes_on_is_not_complete_any_more(folder):
    folder.save(5, folder.begin()[0].facts)
    folder.run.complete.write_text('{"steps": 5}')
    with pytest.raises(UserError):
        folder.begin("run.resume=false")
    assert folder.run.complete.exists()
    folder.begin(total_steps=7)
    with folder.run.acquire():
        (found,) = statuses([folder.run])
    assert (found.state, found.total_steps) == ("RUNNING", 7)


@pytest.mark.parametrize("accept", ["nothing", "data", "identities", "all"])
def test_the_settings_name_what_a_resume_accepts(folder, accept):
    def resume(digest, people, accept):
        begun, _ = folder.begin(f"run.accept={accept}", digest=digest, people=people)
        folder.save(begun.state.step + 1, begun.facts)
        return begun.state.step

    assert resume("digest-1", ["ann", "bob"], "nothing") == 0
    for digest, people, key in (("x", ["ann", "bob"], "data"), ("x", ["ann", "rob"], "identities")):
        if accept in (key, "all"):
            assert resume(digest, people, accept) > 0
        else:
            with pytest.raises(UserError) as caught:
                resume(digest, people, accept)
            assert "run.accept" in caught.value.fix
        resume(digest, people, "all")  # from here on that is what is there
