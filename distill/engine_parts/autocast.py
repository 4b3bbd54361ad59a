"""The model as DeepSpeed sees it: float32 outside, lower precision arithmetic inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""By `train.precision`; a precision that is not here is computed without autocast."""


class Autocast(nn.Module):
    """``module`` under torch's autocast for ``precision`` ("fp32": plain).

    A module, because DeepSpeed switches off any autocast around the module it calls.
    """

    def __init__(self, module: nn.Module, device: torch.device, precision: str) -> None:
        super().__init__()
        self.module = module
        self._device_type = device.type
        self._dtype = AUTOCAST_DTYPES.get(precision)

    def forward(self, *inputs: Any) -> Any:
        """What ``module`` says of ``inputs``."""
        with torch.autocast(self._device_type, self._dtype, enabled=self._dtype is not None):
            return self.module(*inputs)
