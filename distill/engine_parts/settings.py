"""DeepSpeed's settings, every one that matters written out.

Its defaults are not ours: it clips gradients at 1.0 unless told otherwise, refuses torch's SGD,
logs every ten steps, and reserves reduction buffers of two gigabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distill.errors import UserError

if TYPE_CHECKING:
    import torch

    from distill.config.tree import Config

_BUCKET_ELEMENTS = 50_000_000  # 200 MB of float32: large enough to keep a fast network busy
_NEVER = 2**60


def bucket_elements() -> int:
    """The most elements that a bucket of DeepSpeed holds."""
    return _BUCKET_ELEMENTS


def micro_batch_pairs(config: Config, world_size: int) -> int:
    """Pairs of one forward pass of one rank.

    Raises:
        UserError: the global batch does not divide, or leaves a single image.
    """
    train = config.train
    parts = world_size * train.accumulation
    if train.global_batch_pairs % parts:
        raise UserError(
            f"train.global_batch_pairs = {train.global_batch_pairs}: not divisible by"
            f" {world_size} ranks x train.accumulation = {train.accumulation}",
            fix=f"set it to a multiple of {parts}",
        )
    # Every backbone ends in batch normalisation, and of one image there is no variance.
    if train.global_batch_pairs * train.images_per_pair < 2 * parts:
        raise UserError(
            f"train.global_batch_pairs = {train.global_batch_pairs} with train.images = 'first':"
            f" one image in a forward pass ({world_size} ranks x train.accumulation ="
            f" {train.accumulation}), and batch normalisation needs two",
            fix=f"set it to a larger multiple of {parts}",
        )
    return train.global_batch_pairs // parts


def check_precision(config: Config, device: torch.device) -> None:
    """Refuse fp16 on a CPU.

    Raises:
        UserError: fp16 without CUDA.
    """
    if config.train.precision == "fp16" and device.type == "cpu":
        raise UserError(
            'train.precision = "fp16": needs a CUDA device, and this run is on the CPU',
            fix='set train.precision to "bf16" or "fp32"',
        )


def deepspeed_settings(
    config: Config, *, elements: int, world_size: int, device: torch.device
) -> dict[str, Any]:
    """The configuration dictionary of `deepspeed.initialize`.

    Mixed precision is torch's autocast around the forward pass (see `distill.engine`), so that
    DeepSpeed sees a float32 model: weights, batch-norm statistics and the reduction of gradients
    stay in float32 for every stage.
    """
    stage = config.train.zero_stage
    bucket = min(max(elements, 1), bucket_elements())
    bucket += bucket % 2  # an odd size is refused
    return {
        "train_batch_size": config.train.global_batch_pairs,
        "train_micro_batch_size_per_gpu": micro_batch_pairs(config, world_size),
        "gradient_accumulation_steps": config.train.accumulation,
        # Stage 0 in float32 is clipped by the engine, which knows the norm already.
        "gradient_clipping": config.optimizer.clip_norm if stage else 0.0,
        "steps_per_print": _NEVER,
        "wall_clock_breakdown": False,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "checkpoint": {"tag_validation": "Fail"},
        "fp16": {"enabled": False},
        "bf16": {"enabled": False},
        "communication_data_type": "fp32",
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": device.type == "cuda" and stage >= 2,
            "contiguous_gradients": True,
            "reduce_scatter": True,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
            "stage3_prefetch_bucket_size": bucket,
        },
    }
