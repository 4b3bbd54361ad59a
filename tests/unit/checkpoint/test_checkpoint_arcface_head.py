"""The head of arcface_torch, in whose rows people stand by their labels."""

from __future__ import annotations

import re
from pathlib import Path

import arcface_ranks
import pytest
import torch
from rank_processes import on_ranks
from safetensors.torch import save_file
from written_arcface import BLOCKS, head_of, logits_by_hand, state_of

from distill.checkpoint import start_from
from distill.config import load_config
from distill.errors import UserError
from distill.models.classifier import build_classifier
from distill.trained import restore, restore_backbone

PEOPLE = arcface_ranks.PEOPLE
LABELS = [str(label) for label in range(PEOPLE)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A file with backbone and head, and what is in it."""
    state, head = state_of(BLOCKS["r18"]), head_of(PEOPLE)
    path = tmp_path_factory.mktemp("arcface") / "r18.safetensors"
    save_file({**state, "softmax_fc.weight": head}, path)
    return path, state, head


@pytest.mark.slow
def test_the_logits_are_the_same_wherever_the_head_stands(whole, tmp_path):
    """On two ranks, against a forward pass in plain torch."""
    path, state, head = whole
    images = torch.rand(2, 3, 112, 112) * 2 - 1
    torch.save(images, tmp_path / "images")
    words = path, tmp_path / "images", tmp_path / "out"
    done = on_ranks(Path(arcface_ranks.__file__), *words, ranks=2)
    assert done.returncode == 0, done.stderr
    expected = logits_by_hand(state, head, BLOCKS["r18"], images)
    seen = {place: set() for place in arcface_ranks.PLACES}
    for rank in range(2):
        found = torch.load(tmp_path / f"out-{rank}")
        for place, (told, mine, logits) in found.items():
            assert "of its people 7 kept and 0 dropped, 0 new" in told
            assert torch.allclose(logits, expected[:, mine], atol=1e-3 * float(expected.std()))
            seen[place] |= set(mine)
    assert all(people == set(range(PEOPLE)) for people in seen.values())


@pytest.fixture(scope="module")
def engine(engine_of):
    """An engine of that network whose weights are random, and what makes another."""

    def make(*words):
        config = load_config(None, ["model.name=iresnet18", "model.embedding_dim=32", *words])
        model = build_classifier(config, PEOPLE)
        made = engine_of(3, {name: tuple(p.shape) for name, p in model.named_parameters()})
        made.buffers = dict(model.named_buffers())
        return made

    return make


def test_other_labels_are_refused_and_may_be_left_out(whole, engine):
    path, state, _ = whole
    here = engine()
    for names, words in {
        (*LABELS, "7"): "it has 7 people and data.train 8",
        (*LABELS[:-1], "8"): "label 6 is '8' in data.train",
        ("1", "0", *LABELS[2:]): "label 0 is '1'",
    }.items():
        with pytest.raises(UserError, match=re.escape(words)) as caught:
            start_from(path, here, names)
        assert "model.init_head = false" in str(caught.value)
    drawn = here.state["weight", "head.weight"].clone()
    start = start_from(path, here, [*LABELS[:-1], "8"], head=False)
    assert (start.kept, start.new, start.dropped) == (0, 7, 0)
    assert torch.equal(here.state["weight", "head.weight"], drawn)
    assert torch.equal(here.state["weight", "backbone.stem.0.weight"], state["conv1.weight"])


@pytest.mark.parametrize("names", [LABELS, [f"{n:07d}" for n in range(PEOPLE)], list("abcdefg")])
def test_rows_go_by_labels_whatever_people_are_called(whole, engine, names):
    """Names of folders are sorted here as they were there."""
    here = engine("head.margin=adaface")  # whose running statistics are not there
    before = here.buffers["adaface.mean"].clone()
    assert start_from(whole[0], here, names).kept == PEOPLE
    assert torch.equal(here.state["weight", "head.weight"], whole[2])
    assert torch.equal(here.buffers["adaface.mean"], before)


def test_heads_of_another_form_are_refused(whole, engine, tmp_path):
    path, state, _ = whole
    with pytest.raises(UserError, match=r"head\.linear\.bias: absent there.*head\.kind"):
        start_from(path, engine("head.kind=linear"), LABELS)
    save_file({**state, "softmax_fc.weight": head_of(PEOPLE, 16)}, tmp_path / "narrow.safetensors")
    with pytest.raises(UserError, match=r"head\.weight: \(7, 16\) there -> \(7, 32\) here"):
        start_from(tmp_path / "narrow.safetensors", engine(), LABELS)
    assert start_from(tmp_path / "narrow.safetensors", engine(), LABELS, head=False).new == PEOPLE


def test_the_backbone_is_used_and_the_head_names_nobody(whole):
    assert restore_backbone(whole[0]).config.model.name == "iresnet18"
    with pytest.raises(UserError, match="people without names"):
        restore(whole[0])
