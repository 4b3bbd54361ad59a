"""Training on W ranks with DeepSpeed's ZeRO; the only file that imports deepspeed.

    engine = Engine.create(model, config, ranks)
    engine.set_lr(lr)
    for each of `train.accumulation` micro-batches:
        output = engine.forward(images)
        engine.backward(loss)
        info = engine.step()          # None until the last micro-batch

What DeepSpeed leaves open is settled here, alike for the stages 0 to 3: gradients are means over
the global batch, the norm is that of all parameters, a non-finite loss or gradient on any rank
skips the step on all of them and leaves no trace in weights, moments or running statistics. A
class-sharded head stands beside DeepSpeed (engine_parts/head.py) and shares those decisions.

Mixed precision is torch's autocast around the forward pass; to DeepSpeed the model is float32.
Its own bf16 and fp16 modes would cast the batch-norm statistics as well, and give every stage
another optimizer class with other rules for non-finite gradients.
"""

# over 300 lines: the only file that imports deepspeed, and all that the rest sees of it

from __future__ import annotations

import copy
import logging
import math
import warnings
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
import torch.distributed as dist
from torch import nn

from distill.engine_parts.autocast import Autocast
from distill.engine_parts.buffers import SharedBuffers
from distill.engine_parts.compiling import nothing_compiled
from distill.engine_parts.fragments import spread_weights, where_parameters_lie
from distill.engine_parts.head import HeadTrainer
from distill.engine_parts.joint_norm import clip_factor, joint_norm, take_norm
from distill.engine_parts.loss_scale import LossScale
from distill.engine_parts.optimizer import (
    build_optimizer,
    get_updates,
    moments_of,
    set_lr,
    set_updates,
    state_of,
)
from distill.engine_parts.settings import check_precision, deepspeed_settings
from distill.models.classifier import ShardedClassifier
from distill.models.compiled import uncompiled
from distill.processes.variables import variable
from distill.ranks import init_process_group

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from distill.config.tree import Config
    from distill.engine_parts.fragments import Fragment
    from distill.heads import ShardedHead
    from distill.ranks import Ranks

_QUIET = logging.ERROR


class StepInfo(NamedTuple):
    """What happened in one optimizer step.

    Attributes:
        grad_norm: 2-norm of the gradient over all parameters before clipping; not finite where
            the step was skipped.
        lr: learning rate of the step.
        skipped: whether the step was left out, on all ranks, because a loss or a gradient was not
            finite on one of them.
        scale_fell: whether the next step has a smaller loss scale for it (fp16).
    """

    grad_norm: float
    lr: float
    skipped: bool
    scale_fell: bool


class Engine:
    """A model, its optimizer and the ranks that train it together; made by `create`."""

    def __init__(
        self, module: nn.Module, config: Config, ranks: Ranks, head: ShardedHead | None = None
    ) -> None:
        check_precision(config, ranks.device)
        assert all(p.requires_grad for p in module.parameters()), "frozen parameters"
        self.module = module.to(ranks.device)
        self.ranks = ranks
        self.zero_stage = config.train.zero_stage
        self.moments = moments_of(config.optimizer)
        self.shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        self._clip_norm = config.optimizer.clip_norm
        self._clip_head = config.optimizer.clip_head
        self._compiled = config.model.compile
        self._scale = LossScale.for_precision(config.train.precision)
        self.head = self._trainer_of(head, config) if head is not None else None
        self._optimizer = build_optimizer(self.module, config.optimizer)
        self._scale.unscale_before_steps_of(self._optimizer)
        self._template = copy.deepcopy(module).to("meta") if self.zero_stage == 3 else None
        self._engine = self._initialize(config)
        self._parameters = list(self.module.parameters())
        self._buffers = SharedBuffers(self.module, ranks.world_size)
        self._held = list(
            where_parameters_lie(module, self._engine.optimizer, self.zero_stage, ranks.rank)
        )

    def _trainer_of(self, head: ShardedHead, config: Config) -> HeadTrainer:
        trainer = HeadTrainer(head.to(self.ranks.device), config.optimizer, self._scale)
        self.shapes |= trainer.shapes
        return trainer

    @classmethod
    def create(
        cls, model: nn.Module, config: Config, ranks: Ranks, head: ShardedHead | None = None
    ) -> Self:
        """Shard ``model`` over ``ranks`` and make its optimizer; all ranks must call it.

        ``model`` is float32 with equal shapes on all ranks, and is taken over: rank 0's weights
        are the ones that count. ``head`` is this rank's part of a head that is not in ``model``.

        Raises:
            UserError: the global batch does not divide, or fp16 is asked of a CPU.
        """
        if not dist.is_initialized():
            init_process_group(config, ranks)
        return cls(model, config, ranks, head)

    def _initialize(self, config: Config) -> Any:
        settings = deepspeed_settings(
            config,
            elements=sum(p.numel() for p in self.module.parameters()),
            world_size=self.ranks.world_size,
            device=self.ranks.device,
        )
        with self._named_device(), nothing_compiled():
            deepspeed = _import_deepspeed(self.ranks)
            engine, *_ = deepspeed.initialize(
                model=Autocast(self.module, self.ranks.device, config.train.precision),
                optimizer=self._optimizer,
                dist_init_required=False,
                config=settings,
            )
        if not self.zero_stage and self.ranks.world_size == 1:
            engine.enable_backward_allreduce = False  # two copies of all gradients, for nobody
        if self.zero_stage:
            beside = None if self.head is None else self._norm_of_head
            take_norm(engine.optimizer, self.zero_stage, beside)
        return engine

    def _norm_of_head(self) -> torch.Tensor:
        """What the head adds to the norm; a collective.

        Where it is not clipped, 0 or NaN: whether it is finite still decides for all.
        """
        assert self.head is not None, "asked for where there is one"
        norm = self.head.gradient_norm()
        return norm if self._clip_head else 0.0 * norm

    def _named_device(self) -> AbstractContextManager[None]:
        """A block in which LOCAL_RANK says what DeepSpeed takes it for: the index of our device.

        Whoever started the ranks may mean something else by it (Slurm can show each one device
        only), and a process that nobody made a rank must not look like one afterwards.
        """
        return variable("LOCAL_RANK", str(self.ranks.device.index or 0))

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return self.ranks.device

    def set_lr(self, lr: float) -> None:
        """Learning rate of the next step."""
        set_lr(self._optimizer, lr)
        if self.head is not None:
            self.head.set_lr(lr)

    def forward(self, *inputs: Any) -> Any:
        """What the network says of (N, 3, 112, 112) images in [-1, 1]; once for each `backward`."""
        with self._named_device():
            return self._engine(*inputs)

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of ``loss``, a scalar mean over the pairs of this micro-batch.

        Division by ranks and accumulation is done here. A non-finite loss turns into NaN
        gradients, which travel to all ranks with the gradients themselves: so all of them skip
        the step without one more collective.
        """
        poison = torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)
        with self._named_device():
            self._engine.backward(loss * (poison * self._scale.scale))

    @property
    def accumulating(self) -> bool:
        """Whether more micro-batches belong to the step at hand (asked after `backward`)."""
        return not self._engine.is_gradient_accumulation_boundary()

    def step(self) -> StepInfo | None:
        """Update the weights, once the last micro-batch of a step went backward; else None."""
        if self.accumulating:
            self._engine.step()
            return None
        with self._named_device():
            norm = self._update()
        skipped = not math.isfinite(norm)
        self._update_head(norm, skipped=skipped)
        scale_fell = self._scale.update(skipped=skipped)
        if skipped:
            self._buffers.restore()
        else:
            self._buffers.share()
        return StepInfo(norm, self._optimizer.param_groups[0]["lr"], skipped, scale_fell)

    def _update_head(self, norm: float, *, skipped: bool) -> None:
        """The part of the update that is not DeepSpeed's."""
        if self.head is None:
            return
        if skipped:
            self.head.drop()
        else:
            scale, limit = self._scale.scale, self._clip_norm if self._clip_head else 0.0
            self.head.update(clip_factor(norm * scale, limit * scale))

    def _update(self) -> float:
        """One optimizer step; its gradient norm before clipping, not finite where skipped."""
        if self.zero_stage == 0:
            return self._update_replicated()
        self._engine.optimizer.clip_grad = self._clip_norm * self._scale.scale
        self._engine.step()
        if not self._engine.was_step_applied():
            return math.inf
        return float(self._engine.get_global_grad_norm()) / self._scale.scale

    def _update_replicated(self) -> float:
        """Stage 0, where DeepSpeed would apply NaN gradients and report no norm."""
        grads = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        if self.head is not None:
            norm = joint_norm(norm, self._norm_of_head())
        value = float(norm) / self._scale.scale
        if not math.isfinite(value):
            self._engine.zero_grad()  # without gradients torch's optimizers do nothing
        elif self._clip_norm:
            limit = self._clip_norm * self._scale.scale
            torch.nn.utils.clip_grads_with_norm_(self._parameters, limit, norm)
        self._engine.step()
        return value

    # What a checkpoint reads and writes (see distill.checkpoint).

    @property
    def replicated(self) -> bool:
        """Whether every rank holds all weights and moments (stage 0, or one rank)."""
        return self.zero_stage == 0 or self.ranks.world_size == 1

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Live buffers, equal on all ranks between steps."""
        return dict(self.module.named_buffers())

    @property
    def class_bounds(self) -> dict[str, tuple[int, ...]]:
        """First row on each rank, and number of rows, of the parameters that stand by classes."""
        head = self.head
        return {} if head is None else dict.fromkeys(head.shapes, head.ranges.bounds)

    def fragments(self, kind: str) -> list[Fragment]:
        """This rank's pieces of all weights (``kind`` "weight") or of one of `moments`."""
        pieces = [held.fragment(kind, self._optimizer, self.moments) for held in self._held]
        return pieces if self.head is None else pieces + self.head.fragments(kind)

    def counters(self) -> dict[str, float]:
        """Updates counted by the optimizer, and the loss scale with its good steps."""
        return {
            "updates": get_updates(self._optimizer, self.moments),
            "loss_scale": self._scale.scale,
            "good_steps": self._scale.good_steps,
        }

    def finish_load(self, counters: dict[str, float]) -> None:
        """After writing all fragments and buffers: spread them to where the network reads them.

        Buffers are equal on all ranks, as they are everywhere but in a step.
        """
        for held in self._held:
            state_of(self._optimizer, held.tensor, self.moments)
        set_updates(self._optimizer, int(counters["updates"]))
        if self.head is not None:
            self.head.finish_load(int(counters["updates"]))
        if self._scale.dynamic:
            self._scale.scale = counters["loss_scale"]
            self._scale.good_steps = int(counters["good_steps"])
        self._buffers.remember()
        spread_weights(self._engine.optimizer, self.zero_stage)

    def weights(self) -> dict[str, torch.Tensor]:
        """Copies of all weights, whole and in float32, on this device; all ranks must call it."""
        parameters = dict(self.module.named_parameters())
        with _gathered(list(parameters.values()), self.zero_stage):
            return {name: p.detach().clone() for name, p in parameters.items()}

    @contextmanager
    def evaluating(self) -> Iterator[Any]:
        """The network in evaluation mode, to be called by each rank as often as it likes.

        Under stage 3 it is a whole copy, since each call of the sharded network is a collective
        and ranks with unequal numbers of batches would wait for each other for ever. The rows of
        a class-sharded head stay where they are, and its answers are a collective.
        All ranks must enter; dropout and running statistics are as before afterwards.
        """
        network = self.module if self._template is None else self._whole_copy(self._template)
        self.module.eval()
        try:
            with torch.no_grad(), uncompiled() if self._compiled else nullcontext():
                yield self._with_head(network).eval()
        finally:
            self.module.train()

    def _with_head(self, network: Any) -> Any:
        return network if self.head is None else ShardedClassifier(network, self.head.head)

    def _whole_copy(self, template: nn.Module) -> nn.Module:
        network = copy.deepcopy(template).to_empty(device=self.device)
        network.load_state_dict(self.weights(), strict=False)
        for target, source in zip(network.buffers(), self.module.buffers(), strict=True):
            target.copy_(source)
        return network


def _import_deepspeed(ranks: Ranks) -> Any:
    """DeepSpeed on the device of ``ranks``, quiet, and without building anything."""
    # Once for each collective of each step: DeepSpeed calls them by the names before torch 2.13.
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
    with variable("DS_ACCELERATOR", ranks.device.type):  # read once, at the import
        import deepspeed

    deepspeed.utils.logger.setLevel(_QUIET)
    # Its shared-memory collectives are compiled at run time wherever a compiler is found.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False
    )
    return deepspeed


@contextmanager
def _gathered(parameters: list[nn.Parameter], stage: int) -> Iterator[None]:
    """A block in which stage 3's parameters are whole on every rank."""
    if stage < 3:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameters):
        yield
