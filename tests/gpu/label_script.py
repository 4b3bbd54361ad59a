"""One call with a label out of range, for test_labels_gpu.py: a process loses its device by it.

The device stops as soon as it comes to the assertion; from then on no launch succeeds, and neither
does the first use of a kernel or of cuBLAS. So the same call is made before with labels in range,
and then while the device is kept busy: all of it is queued before the assertion runs, and a call
that waits for the device does not come to the line that is written.
"""

from __future__ import annotations

import sys

import torch

from distill.losses import PairLossSpec, linear_cross_entropy, linear_pair_loss, pair_loss

CLASSES = 37
BUSY_CYCLES = 2_000_000_000
"""About a second. What the largest call launches meanwhile, some 400, fits in the queue of 1024."""


def make(what: str, implementation: str, labels: torch.Tensor) -> None:
    """The loss of features, or scores, that are all 0."""
    x, w = (torch.zeros(rows, CLASSES, device="cuda") for rows in (len(labels), CLASSES))
    more = {"spec": PairLossSpec(), "implementation": implementation}
    if what == "single_images":
        linear_cross_entropy(x, w, labels, **more)
    elif what == "pairs":
        linear_pair_loss(x, x, w, labels, temperature=2.0, similarity_weight=1.0, **more)
    else:
        pair_loss(x, x, labels, temperature=2.0, weight=1.0, **more)


def main(what: str, implementation: str, label: str) -> None:
    # Both before the device is busy: labels that come from the host wait for it.
    inside, outside = (torch.tensor([3, one], device="cuda") for one in (-1, int(label)))
    make(what, implementation, inside)
    torch.cuda.synchronize()
    torch.cuda._sleep(BUSY_CYCLES)
    make(what, implementation, outside)
    print("called", flush=True)
    torch.cuda.synchronize()


if __name__ == "__main__":
    main(*sys.argv[1:])
