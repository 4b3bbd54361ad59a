"""The engine and its checkpoints on two ranks of gloo, against one process of plain torch.

Four groups of processes are started, once: training and saving on two ranks, the same on one, and
fresh ones that resume what both have saved. What they play is in engine_scenarios.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import engine_scenarios as scenarios
import pytest
import torch
import torch.nn.functional as F
from rank_processes import play

from distill.engine_parts.optimizer import build_optimizer, set_lr

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(scenarios.__file__)
STAGES = range(4)
TOLERANCE = {"rel": 2e-6, "abs": 0.0}
OF_TORCH = re.compile(r".*Guards may run slower on Python 3\.13\.0\..*\n.*warnings\.warn\(\n")
"""What torch says where Python is that very version, and none that we could mend."""


def play_phase(phase: str, ranks: int, folder: Path) -> list[dict[str, Any]]:
    """Start the ranks of a phase; what each of them saw."""
    output = play(SCRIPT, phase, folder, ranks=ranks, folder=folder)
    (folder / f"{phase}.log").write_text(output)
    return [json.loads((folder / f"{phase}-{rank}.json").read_text()) for rank in range(ranks)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def two(folder) -> list[dict[str, Any]]:
    return play_phase("train", 2, folder)


@pytest.fixture(scope="module")
def one(folder, two) -> dict[str, Any]:
    return play_phase("single", 1, folder)[0]


@pytest.fixture(scope="module")
def fresh(folder, two, one) -> list[dict[str, Any]]:
    return play_phase("resume", 2, folder)


def plain_torch(
    name: str, last: int, *, left_out: int = -1, clip: float = 0.4, factor: float = 1.0
) -> list[tuple[float, float]]:
    """(loss, gradient norm) of each step of one process without DeepSpeed, in float64."""
    config = scenarios.settings(name=name)
    torch.manual_seed(0)
    model = scenarios.Net().double()
    optimizer, seen = build_optimizer(model, config.optimizer), []
    for step in range(last):
        images, labels = scenarios.batch(step)
        set_lr(optimizer, scenarios.lr_of(config, step))
        optimizer.zero_grad()
        loss = factor * F.cross_entropy(model(images.double()), labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip or float("inf"))
        if step != left_out:
            optimizer.step()
        seen.append((loss.item(), norm.item()))
    return seen


def numbers(curve: list[Any]) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of a curve."""
    return [float.fromhex(row[0]) for row in curve], [float.fromhex(row[1]) for row in curve]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_stage_is_one_process_of_plain_torch(one, two, name, accumulation, stage, ranks):
    found = (one if ranks == 1 else two[0])["curves"][f"{name}-{stage}-{accumulation}"]
    losses, norms = numbers(found)
    expected = plain_torch(name, scenarios.STEPS)
    assert losses == pytest.approx([loss for loss, _ in expected], **TOLERANCE)
    assert norms == pytest.approx([norm for _, norm in expected], rel=2e-5)
    clip = scenarios.settings(name=name).optimizer.clip_norm
    assert max(norms) > clip, "the test is to clip"
    assert not any(row[2] for row in found)


@pytest.mark.parametrize("stage", STAGES)
def test_clipping_switched_off_is_off(two, stage):
    factor = scenarios.UNCLIPPED
    losses, norms = numbers(two[0]["unclipped"][str(stage)])
    expected = plain_torch("sgd", 3, clip=0.0, factor=factor)
    assert losses == pytest.approx([loss for loss, _ in expected], rel=1e-5)
    assert norms == pytest.approx([norm for _, norm in expected], rel=1e-4)
    assert min(norms) > 1.5


def test_ranks_agree_on_everything_they_report(two):
    for scenario in ("curves", "repeated", "scaled", "poisoned", "saved", "failing"):
        assert two[0][scenario] == two[1][scenario], scenario


def test_ranks_do_not_load_a_code_generator_they_never_use(one, two):
    assert not any(rank["code_generator"] for rank in (one, *two))


@pytest.mark.parametrize("stage", STAGES)
def test_two_runs_give_the_same_losses_to_the_last_bit(two, stage):
    first, second = two[0]["repeated"][str(stage)]
    assert first == second


@pytest.mark.parametrize("stage", STAGES)
def test_loss_scale_changes_nothing_but_overflow(two, stage):
    curve, counters = two[0]["scaled"][str(stage)]
    assert [row[2] for row in curve] == [False, False, True, False, False]
    losses, norms = numbers(curve)
    expected = plain_torch("sgd", scenarios.STEPS, left_out=2)
    kept = [0, 1, 3, 4]
    assert [losses[i] for i in kept] == pytest.approx([expected[i][0] for i in kept], **TOLERANCE)
    assert [norms[i] for i in kept] == pytest.approx([expected[i][1] for i in kept], rel=2e-5)
    assert counters == {"updates": 0, "loss_scale": 2.0**13, "good_steps": 2}


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("stage", STAGES)
def test_nan_on_one_rank_skips_the_step_on_all_without_a_trace(two, stage, accumulation):
    for rank in two:
        curve, before, after, last = rank["poisoned"][f"{stage}-{accumulation}"]
        assert [row[2] for row in curve] == [False, False, True, False, False]
        assert before == after  # weights, and the running statistics of batch norm
        assert last != after
        losses, norms = numbers(curve[3:])
        assert all(torch.isfinite(torch.tensor(losses + norms)))


def test_all_stages_skip_alike(two):
    for accumulation in (1, 3):
        rows = [numbers(two[0]["poisoned"][f"{s}-{accumulation}"][0][3:]) for s in STAGES]
        for losses, norms in rows[1:]:
            assert losses == pytest.approx(rows[0][0], **TOLERANCE)
            assert norms == pytest.approx(rows[0][1], rel=2e-5)


@pytest.mark.parametrize("stage", STAGES)
def test_ranks_evaluate_the_same_network_as_often_as_they_like(two, stage):
    (first, modes, training), (second, *_) = (rank["evaluated"][str(stage)] for rank in two)
    assert first == second
    assert modes == [False, False]
    assert training
    assert first == pytest.approx(two[0]["evaluated"]["0"][0], rel=1e-5, abs=1e-6)


def test_the_real_classifier_is_the_same_replicated_and_sharded(two):
    for rank in two:
        replicated, sharded = rank["classifiers"]["0"], rank["classifiers"]["3"]
        for expected, row in zip(replicated, sharded, strict=True):
            assert row == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", STAGES)
def test_blocks_that_are_made_again_change_no_bit(two, stage, precision):
    """Of losses, norms, weights and running statistics, with dropout and accumulation."""
    for rank in two:
        kept, again = rank["recomputed"][f"{stage}-{precision}"]
        assert again == kept


@pytest.mark.parametrize("stage", range(3))
def test_a_compiled_backbone_is_the_same_network_in_one_graph(two, stage):
    """Of the same operators no bit differs; an evaluation adds no graph, either kind resumes."""
    for rank in two:
        (plain, none), (whole, one) = rank["compiled"][str(stage)]
        assert whole == plain
        assert (none, one) == (0, 1)


@pytest.mark.parametrize("run", ["-".join(map(str, run)) for run in scenarios.RESUMED])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(two, fresh, run):
    for before, after in zip(two, fresh, strict=True):
        assert after["resumed"][run] == before["saved"][run]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("saved_stage", [1, 3])
@pytest.mark.parametrize("ranks", ["1->2", "2->1", "2->2", "1->1"])
def test_another_stage_and_number_of_ranks_goes_on_alike(
    one, two, fresh, ranks, saved_stage, stage
):
    source, target = ranks.split("->")
    readers = {"1": one, "2": fresh[0]}
    writers = {"1": one, "2": two[0]}
    found = readers[target]["elastic_loaded"][f"elastic-{source}-{saved_stage}->{stage}"]
    expected = writers[source]["elastic_saved"][str(saved_stage)]
    assert numbers(found)[0] == pytest.approx(numbers(expected)[0], **TOLERANCE)
    assert numbers(found)[1] == pytest.approx(numbers(expected)[1], rel=2e-5)


def test_one_rank_with_a_full_disk_fails_the_save_on_all(two):
    for rank in two:
        failing = rank["failing"]
        assert "could not be written on rank 1" in failing["error"]
        assert "No space left" in failing["error"]
        assert failing["left"] == ["step-00000001"]


def test_running_statistics_come_back_to_the_last_bit_on_three_ranks(folder):
    """A third of three equal numbers is not always the number."""
    assert [rank["statistics"] for rank in play_phase("three", 3, folder)] == [[0, 0]] * 3


def test_all_ranks_fall_back_and_refuse_together(two):
    for rank in two:
        failing = rank["failing"]
        assert failing["step"] == 1
        ((moved, reason),) = failing["aside"]
        assert moved.endswith("step-00000003.corrupt")
        assert "shard-00001-of-00002" in reason
        assert "classes: 7 there -> 1 here" in failing["refusal"]


def test_nothing_is_compiled_and_nothing_is_said(folder, fresh):
    assert not (folder / "extensions").exists()
    for phase in ("train", "single", "resume"):
        assert OF_TORCH.sub("", (folder / f"{phase}.log").read_text()) == ""
