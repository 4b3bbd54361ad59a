"""Compiled backbones: the same network, one graph of it, and clear words where it cannot be."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch._inductor import config, cpp_builder
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from distill.config import Config, load_config
from distill.errors import UserError
from distill.models import build_backbone, build_classifier
from distill.models.classifier import build_for_training
from distill.models.compiled import check_compiled, compile_backbone, uncompiled
from distill.models.recompute import recompute_blocks
from distill.ranks import Ranks

CPU = torch.device("cpu")
ALONE = Ranks(0, 1, 0, 1, CPU)
STEPS = 4


@pytest.fixture(autouse=True)
def _afresh(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """No graph of other tests, and a cache that all tests of this file share."""
    cache = tmp_path_factory.getbasetemp() / "compiled"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


class Speck(nn.Module):
    """What compilers treat in ways of their own: batch norm, slopes, dropout; few kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.norm = nn.Linear(6, 4), nn.BatchNorm1d(4)
        self.act, self.drop = nn.PReLU(4), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 6) to (N, 8): four numbers, and what dropout leaves of them."""
        found = self.act(self.norm(self.lower(x)))
        return torch.cat((found, self.drop(found)), 1)


def settings(*words: str) -> Config:
    return load_config(None, ["model.name=tiny", "model.embedding_dim=8", *words])


def trained(network: nn.Module, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Outputs of some steps, and what they leave behind."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    draw, seen = torch.Generator().manual_seed(1), []
    for step in range(STEPS):
        inputs = torch.randn(shape, generator=draw)
        torch.manual_seed(step)
        out = network(inputs)
        (out[:, :4] - 1.0).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(out.detach().clone())
    return [*seen, *(t.clone() for t in network.state_dict().values())]


def graphs() -> int:
    """Compiled since the test began."""
    return int(counters["stats"]["unique_graphs"])


@pytest.mark.parametrize(
    ("name", "recompute"),
    [
        *(("tiny", True), ("mobile", False), ("iresnet18", True), ("vit_small", False)),
        ("insight_vit_t", True),
    ],
)
def test_a_backbone_is_one_graph(name: str, recompute: bool) -> None:
    network = build_backbone(name, embedding_dim=8, dropout=0.3).train()
    names = list(network.state_dict())
    if recompute:
        recompute_blocks(network, name)
    compile_backbone(network)
    assert list(network.state_dict()) == names
    with torch.compiler.set_stance("default", force_backend="eager"):
        network(torch.randn(2, 3, 112, 112))
    assert (graphs(), dict(counters["graph_break"])) == (1, {})


@pytest.mark.parametrize("recompute", [False, True])
def test_derivatives_and_statistics_are_those_of_the_network(recompute: bool) -> None:
    network = build_backbone("tiny", embedding_dim=8, dropout=0.3).train()
    compiled, shape = copy.deepcopy(network), (2, 3, 112, 112)
    if recompute:
        recompute_blocks(compiled, "tiny")
    compile_backbone(compiled)
    with torch.compiler.set_stance("default", force_backend="aot_eager"):
        found = trained(compiled, shape)
    assert all(torch.equal(*two) for two in zip(found, trained(network, shape), strict=True))
    assert graphs() == 1


def test_compiled_training_is_the_plain_one_but_for_rounding_and_its_own_dropout() -> None:
    network = Speck().train()
    compiled, start = copy.deepcopy(network), copy.deepcopy(network.state_dict())
    compile_backbone(compiled)
    found = trained(compiled, (6, 6))
    compiled.load_state_dict(start)
    assert all(torch.equal(*two) for two in zip(trained(compiled, (6, 6)), found, strict=True))
    assert graphs() == 1
    expected = trained(network, (6, 6))
    assert not all(torch.equal(*two) for two in zip(found, expected, strict=True))
    for one, other in zip(found[:STEPS], expected[:STEPS], strict=True):
        torch.testing.assert_close(one[:, :4], other[:, :4], rtol=1e-4, atol=1e-5)
        dropped = one[:, 4:] == 0.0
        assert dropped.any()
        torch.testing.assert_close(one[:, 4:], 2.0 * one[:, :4] * ~dropped)
    for one, other in zip(found[STEPS:], expected[STEPS:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_training_is_asked_for_it_and_nothing_else(placement: str) -> None:
    wanted = settings("model.compile=true", f"head.placement={placement}")
    plain = settings(f"head.placement={placement}")
    networks = [build_for_training(one, 4, ALONE)[0] for one in (wanted, plain)]
    images = torch.randn(2, 3, 112, 112)
    with torch.compiler.set_stance("default", force_backend="eager"):
        for network in (*networks[1:], build_classifier(wanted, 4)):
            network(images)
        assert graphs() == 0
        networks[0](images)
        assert graphs() == 1
        with uncompiled():
            networks[0].eval()(images[:1])
        assert graphs() == 1


def test_a_machine_that_can_compile_passes() -> None:
    check_compiled(settings("model.compile=true"), CPU)
    assert graphs() == 1


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config.cpp, "cxx", (None, "/no/such/compiler"))
    cpp_builder.cpp_compiler_search.cache_clear()
    try:
        with pytest.raises(UserError, match=r"model\.compile = true: .*/no/such/compiler") as error:
            check_compiled(settings("model.compile=true"), CPU)
        check_compiled(settings(), CPU)
    finally:
        cpp_builder.cpp_compiler_search.cache_clear()
    assert "C++ compiler" in error.value.fix
    assert "set model.compile to false" in error.value.fix


def test_without_room_for_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"model\.compile = true: .*Not a directory") as error:
        check_compiled(settings("model.compile=true"), CPU)
    assert "TORCHINDUCTOR_CACHE_DIR" in error.value.fix


@pytest.mark.parametrize("mode", [0o777, 0o720, None])
def test_code_of_others_is_not_run(
    mode: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = Path(default_cache_dir())
    if mode is None:
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        folder.chmod(mode)
    with pytest.raises(UserError, match=r"model\.compile = true: others may write") as error:
        check_compiled(settings("model.compile=true"), CPU)
    assert "TORCHINDUCTOR_CACHE_DIR" in error.value.fix


def test_fully_sharded_weights_are_refused() -> None:
    words = "model.compile=true", "train.zero_stage=3"
    with pytest.raises(UserError, match=r"model\.compile = true: not with train\.zero_stage = 3"):
        check_compiled(settings(*words), CPU)
    check_compiled(settings(words[1]), CPU)
