"""Which implementation of the pair loss runs; never a silent fallback for an explicit choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from distill.errors import UserError
from distill.gpus import BUILD_LOSS
from distill.losses.fused import LIBRARY, build_info, native_devices
from distill.losses.spec import Implementation

if TYPE_CHECKING:
    from distill.config import Config

PLAIN_ON_GPU = (
    "loss.implementation = 'auto': plain torch on GPUs, which takes more time and memory, since the"
    f" native pair loss is not built for CUDA here; {BUILD_LOSS}"
)


@dataclass(frozen=True)
class ImplementationInfo:
    """What can compute the pair loss here; for `doctor`, the log of a run and bug reports.

    Attributes:
        library: path of the native extension, empty where it is not built.
        native_devices: device types that it serves.
        cpu_instructions: vector instructions that its CPU path takes on this machine.
        build: how it was built (compiler, torch, CUDA architectures), one line.
        torch: version of torch that runs now.
    """

    library: str
    native_devices: tuple[str, ...]
    cpu_instructions: str
    build: str
    torch: str

    def summary(self) -> str:
        """One line for a log."""
        if not self.native_devices:
            return f"pair loss: reference (plain torch {self.torch}); the native op is not built"
        devices = " and ".join(self.native_devices)
        return f"pair loss: native for {devices} ({self.cpu_instructions}); {self.build}"


def implementation_name(
    choice: Implementation = "auto", device_type: str = "cpu"
) -> Literal["native", "reference"]:
    """What runs for logits on ``device_type``.

    Raises:
        UserError: an unknown choice, or ``native`` where it is not built for the device.
    """
    if choice not in ("auto", "native", "reference"):
        raise UserError(
            f"loss.implementation = {choice!r}: unknown",
            fix="choose one of auto, native, reference",
        )
    if choice == "reference":
        return "reference"
    if device_type in native_devices():
        return "native"
    if choice == "native":
        raise _cannot_serve(device_type)
    return "reference"


# What torch.compiler.assume_constant_result sets; calling that imports torch._dynamo, which takes
# as long as torch itself, in every program, also in those that compile nothing.
implementation_name._dynamo_marked_constant = True  # type: ignore[attr-defined]


def planned_name(choice: Implementation, device_type: str) -> Literal["native", "reference"]:
    """What will run on ``device_type``, which this machine may be without.

    A run on GPUs is taken to be made in this environment, such as that of a login node; only where
    torch here is built for the CPU alone, in another, with the native op if it is built here.

    Raises:
        UserError: see `implementation_name`.
    """
    built: bool = torch.backends.cuda.is_built()  # type: ignore[no-untyped-call]
    elsewhere = device_type == "cuda" and not built
    return implementation_name(choice, "cpu" if elsewhere else device_type)


def plain_on_gpu(config: Config, device_type: str) -> str:
    """Why the pair loss will be plain torch on a GPU where nobody asked for that; else empty."""
    choice = config.loss.implementation
    none = config.train.images == "first" and config.loss.form == "plain"
    if device_type != "cuda" or choice != "auto" or none:
        return ""
    return "" if planned_name(choice, device_type) == "native" else PLAIN_ON_GPU


def _cannot_serve(device_type: str) -> UserError:
    if not native_devices():
        return UserError(
            "loss.implementation = 'native': the native op is not built",
            fix="run `pip install -e . --no-build-isolation --no-deps`, or choose 'auto'",
        )
    return UserError(
        f"loss.implementation = 'native': built for {', '.join(native_devices())}, "
        f"the logits are on {device_type}",
        fix=f"{BUILD_LOSS}, or choose 'auto'",
    )


def implementation_info() -> ImplementationInfo:
    """What is built here, for which devices."""
    devices = native_devices()
    instructions, build = build_info()
    return ImplementationInfo(
        library=str(LIBRARY) if devices else "",
        native_devices=devices,
        cpu_instructions=instructions,
        build=build,
        torch=torch.__version__,
    )
