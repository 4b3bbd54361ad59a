"""Heads on 1 to 4 ranks of gloo, against one process of plain torch in float64.

What the ranks play is in head_scenarios.py; each group of processes is started once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import head_scenarios as scenarios
import pytest
from head_oracle import plain_torch, some_classes
from rank_processes import play

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPT = Path(scenarios.__file__)
RANKS = {"one": 1, "two": 2, "three": 3, "four": 4}


def play_phase(phase: str, folder: Path) -> list[dict[str, Any]]:
    """Start the ranks of a phase; what each of them saw."""
    (folder / f"store-{phase}").unlink(missing_ok=True)  # of an attempt that failed
    output = play(SCRIPT, phase, folder, ranks=RANKS[phase], folder=folder)
    assert output == "", "nothing is to be said"
    found = [json.loads((folder / f"{phase}-{r}.json").read_text()) for r in range(RANKS[phase])]
    for rank in found[1:]:
        for scenario in found[0].keys() - {"poisoned"}:
            assert rank[scenario] == found[0][scenario], "the ranks disagree"
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("heads")


@pytest.fixture(scope="module")
def phase(folder):
    """What each rank of a phase saw; its processes are started when it is first asked for."""
    played: dict[str, list[dict[str, Any]]] = {}

    def seen(name: str) -> list[dict[str, Any]]:
        for one in ("two", name):  # which saves what the others load
            if one not in played:
                played[one] = play_phase(one, folder)
        return played[name]

    return seen


def numbers(curve: list[Any]) -> tuple[list[float], list[float]]:
    """Losses and gradient norms of a curve."""
    return [float.fromhex(row[0]) for row in curve], [float.fromhex(row[1]) for row in curve]


def assert_same(curve: list[Any], expected: list[tuple[float, float]], rel: float = 3e-6) -> None:
    """As far as the curve goes, which is three steps at least, or what came after a checkpoint."""
    losses, norms = numbers(curve)
    assert len(curve) in (len(expected), scenarios.FEW_STEPS)
    expected = expected[: len(curve)]
    assert losses == pytest.approx([loss for loss, _ in expected], rel=rel)
    assert norms == pytest.approx([norm for _, norm in expected], rel=10 * rel)


@pytest.mark.parametrize("name", RANKS)
def test_every_placement_form_and_stage_is_one_process_of_plain_torch(phase, name):
    curves = phase(name)[0]["curves"]
    assert len(curves) == (48 if name == "two" else 8)
    for key, curve in curves.items():
        head = key.split()[-1]
        expected = plain_torch((), head)
        assert_same(curve, expected)
        clip = scenarios.settings(head=head).optimizer.clip_norm
        assert max(numbers(curve)[1]) > clip, "the test is to clip"
        assert not any(row[2] for row in curve)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize("name", ["one", "three"])
def test_a_head_that_is_not_clipped_leaves_the_norm_to_the_backbone(phase, name, stage):
    curve, expected = phase(name)[0]["unclipped"][str(stage)], plain_torch(scenarios.UNCLIPPED)
    assert_same(curve, expected)
    assert min(numbers(curve)[1]) > 0.3, "the test is to clip"


@pytest.mark.parametrize("similarity", scenarios.SIMILARITIES)
@pytest.mark.parametrize("form", ["replicated-fused", "sharded-fused"])
def test_every_similarity_is_one_process_of_plain_torch(phase, form, similarity):
    curve = phase("three")[0]["similarities"][f"{form} {similarity}"]
    assert_same(curve, plain_torch(tuple(scenarios.SIMILARITIES[similarity])))


def without_pairs(name: str) -> list[tuple[float, float]]:
    """What `scenarios.FIRST` should give."""
    return plain_torch(("train.images=first", *scenarios.FIRST[name]), name.split()[0])


@pytest.mark.parametrize("name", RANKS)
def test_without_pairs_every_form_is_one_process_of_plain_torch(phase, name):
    curves = phase(name)[0]["first_alone"]
    assert len(curves) == (len(scenarios.FORMS) - (name == "four")) * len(scenarios.FIRST)
    for key, curve in curves.items():
        assert_same(curve, without_pairs(key.split(" ", 1)[1]))


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_without_pairs_checkpoints_go_on_alike_on_other_ranks_and_placements(phase, name):
    for key, curve in phase(name)[0]["first_loaded"].items():
        assert_same(curve, without_pairs(key.split(":")[0])[2:])


@pytest.mark.parametrize("head", scenarios.HEADS)
@pytest.mark.parametrize("form", scenarios.FORMS)
def test_without_pairs_bf16_is_near_and_repeats_to_the_bit(phase, form, head):
    first, second = phase("three")[0]["first_rounded"][f"{form} {head}"]
    assert first == second
    assert_same(first[:2], plain_torch(("train.images=first",), head)[:2], rel=3e-3)


@pytest.mark.parametrize("head", [*scenarios.HEADS, "cosine head.sub_centres=3"])
@pytest.mark.parametrize("name", ["two", "three"])
def test_without_pairs_a_sample_of_the_classes_is_plain_torch(phase, name, head):
    found, (kind, *words) = phase(name)[0]["first_sampled"][head], head.split()
    assert_same(found, some_classes(RANKS[name], kind, "train.images=first", *words))


@pytest.mark.parametrize("head", scenarios.HEADS)
@pytest.mark.parametrize("form", scenarios.FORMS)
def test_bf16_is_near_and_repeats_to_the_bit(phase, form, head):
    first, second = phase("two")[0]["rounded"][f"{form} {head}"]
    assert first == second
    assert_same(first[:2], plain_torch((), head)[:2], rel=3e-3)


@pytest.mark.parametrize("stage", range(4))
def test_nan_on_one_rank_skips_backbone_and_head_on_all_without_a_trace(phase, stage):
    ranks = [rank["poisoned"][str(stage)] for rank in phase("two")]
    for curve, before, after, overflowed, last in ranks:
        assert [row[2] for row in curve] == [False, True, True, False]
        assert before == after == overflowed != last
        last_rank_alone = {"1": list(range(18, 36))}
        assert [row[3] for row in curve] == [{}, last_rank_alone, {}, {}]
        assert curve == ranks[0][0] or stage  # NaN norms differ in nothing


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_loss_scale_changes_nothing_but_overflow(phase, stage):
    curve, counters = phase("two")[0]["scaled"][str(stage)]
    assert [row[2] for row in curve] == [False, False, True, False]
    expected = plain_torch((), left_out=2)
    kept = [0, 1, 3]
    assert_same([curve[i] for i in kept], [expected[i] for i in kept])
    assert counters == {"updates": 0, "loss_scale": 2.0**13, "good_steps": 1}


@pytest.mark.parametrize(
    ("saved_with", "scale", "good_steps"),
    [("fp32", 2**14, 0), ("bf16", 2**14, 0), ("fp16", 2**13, 1)],
)
def test_a_run_that_goes_on_with_fp16_begins_with_a_scale(phase, saved_with, scale, good_steps):
    """With that of the checkpoint where there was one: else with the first, which can fall."""
    counters = phase("two")[0]["scaled"][f"resumed {saved_with}"]
    assert counters == {"updates": 0, "loss_scale": float(scale), "good_steps": good_steps}


@pytest.mark.parametrize("name", ["one", "two", "three"])
def test_checkpoints_go_on_alike_on_other_ranks_placements_and_stages(phase, name):
    saved, loaded = phase("two")[0]["saved"], phase(name)[0]["loaded"]
    assert len(loaded) == 16 + 1
    for key, curve in loaded.items():
        if key != "refusal":
            expected = zip(*numbers(saved[key.split(" -> ")[0]]), strict=True)
            assert_same(curve, list(expected))
    assert "label 2: 'c' there -> 'd' here" in loaded["refusal"]


@pytest.mark.parametrize("head", scenarios.HEADS)
@pytest.mark.parametrize("run", ["sharded-fused 1", "replicated-fused 3"])
def test_a_resumed_run_is_the_uninterrupted_one_to_the_last_bit(phase, run, head):
    form = run.split()[0]
    for rank in phase("two"):
        assert rank["loaded"][f"{head} {form} -> {run}"] == rank["saved"][f"{head} {form}"]


@pytest.mark.parametrize("name", ["one", "two"])
def test_fine_tuning_begins_alike_wherever_weights_stand_and_stood(phase, name):
    started = phase(name)[0]["started"]
    saved_placements = {key.split(" -> ")[0]: numbers(curve) for key, curve in started.items()}
    assert len(started) == 6
    for key, curve in started.items():
        losses, norms = saved_placements[key.split(" -> ")[0]]
        assert_same(curve, list(zip(losses, norms, strict=True)))
    (first, *_), (other, *_) = (
        phase(n)[0]["started"]["sharded-fused -> sharded-fused"] for n in ("one", "two")
    )
    assert float.fromhex(first[0]) == pytest.approx(float.fromhex(other[0]), rel=3e-6)


@pytest.mark.parametrize("head", scenarios.HEADS)
@pytest.mark.parametrize("name", ["two", "three"])
def test_a_sample_of_the_classes_is_one_process_of_plain_torch(phase, name, head):
    found, expected = phase(name)[0]["sampled"], some_classes(RANKS[name], head)
    for accumulation in (1, 3):
        assert_same(found[f"{head} {accumulation}"], expected)
        resumed, same = found[f"{head} {accumulation} resumed"]
        assert resumed == found[f"{head} {accumulation}"][2:]
        assert same, "weights and moments, to the bit"
    assert_same(found[f"{head} all"], plain_torch((), head))
