"""States and networks of arcface_torch, written out in functions; no test itself."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F

BLOCKS = {"r18": (2, 2, 2, 2), "r50": (3, 4, 14, 3)}


def put_norm(state, name, width):
    """A batch normalisation."""
    state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width)
    state[f"{name}.bias"] = 0.1 * torch.randn(width)
    state[f"{name}.running_mean"] = 0.1 * torch.randn(width)
    state[f"{name}.running_var"] = 0.5 + torch.rand(width)
    state[f"{name}.num_batches_tracked"] = torch.tensor(7)


def put_conv(state, name, inputs, outputs, side):
    """A convolution without bias of ``inputs`` channels a group."""
    state[f"{name}.weight"] = torch.randn(outputs, inputs, side, side) / (inputs * side) ** 0.5


def state_of(blocks, dim=32):
    """Random weights and statistics under the names of arcface_torch's iresnet.py."""
    torch.manual_seed(3)
    state = {}
    norm, conv = partial(put_norm, state), partial(put_conv, state)
    conv("conv1", 3, 64, 3)
    norm("bn1", 64)
    state["prelu.weight"] = 0.3 * torch.rand(64)
    inputs = 64
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512), blocks, strict=True), 1):
        for number in range(count):
            at = f"layer{stage}.{number}"
            norm(f"{at}.bn1", inputs)
            conv(f"{at}.conv1", inputs, width, 3)
            norm(f"{at}.bn2", width)
            state[f"{at}.prelu.weight"] = 0.3 * torch.rand(width)
            conv(f"{at}.conv2", width, width, 3)
            norm(f"{at}.bn3", width)
            if number == 0:
                conv(f"{at}.downsample.0", inputs, width, 1)
                norm(f"{at}.downsample.1", width)
            inputs = width
    norm("bn2", 512)
    state["fc.weight"] = torch.randn(dim, 512 * 49) / 100
    state["fc.bias"] = torch.randn(dim)
    norm("features", dim)
    state["features.weight"] = torch.ones(dim)
    return state


def by_hand(state, blocks, x):
    """Embeddings as that network computes them."""

    def norm(name, x):
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var")]
        return F.batch_norm(x, *parts, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

    def conv(name, x, stride=1):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = F.prelu(norm("bn1", conv("conv1", x)), state["prelu.weight"])
    for stage, count in enumerate(blocks, 1):
        for number in range(count):
            at, stride = f"layer{stage}.{number}", 2 if number == 0 else 1
            y = norm(f"{at}.bn2", conv(f"{at}.conv1", norm(f"{at}.bn1", x)))
            y = F.prelu(y, state[f"{at}.prelu.weight"])
            y = norm(f"{at}.bn3", conv(f"{at}.conv2", y, stride))
            if number == 0:
                x = norm(f"{at}.downsample.1", conv(f"{at}.downsample.0", x, stride))
            x = x + y
    x = F.linear(norm("bn2", x).flatten(1), state["fc.weight"], state["fc.bias"])
    return norm("features", x)


def head_of(people, dim=32):
    """The weight of a head over all ranks, (people, dim)."""
    return torch.randn(people, dim, generator=torch.Generator().manual_seed(5)) / 100


def logits_by_hand(state, head, blocks, x):
    """What its PartialFC_V2 makes of the embeddings, without a margin, times its scale of 64."""
    return 64 * F.linear(F.normalize(by_hand(state, blocks, x)), F.normalize(head))
