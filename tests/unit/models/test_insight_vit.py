"""What the transformers of arcface_torch leave out in training, and that nothing else is random."""

from __future__ import annotations

import pytest
import torch

from distill.models.insight_vit import (
    SEEN_TOKENS,
    TOKENS,
    VARIANTS,
    InsightVit,
    Variant,
    seen_places,
)
from distill.models.layers import DropPath

SMALL = Variant(16, 3, 0.0, True)


def images(number: int = 4) -> torch.Tensor:
    return torch.rand(number, 3, 112, 112) * 2 - 1


def test_a_tenth_of_the_tokens_is_hidden_others_of_each_image() -> None:
    """Of 144, as int(144 * 0.9) there: also where a name says a twentieth."""
    torch.manual_seed(0)
    places = seen_places(4000, torch.device("cpu"))
    assert (TOKENS, places.shape) == (144, (4000, 129))
    seen = torch.zeros(4000, TOKENS).scatter(1, places, 1.0)
    assert (seen.sum(1) == SEEN_TOKENS).all()  # none twice
    # of each place, within five standard deviations
    assert (seen.mean(0) - 129 / 144).abs().max() < 5 * (129 / 144 * 15 / 144 / 4000) ** 0.5
    assert len(seen.unique(dim=0)) == 4000


def test_a_hidden_token_stands_where_nothing_was_seen() -> None:
    network = InsightVit(SMALL, 8, 0.0).train()
    with torch.no_grad():
        network.hidden_token.fill_(7.0)
        network.norm.bias.fill_(-3.0)
        network.norm.weight.fill_(0.0)
    x, found = images(), list[torch.Tensor]()
    network.embedding.register_forward_pre_hook(lambda _, args: found.append(args[0]))
    torch.manual_seed(3)
    network(x)
    torch.manual_seed(3)
    places = seen_places(4, torch.device("cpu"))
    expected = torch.full((4, TOKENS), 7.0).scatter(1, places, -3.0)
    assert torch.equal(found[0], expected.repeat_interleave(16, dim=1))
    network.eval()(x)
    assert (found[1] == -3.0).all()


def test_without_hidden_tokens_the_order_of_tokens_is_that_of_the_places() -> None:
    """Hiding none at all gives what a network without hiding gives."""
    torch.manual_seed(1)
    network = InsightVit(SMALL, 8, 0.0).train()
    plain = InsightVit(SMALL._replace(hides=False), 8, 0.0).train()
    plain.load_state_dict(network.state_dict())
    assert "hidden_token" not in dict(plain.named_parameters())
    x = images()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("distill.models.insight_vit.SEEN_TOKENS", TOKENS)
        torch.testing.assert_close(network(x), plain(x), atol=1e-5, rtol=1e-4)


def test_the_path_drops_whole_images_and_the_rest_is_larger() -> None:
    torch.manual_seed(2)
    drop, x = DropPath(0.25).train(), torch.rand(20_000, 3, 2) + 0.5
    found = drop(x)
    kept = found[:, 0, 0] != 0.0
    assert torch.equal(found[~kept], torch.zeros_like(found[~kept]))
    torch.testing.assert_close(found[kept], x[kept] / 0.75)
    assert float(kept.float().mean()) == pytest.approx(0.75, abs=5 * (0.1875 / 20_000) ** 0.5)
    assert torch.equal(drop.eval()(x), x)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_path_is_dropped_more_often_the_deeper(name: str) -> None:
    """From none to what the name says, or to a tenth, in equal steps; both branches of a layer."""
    variant = VARIANTS[name]
    with torch.device("meta"):
        network = InsightVit(variant, 8, 0.0)
    rates = [part.rate for part in network.modules() if isinstance(part, DropPath)]
    last = 0.05 if "dp005" in name else 0.1
    steps = torch.linspace(0, last, variant.depth).repeat_interleave(2)
    assert rates == pytest.approx(steps.tolist(), abs=1e-7)


def test_what_is_random_follows_from_the_generator_of_torch_alone() -> None:
    network = InsightVit(SMALL._replace(drop_path=0.5), 8, 0.0).train()
    x, seen = images(), []
    for seed in (5, 6, 5):
        torch.manual_seed(seed)
        seen.append(network(x))
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])
