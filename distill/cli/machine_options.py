"""What the command line may say of the machine that a run is planned for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from distill.planner.clock import Machine
    from distill.planner.gpus import Gpu


@dataclass(frozen=True)
class GpuWords:
    """A GPU that is known by name, what is otherwise, and how many stand together."""

    gpu: Annotated[str, typer.Option(help="h100, h200, a100, a100-40 or l40s.")] = "h100"
    gpu_gib: Annotated[
        float | None, typer.Option(min=0.1, help="Its memory, GiB.", show_default="by --gpu")
    ] = None
    tflops: Annotated[
        float | None,
        typer.Option(min=0.1, help="Its peak in the run's precision.", show_default="by --gpu"),
    ] = None
    hbm_gb_s: Annotated[
        float | None, typer.Option(min=1, help="To its memory, GB/s.", show_default="by --gpu")
    ] = None
    network_gb_s: Annotated[
        float | None,
        typer.Option(min=0.01, help="Between nodes, GB/s a GPU.", show_default="by --gpu"),
    ] = None
    ranks_per_node: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = 8

    def described(self, precision: str) -> Gpu:
        """The GPU, of which ``tflops`` is the peak in ``precision``.

        Raises:
            UserError: its name is not known.
        """
        from distill.planner.gpus import gpu_named

        known = gpu_named(self.gpu)
        half = precision != "fp32"
        return replace(
            known,
            memory_gib=self.gpu_gib or known.memory_gib,
            half_tflops=self.tflops if self.tflops and half else known.half_tflops,
            single_tflops=self.tflops if self.tflops and not half else known.single_tflops,
            memory_gb_s=self.hbm_gb_s or known.memory_gb_s,
            network_gb_s=self.network_gb_s or known.network_gb_s,
        )


@dataclass(frozen=True)
class ShareWords:
    """What is reached of the peaks, and what is left free."""

    arithmetic_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of the peak that products reach.")
    ] = 0.5
    memory_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of the peak that its memory reaches.")
    ] = 0.75
    network_share: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Of the peak that the network reaches.")
    ] = 0.75
    headroom: Annotated[
        float,
        typer.Option(min=0.0, max=0.9, help="Share of the memory for what is no tensor."),
    ] = 0.1


def machine(gpu: GpuWords, shares: ShareWords, precision: str) -> Machine:
    """The machine for a run in ``precision``.

    Raises:
        UserError: the name of the GPU is not known.
    """
    from distill.planner.clock import Machine

    return Machine(
        gpu=gpu.described(precision),
        ranks_per_node=gpu.ranks_per_node,
        arithmetic=shares.arithmetic_share,
        memory=shares.memory_share,
        network=shares.network_share,
        headroom=shares.headroom,
    )
