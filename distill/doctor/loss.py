"""The native pair loss on every device that it was built for and that is here, against plain torch.

`python -m distill.doctor.loss` says how it was built and where it was tried, and leaves with status
0 where its values and gradients are right on all of these, or `SLOW_ON_GPU` where it is right on
the CPU and not built for a GPU that is here.
"""

from __future__ import annotations

import sys

import torch

from distill.doctor.machine import SLOW_ON_GPU
from distill.losses import (
    PairLossAndGrad,
    PairLossSpec,
    implementation_info,
    pair_loss_and_grad,
)
from distill.losses.spec import Implementation

PAIRS, CLASSES = 4, 5000
MOST_APART = 1e-4
"""A loss of about 20, and gradients of at most 1, in float32."""


def main() -> int:
    """Try it wherever it can run."""
    info = implementation_info()
    here = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    devices = [device for device in here if device in info.native_devices]
    for device in devices:
        try_on(device)
    words = [info.summary(), *(f"right on {device}" for device in devices)]
    words += [f"not built for {device}, which is here" for device in here if device not in devices]
    print("; ".join(words))
    if devices and devices != list(here):
        return SLOW_ON_GPU
    return 0 if devices else 1


def try_on(device: str) -> None:
    """One call of the native loss on ``device``.

    Raises:
        RuntimeError: it does not run there, or is not what plain torch computes.
    """
    generator = torch.Generator().manual_seed(0)
    sides = torch.randn(2, PAIRS, CLASSES, generator=generator).to(device)
    labels = torch.arange(PAIRS).to(device)

    def found(implementation: Implementation) -> PairLossAndGrad:
        return pair_loss_and_grad(
            *(*sides, labels),
            temperature=2.0,
            weight=1.0,
            spec=PairLossSpec(),
            implementation=implementation,
        )

    native, plain = found("native"), found("reference")
    pairs = zip((native.loss.total, *native[1:]), (plain.loss.total, *plain[1:]), strict=True)
    apart = max(float((one - other).abs().max()) for one, other in pairs)
    if not apart <= MOST_APART:
        raise RuntimeError(
            f"the native pair loss is wrong on {device}: {apart:.1e} off plain torch"
        )


if __name__ == "__main__":
    sys.exit(main())
