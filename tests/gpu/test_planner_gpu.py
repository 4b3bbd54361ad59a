"""The planner against the peak of the allocator on one GPU: real training steps."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from distill.config import load_config
from distill.data.batch import IMAGE_SIZE, PairBatch
from distill.engine import Engine
from distill.models.classifier import build_for_training
from distill.planner.choose import costs_of, job_of
from distill.planner.facts import Choice
from distill.planner.memory import memory_of
from distill.processes.stop import STOP_SIGNALS
from distill.ranks import Ranks, init_process_group, leave_process_group
from distill.step import Recipe, train_step

pytestmark = pytest.mark.gpu
PAIRS, CLASSES = 64, 200_000
COMMON = ["model.name=iresnet18", f"train.global_batch_pairs={PAIRS}", "train.precision=bf16"]
CASES = [
    ["train.zero_stage=0"],
    ["train.zero_stage=1"],
    ["train.zero_stage=3"],
    ["train.zero_stage=0", "loss.form=fused"],
    ["train.zero_stage=1", "head.placement=sharded"],
]


@pytest.mark.parametrize("words", CASES)
def test_the_peak_is_within_ten_percent_of_the_allocators(words: list[str]) -> None:
    config = load_config(None, [*COMMON, *words])
    job = job_of(config, CLASSES, 1)
    choice = Choice(config.train.zero_stage, config.head.placement, config.loss.form)
    predicted = memory_of(job, choice, *costs_of(config, job, choice)).peak_bytes
    # A process of its own: DeepSpeed keeps the group of the first engine for all later ones.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        peak, workspace = pool.submit(peak_of_steps, words).result()
    assert peak - workspace == pytest.approx(predicted, rel=0.10)


def cublas_bytes() -> int:
    """What torch gives cuBLAS to work in, once a product has been made; no part of the plan."""
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    one = torch.ones(64, 64, device="cuda")
    one @ one
    return torch.cuda.memory_allocated() - before - one.nbytes


def peak_of_steps(words: list[str]) -> tuple[int, int]:
    """The most bytes that the allocator gave out in a step, and what of them is cuBLAS's."""
    workspace = cublas_bytes()
    config = load_config(None, [*COMMON, *words])
    device = torch.device("cuda", 0)
    ranks = Ranks(0, 1, 0, 1, device)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    init_process_group(config, ranks)
    try:
        model, head = build_for_training(config, CLASSES, ranks)
        engine = Engine.create(model, config, ranks, head)
        images = torch.zeros(PAIRS, 3, IMAGE_SIZE, IMAGE_SIZE, dtype=torch.uint8, device=device)
        numbers = torch.arange(PAIRS, device=device)
        batch = PairBatch(images, images.clone(), numbers, torch.zeros_like(numbers), numbers)
        recipe = Recipe(config, 10)
        train_step(engine, [batch], recipe, 0, [0.0] * len(STOP_SIGNALS))
        torch.cuda.reset_peak_memory_stats()
        train_step(engine, [batch], recipe, 1, [0.0] * len(STOP_SIGNALS))
        return torch.cuda.max_memory_allocated(), workspace
    finally:
        leave_process_group()
