"""What is known of arcface_torch, the trainer of https://github.com/deepinsight/insightface.

Facts of its `recognition/arcface_torch` (2026-07-27): defaults of `configs/base.py`, networks of
`backbones/__init__.py`, and what `train_v2.py` makes of a setting.
"""

from __future__ import annotations

from typing import Any, NamedTuple

BASE: dict[str, Any] = {
    "margin_list": (1.0, 0.5, 0.0),
    "network": "r50",
    "resume": False,
    "save_all_states": False,
    "output": "ms1mv3_arcface_r50",
    "embedding_size": 512,
    "sample_rate": 1,
    "interclass_filtering_threshold": 0,
    "fp16": False,
    "batch_size": 128,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "verbose": 2000,
    "frequent": 10,
    "dali": False,
    "dali_aug": False,
    "gradient_acc": 1,
    "seed": 2048,
    "num_workers": 2,
    "using_wandb": False,
}
"""Settings that a configuration need not have; those of wandb but for its switch are left out."""

RECOMPUTED = ("vit_b", "vit_b_dp005_mask_005", "vit_l_dp005_mask_005", "vit_h")
"""Networks whose blocks make their activations again."""
_TRANSFORMERS = ("vit_t", "vit_t_dp005_mask0", "vit_s", "vit_s_dp005_mask_0", *RECOMPUTED)
NETWORKS = {
    **{f"r{depth}": f"iresnet{depth}" for depth in (18, 34, 50, 100, 200)},
    **{name: f"insight_{name}" for name in (*_TRANSFORMERS, "mbf", "mbf_large")},
}
"""Its networks and ours that are the same; all but `r2060`."""

SCALE, MOMENTUM, CLIP_NORM, EPS = 64.0, 0.9, 5.0, 1e-8
"""What `train_v2.py` does not ask the configuration for; the last one is torch's default."""


class LeftOut(NamedTuple):
    """A setting without a counterpart.

    Attributes:
        neutral: values that ask for nothing which is not so here anyway; None for any value.
        why: what is so here.
    """

    neutral: tuple[Any, ...] | None
    why: str


_WANDB = LeftOut(None, "of wandb; here TensorBoard and metrics.jsonl follow a run")
LEFT_OUT = {
    "resume": LeftOut(
        (False,), "the same command resumes here, from checkpoints of its own; see model.init_from"
    ),
    "save_all_states": LeftOut(None, "checkpoints are whole here"),
    "num_classes": LeftOut(None, "the pack says it"),
    "num_image": LeftOut(None, "the pack says it"),
    "interclass_filtering_threshold": LeftOut(
        (0,), "cosines of other identities above it count here, and are 0 there"
    ),
    "dali": LeftOut((False,), "FFCV loads the images here"),
    "dali_aug": LeftOut(
        (False,), "its changes of size, sharpness and colour; here data.brightness and its like"
    ),
    "using_wandb": LeftOut((False,), _WANDB.why),
    "wandb_key": _WANDB,
    "wandb_entity": _WANDB,
    "wandb_project": _WANDB,
    "wandb_log_all": _WANDB,
    "wandb_resume": _WANDB,
    "suffix_run_name": _WANDB,
    "save_artifacts": _WANDB,
    "notes": _WANDB,
    "loss": LeftOut((), "of older versions; in this one margin_list says it"),
}
UNKNOWN = LeftOut((), "train_v2.py of arcface_torch does not ask for it")
