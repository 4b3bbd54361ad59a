"""Fresh runs that start from trained weights: people are found again by their names."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill.checkpoint import (
    RunFacts,
    TrainState,
    check_start,
    export_weights,
    save,
    start_from,
)
from distill.engine_parts.fragments import Fragment
from distill.errors import UserError

OLD = ["ann", "bob", "çelik", "dee"]
NEW = ["dee", "eve", "bob", "flo", "gus", "ann"]
SHAPES = {"backbone.weight": (5, 3, 2), "backbone.bias": (5,), "head.weight": (6, 5)}


@pytest.fixture(scope="module", params=["checkpoint", "by classes", "export"])
def stored(request, tmp_path_factory, engine_of):
    """Weights of the four people of OLD, in every form in which they are stored."""
    engine = engine_of(3)
    if request.param == "by classes":
        engine.class_bounds = {"head.weight": (0, 4)}
    folder = tmp_path_factory.mktemp("stored")
    path = save(folder, engine, TrainState(3), RunFacts("run-a", {}, OLD, "digest-1"))
    if request.param == "export":
        path = export_weights(path, folder / "model.safetensors")
    return path, engine


class Cut:
    """The state of another engine in fragments that are cut anywhere."""

    def __init__(self, engine, cuts):
        self._engine, self._cuts = engine, cuts

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def fragments(self, kind):
        for whole in self._engine.fragments(kind):
            inner = sorted({cut % whole.values.numel() for cut in self._cuts} - {0})
            bounds = [0, *inner, whole.values.numel()]
            for start, stop in itertools.pairwise(bounds):
                yield Fragment(whole.name, start, whole.values[start:stop])


@pytest.fixture(scope="module", autouse=True)
def few_rows_at_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.checkpoint.start.ROWS_AT_ONCE", 2)
        yield


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(cuts=st.lists(st.integers(1, 60), max_size=4), names=st.permutations(NEW))
def test_people_keep_their_rows_wherever_they_stand(engine_of, stored, cuts, names):
    path, old = stored
    fresh, untouched = engine_of(8, SHAPES), engine_of(8, SHAPES)
    start = start_from(path, Cut(fresh, cuts), names)
    assert (start.kept, start.new, start.dropped) == (3, 3, 1)
    for row, name in enumerate(names):
        source = old if name in OLD else untouched
        expected = source.state["weight", "head.weight"][OLD.index(name) if name in OLD else row]
        assert torch.equal(fresh.state["weight", "head.weight"][row], expected)
    for name in ("backbone.weight", "backbone.bias"):
        assert torch.equal(fresh.state["weight", name], old.state["weight", name])
    for name, buffer in old.buffers.items():
        assert torch.equal(fresh.buffers[name], buffer)
    for kind in fresh.moments:  # the optimizer starts anew
        for name in SHAPES:
            assert torch.equal(fresh.state[kind, name], untouched.state[kind, name])


CENTRES = {"backbone.weight": (5, 3, 2), "head.weight": (4, 2, 5)}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    cuts=st.lists(st.integers(1, 60), max_size=4),
    names=st.permutations(NEW),
    bounds=st.sampled_from([None, (0, 4)]),
)
def test_people_keep_all_of_their_sub_centres(engine_of, tmp_path_factory, cuts, names, bounds):
    old, here = engine_of(3, CENTRES), {**CENTRES, "head.weight": (6, 2, 5)}
    fresh, untouched = engine_of(8, here), engine_of(8, here)
    folder = tmp_path_factory.mktemp("centres")
    if bounds is not None:
        old.class_bounds = {"head.weight": bounds}
    path = save(folder, old, TrainState(3), RunFacts("run-a", {}, OLD, "digest-1"))
    start_from(path, Cut(fresh, cuts), names)
    for row, name in enumerate(names):
        source = old if name in OLD else untouched
        expected = source.state["weight", "head.weight"][OLD.index(name) if name in OLD else row]
        assert torch.equal(fresh.state["weight", "head.weight"][row], expected)


def test_another_number_of_sub_centres_is_refused(engine_of, stored):
    with pytest.raises(UserError, match=r"head\.weight: \(4, 5\) there -> .*head\.sub_centres to"):
        start_from(stored[0], engine_of(8, {**SHAPES, "head.weight": (6, 2, 5)}), NEW)


def test_what_happened_is_told(engine_of, stored):
    path, _ = stored
    told = str(start_from(path, engine_of(8, SHAPES), NEW))
    assert told == f"weights of {path} (step 3); of its people 3 kept and 1 dropped, 3 new"


@pytest.mark.parametrize(
    ("shapes", "difference"),
    [
        ({**SHAPES, "backbone.bias": (7,)}, r"backbone\.bias: \(5,\) there -> \(7,\) here"),
        ({**SHAPES, "head.weight": (6, 4)}, r"head\.weight: \(4, 5\) there -> \(6, 4\) here"),
        ({**SHAPES, "head.linear.bias": (6,)}, r"head\.linear\.bias: absent there -> \(6,\) here"),
    ],
)
def test_another_network_is_refused_and_nothing_is_changed(engine_of, stored, shapes, difference):
    fresh = engine_of(8, shapes)
    with pytest.raises(UserError, match=difference) as caught:
        start_from(stored[0], fresh, NEW)
    assert "model.init_from" in str(caught.value)
    assert fresh.same_as(engine_of(8, shapes))
    assert refused_before(stored[0], fresh) == str(caught.value)


def refused_before(path, engine):
    """What is said where there is no engine yet."""
    shapes = engine.shapes | {name: tuple(b.shape) for name, b in engine.buffers.items()}
    with pytest.raises(UserError) as caught:
        check_start(path, shapes, NEW)
    return str(caught.value)


@pytest.mark.parametrize("there", [False, True])
def test_lengths_of_adaface_are_taken_over_where_they_are_known(engine_of, tmp_path, there):
    """Another margin is no other network: there is nothing of its own to take over."""
    old, fresh = engine_of(3), engine_of(8, SHAPES)
    fresh.buffers["adaface.mean"] = torch.tensor(20.0)
    if there:
        old.buffers["adaface.mean"] = torch.tensor(17.5)
    path = save(tmp_path, old, TrainState(3), RunFacts("run-a", {}, OLD, "digest-1"))
    check_start(path, fresh.shapes | {n: tuple(b.shape) for n, b in fresh.buffers.items()}, NEW)
    assert start_from(path, fresh, NEW).kept == 3
    assert fresh.buffers["adaface.mean"].item() == (17.5 if there else 20.0)
    assert torch.equal(fresh.buffers["bn.running_mean"], old.buffers["bn.running_mean"])
    start_from(path, back := engine_of(8, SHAPES), NEW)  # and the other way round
    assert torch.equal(back.buffers["bn.running_mean"], old.buffers["bn.running_mean"])


def test_what_fits_by_its_header(stored):
    check_start(stored[0], SHAPES, NEW)
    check_start(stored[0], {**SHAPES, "head.weight": (6, 2, 5)}, NEW, head=False)


def test_a_place_with_nothing_in_it(engine_of, tmp_path):
    fresh = engine_of(8, SHAPES)
    for path, said in (
        (tmp_path, r"^model\.init_from: '.*': no checkpoint there"),
        (tmp_path / "nosuch", r"^model\.init_from = '.*nosuch': No such file or folder"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            start_from(path, fresh, NEW)
        assert refused_before(path, fresh) == str(caught.value)


def test_headers_of_damaged_weights(engine_of, tmp_path):
    """Nothing is set aside by a look; damage of tensors is found by whoever reads them."""
    run, facts = tmp_path / "checkpoints", RunFacts("run-a", {}, OLD, "digest-1")
    steps = [save(run, engine_of(step), TrainState(step), facts) for step in (1, 2)]
    (steps[1] / "manifest.json").write_text("{")
    before = sorted(tmp_path.rglob("*"))
    check_start(tmp_path, SHAPES, NEW)
    assert f"{str(steps[0])!r}: another network" in refused_before(tmp_path, engine_of(8, CENTRES))
    with pytest.raises(
        UserError, match=r"^model\.init_from: checkpoint '.*2': manifest\.json is tru"
    ):
        check_start(steps[1], SHAPES, NEW)
    (steps[0] / "manifest.json").unlink()
    with pytest.raises(
        UserError, match=r"none of them is good: '.*2': manifest\.json is truncated"
    ):
        check_start(tmp_path, SHAPES, NEW)
    steps[0].joinpath("manifest.json").touch()
    assert sorted(tmp_path.rglob("*")) == before
