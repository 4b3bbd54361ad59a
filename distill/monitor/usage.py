"""How fast a run goes, how long it waits for data, how much memory it holds."""

from __future__ import annotations

import resource
import time

import torch

_RSS_UNIT = 1024  # Linux counts in KiB


class Pace:
    """Speed over the steps since the last reading.

    Args:
        images_per_step: images of one optimizer step over all ranks.
    """

    def __init__(self, images_per_step: int) -> None:
        self._images_per_step = images_per_step
        self._steps = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def step(self, waited_seconds: float) -> None:
        """Count one step, which waited so long for its data."""
        self._steps += 1
        self._waited += waited_seconds

    def read(self) -> dict[str, float]:
        """Scalars of the interval that ends now; the next one begins."""
        now = time.perf_counter()
        seconds, steps = max(now - self._since, 1e-9), max(self._steps, 1)
        scalars = {
            "speed/images_per_second": self._images_per_step * self._steps / seconds,
            "speed/seconds_per_step": seconds / steps,
            "speed/data_wait_seconds_per_step": self._waited / steps,
            "speed/data_wait_share": min(1.0, self._waited / seconds),
        }
        self.restart()
        return scalars

    def restart(self) -> None:
        """Begin a new interval, so that an evaluation or a save does not count as slow steps."""
        self._steps, self._waited, self._since = 0, 0.0, time.perf_counter()


def memory(device: torch.device) -> dict[str, float]:
    """Largest memory so far, in bytes: of this process, and of torch on its CUDA device."""
    peak_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT
    scalars = {"memory/peak_rss_bytes": float(peak_rss)}
    if device.type == "cuda":
        scalars["memory/cuda_peak_bytes"] = float(torch.cuda.max_memory_allocated(device))
    return scalars
