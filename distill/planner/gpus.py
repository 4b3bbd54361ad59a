"""Peak figures of GPUs, from their makers' data sheets; what they reach is another matter."""

from __future__ import annotations

from dataclasses import dataclass

from distill.errors import UserError


@dataclass(frozen=True)
class Gpu:
    """A GPU and its place among others; rates are peaks.

    Attributes:
        name: as on the command line.
        memory_gib: memory.
        half_tflops: bf16 and fp16 matrix products, dense.
        single_tflops: float32 without tensor cores, which is torch's default.
        memory_gb_s: to its memory.
        node_gb_s: to the other GPUs of its node, in one direction.
        network_gb_s: to other nodes, in one direction, for each GPU.
        source: where the figures come from.
    """

    name: str
    memory_gib: float
    half_tflops: float
    single_tflops: float
    memory_gb_s: float
    node_gb_s: float
    network_gb_s: float
    source: str


_NDR = "network: 400 Gb/s a GPU (ConnectX-7, NVIDIA DGX H100 data sheet)"
_HDR = "network: 200 Gb/s a GPU (ConnectX-6, NVIDIA DGX A100 data sheet)"
GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("h100", 80, 989, 67, 3350, 450, 50, f"NVIDIA H100 data sheet, SXM; {_NDR}"),
        Gpu("h200", 141, 989, 67, 4800, 450, 50, f"NVIDIA H200 data sheet, SXM; {_NDR}"),
        Gpu("a100", 80, 312, 19.5, 2039, 300, 25, f"NVIDIA A100 data sheet, SXM 80 GB; {_HDR}"),
        Gpu("a100-40", 40, 312, 19.5, 1555, 300, 25, f"NVIDIA A100 data sheet, 40 GB; {_HDR}"),
        Gpu("l40s", 48, 362, 91.6, 864, 32, 25, "NVIDIA L40S data sheet, PCIe 4.0 x16; " + _HDR),
    )
}
"""By name. Products in bf16 with sparsity are twice as fast on paper, and not meant here."""


def gpu_named(name: str) -> Gpu:
    """The GPU of that name.

    Raises:
        UserError: there is none.
    """
    if name not in GPUS:
        raise UserError(
            f"--gpu {name}: not known",
            fix=f"choose one of {', '.join(GPUS)}, and change its figures with --tflops,"
            " --hbm-gb-s, --network-gb-s and --gpu-gib",
        )
    return GPUS[name]
