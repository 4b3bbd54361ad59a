"""Heads: cosines, their types, their settings."""

import pytest
import torch
import torch.nn.functional as F

from distill.config.tree import HeadConfig
from distill.errors import UserError
from distill.heads import CosineHead, LinearHead, build_head


def test_cosine_head_against_the_plain_formula():
    head = CosineHead(5, 7, 30.0).double()
    embeddings = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    cosines = torch.stack(
        [F.cosine_similarity(embeddings, w[None].expand(6, -1)) for w in head.weight], dim=1
    )
    torch.testing.assert_close(head(embeddings), cosines)
    assert torch.autograd.gradcheck(head, embeddings)


def test_scores_are_wide():
    assert CosineHead(16, 9, 64.0).bfloat16()(torch.randn(4, 16).bfloat16()).dtype == torch.float32
    assert LinearHead(16, 9).bfloat16()(torch.randn(4, 16).bfloat16()).dtype == torch.float32


def test_cosines_stay_float32_under_autocast():
    head, embeddings = CosineHead(64, 50, 64.0), torch.randn(8, 64)
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(embeddings)
    assert torch.equal(scores, head(embeddings))


def test_settings_choose_head_and_scale():
    head = build_head(HeadConfig(margin="arcface", scale=12.0), 4, 3)
    assert isinstance(head, CosineHead) and head.scale == 12.0
    linear = build_head(HeadConfig(kind="linear"), 4, 3)
    assert isinstance(linear, LinearHead) and linear.scale == 1.0


def test_linear_head_refuses_a_margin():
    with pytest.raises(UserError, match=r"head\.margin = 'arcface'"):
        build_head(HeadConfig(kind="linear", margin="arcface"), 4, 3)
