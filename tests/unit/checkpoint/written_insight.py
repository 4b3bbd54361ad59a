"""Transformers and mobile networks of arcface_torch, written out in functions; no test itself.

In float64, attention in full; the state says how wide and how deep.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from written_arcface import put_conv, put_norm


def vit_state(width=256, depth=12, dim=32):
    """Random weights and statistics under the names of its vit.py."""
    torch.manual_seed(4)
    state = {
        "pos_embed": 0.5 * torch.randn(1, 144, width),
        "mask_token": torch.randn(1, 1, width),
    }

    def put_linear(name, inputs, outputs, bias=True):
        state[f"{name}.weight"] = torch.randn(outputs, inputs) / inputs**0.5
        if bias:
            state[f"{name}.bias"] = 0.1 * torch.randn(outputs)

    def put_scale(name):
        state[f"{name}.weight"] = 1 + 0.2 * torch.randn(width)
        state[f"{name}.bias"] = 0.1 * torch.randn(width)

    state["patch_embed.proj.weight"] = torch.randn(width, 3, 9, 9) / 15
    state["patch_embed.proj.bias"] = 0.1 * torch.randn(width)
    for block in range(depth):
        at = f"blocks.{block}"
        put_scale(f"{at}.norm1")
        put_scale(f"{at}.norm2")
        put_linear(f"{at}.attn.qkv", width, 3 * width, bias=False)
        put_linear(f"{at}.attn.proj", width, width)
        put_linear(f"{at}.mlp.fc1", width, 4 * width)
        put_linear(f"{at}.mlp.fc2", 4 * width, width)
    put_scale("norm")
    put_linear("feature.0", 144 * width, width, bias=False)
    put_norm(state, "feature.1", width)
    put_linear("feature.2", width, dim, bias=False)
    put_norm(state, "feature.3", dim)
    return state


def vit_by_hand(state, x):
    """Embeddings (N, dim) float64 as that network computes them."""
    state = {name: tensor.double() for name, tensor in state.items()}
    depth = sum(name.endswith("attn.qkv.weight") for name in state)
    width, heads = state["pos_embed"].shape[2], 8

    def scaled(name, x):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", 0.0)

    def normed(name, x):
        mean, variance = (state[f"{name}.running_{kind}"] for kind in ("mean", "var"))
        x = (x - mean) / (variance + 2e-5).sqrt()
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    def attention(name, x):
        parts = linear(f"{name}.qkv", x).split(width, dim=2)
        query, key, value = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in parts)
        scores = torch.einsum("nhqd,nhkd->nhqk", query, key) / (width / heads) ** 0.5
        share = scores.exp() / scores.exp().sum(-1, keepdim=True)
        mixed = torch.einsum("nhqk,nhkd->nqhd", share, value)
        return linear(f"{name}.proj", mixed.flatten(2))

    # twelve patches of 9 x 9 pixels each way, row by row
    patches = x.double()[:, :, :108, :108].unfold(2, 9, 9).unfold(3, 9, 9)
    patches = patches.permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    tokens = patches @ state["patch_embed.proj.weight"].flatten(1).T
    tokens = tokens + state["patch_embed.proj.bias"] + state["pos_embed"]
    for block in range(depth):
        at = f"blocks.{block}"
        tokens = tokens + attention(f"{at}.attn", scaled(f"{at}.norm1", tokens))
        inside = linear(f"{at}.mlp.fc1", scaled(f"{at}.norm2", tokens)).clamp(0, 6)
        tokens = tokens + linear(f"{at}.mlp.fc2", inside)
    x = normed("feature.1", linear("feature.0", scaled("norm", tokens).flatten(1)))
    return normed("feature.3", linear("feature.2", x))


def mbf_layers(width=128):
    """Blocks of its mobilefacenet.py: name, inputs, filtered, outputs, stride, added to inputs."""
    yield "layers.2", width, 128, width, 2, False
    yield from ((f"layers.3.layers.{n}", width, 128, width, 1, True) for n in range(4))
    twice = 2 * width
    yield "layers.4", width, 256, twice, 2, False
    yield from ((f"layers.5.layers.{n}", twice, 256, twice, 1, True) for n in range(6))
    yield "layers.6", twice, 512, twice, 2, False
    yield from ((f"layers.7.layers.{n}", twice, 256, twice, 1, True) for n in range(2))


def mbf_state(dim=32):
    """Random weights and statistics under the names of its mobilefacenet.py, of ``mbf``."""
    torch.manual_seed(6)
    state = {}

    def put_block(name, inputs, outputs, side, groups=1, slopes=True):
        put_conv(state, f"{name}.layers.0", inputs // groups, outputs, side)
        put_norm(state, f"{name}.layers.1", outputs)
        if slopes:
            state[f"{name}.layers.2.weight"] = 0.3 * torch.rand(outputs)

    put_block("layers.0", 3, 128, 3)
    put_block("layers.1", 128, 128, 3, 64)
    for name, inputs, wide, outputs, _, _ in mbf_layers():
        put_block(f"{name}.layers.0", inputs, wide, 1)
        put_block(f"{name}.layers.1", wide, wide, 3, wide)
        put_block(f"{name}.layers.2", wide, outputs, 1, slopes=False)
    put_block("conv_sep", 256, 512, 1)
    put_block("features.layers.0", 512, 512, 7, 512, slopes=False)
    state["features.layers.2.weight"] = torch.randn(dim, 512) / 20
    put_norm(state, "features.layers.3", dim)
    return state


def mbf_by_hand(state, x):
    """Embeddings (N, dim) float64 as that network computes them."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def normed(name, x):
        statistics = (state[f"{name}.running_{kind}"] for kind in ("mean", "var"))
        return F.batch_norm(x, *statistics, state[f"{name}.weight"], state[f"{name}.bias"])

    def block(name, x, stride=1, padding=None):
        weight = state[f"{name}.layers.0.weight"]
        padding = weight.shape[-1] // 2 if padding is None else padding
        groups = x.shape[1] // weight.shape[1]
        x = normed(f"{name}.layers.1", F.conv2d(x, weight, None, stride, padding, 1, groups))
        slopes = state.get(f"{name}.layers.2.weight")
        return x if slopes is None else F.prelu(x, slopes)

    x = block("layers.1", block("layers.0", x.double(), 2))
    for name, _, _, _, stride, added in mbf_layers():
        y = block(f"{name}.layers.1", block(f"{name}.layers.0", x), stride)
        y = block(f"{name}.layers.2", y)
        x = x + y if added else y
    x = block("features.layers.0", block("conv_sep", x), padding=0).flatten(1)
    return normed("features.layers.3", x @ state["features.layers.2.weight"].T)
