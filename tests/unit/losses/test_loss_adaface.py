"""AdaFace's margins from the length of embeddings, against the paper's formula in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.config import load_config
from distill.config.tree import HeadConfig, LossConfig
from distill.errors import UserError
from distill.heads import AdaFace, build_head
from distill.losses import PairLossSpec
from distill.models.classifier import build_classifier, build_for_training
from distill.ranks import Ranks


def adaface_by_numpy(batches: list[np.ndarray], m: float, h: float, decay: float):
    """Angles, cosines of the last batch, and the running numbers; Kim et al., eq. 12 to 14."""
    mean, std = 20.0, 100.0
    for rows in batches:
        lengths = np.clip(np.sqrt((rows**2).sum(1)), 1e-3, 100.0)
        mean = decay * lengths.mean() + (1 - decay) * mean
        std = decay * lengths.std(ddof=1) + (1 - decay) * std
    scaler = np.clip((lengths - mean) / (std + 1e-3) * h, -1.0, 1.0)
    return -m * scaler, m + m * scaler, mean, std


@pytest.mark.parametrize("decay", [0.01, 0.9])
def test_adaface_is_the_papers(decay: float) -> None:
    made = np.random.default_rng(0)
    batches = [made.normal(size=(12, 6)) * scale for scale in (1.0, 9.0, 60.0)]
    module = AdaFace(0.4, 0.333, decay)
    for rows in batches:
        margins = module(torch.tensor(rows, dtype=torch.float32))
    angle, cosine, mean, std = adaface_by_numpy(batches, 0.4, 0.333, decay)
    np.testing.assert_allclose(margins.angle_rad, angle, atol=2e-6)
    np.testing.assert_allclose(margins.cosine, cosine, atol=2e-6)
    np.testing.assert_allclose([module.mean, module.std], [mean, std], rtol=1e-6)


def test_adaface_ends_at_its_margin() -> None:
    module = AdaFace(0.4, 0.333, 1e-9)
    module.std.fill_(1.0)  # the mean is 20
    margins = module(torch.tensor([[1.0], [16.9], [20.0], [23.1], [500.0]]))
    torch.testing.assert_close(margins.angle_rad, torch.tensor([0.4, 0.4, 0.0, -0.4, -0.4]))
    torch.testing.assert_close(margins.cosine, torch.tensor([0.0, 0.0, 0.4, 0.8, 0.8]))


def test_no_gradient_reaches_the_lengths_and_one_nan_poisons_one_row() -> None:
    module = AdaFace(0.4, 0.333, 0.5)
    rows = torch.randn(6, 4, requires_grad=True)
    assert not module(rows).angle_rad.requires_grad
    before = [one.clone() for one in module.buffers()]
    with torch.no_grad():
        rows[2, 1] = torch.nan
    margins = module(rows)
    assert margins.angle_rad.isnan().tolist() == [False, False, True, False, False, False]
    assert all(torch.equal(a, b) for a, b in zip(before, module.buffers(), strict=True))


def test_the_network_keeps_it_by_one_name_wherever_the_head_stands() -> None:
    settings = ["head.margin=adaface", "model.name=tiny", "head.adaface_h=0.5"]
    whole = build_classifier(load_config(None, settings), 5)
    assert (whole.adaface.margin, whole.adaface.h, whole.adaface.decay) == (0.4, 0.5, 0.01)
    sharded = load_config(None, [*settings, "head.placement=sharded"])
    embedder, _ = build_for_training(sharded, 5, Ranks(0, 1, 0, 1, torch.device("cpu")))
    for network in (whole, embedder):
        assert {"adaface.mean", "adaface.std"} <= set(network.state_dict())


def test_settings_choose_it() -> None:
    spec = PairLossSpec.from_config(LossConfig(), HeadConfig(margin="adaface"))
    assert not spec.has_margin
    plain = build_classifier(load_config(None, ["model.name=tiny", "head.margin=arcface"]), 5)
    assert plain.adaface is None
    with pytest.raises(UserError, match="a linear head has no cosine"):
        build_head(HeadConfig(kind="linear", margin="adaface"), 4, 3)
