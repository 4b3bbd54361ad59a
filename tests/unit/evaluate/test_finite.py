"""Diverged weights are refused in the same words wherever a network is asked."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from distill.classify.answers import name_people
from distill.errors import UserError
from distill.finite import check_finite

FIX = "; the weights have diverged: take an older checkpoint, or train at a lower lr"


def test_rows_with_nan_and_infinity_are_counted():
    rows = torch.ones(5, 3)
    check_finite(rows, "embeddings", "images")
    rows[1, 2], rows[3, 0], rows[3, 1] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(UserError) as refused:
        check_finite(rows, "embeddings", "templates", Path("sets/IJBC"))
    said = "sets/IJBC: the embeddings of 2 of 5 templates are not finite"
    assert str(refused.value) == said + FIX


def test_classify_refuses_answers_of_diverged_weights():
    logits = torch.zeros(2, 4)
    logits[1] = torch.nan
    trained = SimpleNamespace(
        model=SimpleNamespace(backbone=lambda images: images, logits=lambda embeddings: logits),
        origin=Path("step-7"),
        identities=list("abcd"),
    )
    faces = [np.zeros((112, 112, 3), np.uint8)] * 2
    with pytest.raises(UserError) as refused:
        name_people(trained, faces, 1, torch.device("cpu"))
    assert str(refused.value) == "step-7: the answers of 1 of 2 photographs are not finite" + FIX
