"""What every low-rank product of an adapter has in common, on linear layers and on experts.

Owns: the sum over tokens that is the gradient of A or of B. Does not know: layers, experts, autograd.
Units: tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..memory.sizes import LORA_ROWS
from .loss import SUMS_WIDE


def gathered(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left.T @ right, (m, n), summed up over all tokens in `dtype`."""
    if left.dtype == dtype:
        return left.T @ right
    if left.device.type == "cuda" and SUMS_WIDE:
        return torch.mm(left.T, right, out_dtype=dtype)
    total = torch.zeros(left.shape[1], right.shape[1], dtype=dtype, device=left.device)
    for start in range(0, len(left), LORA_ROWS):  # so that no wide copy of a whole window exists
        rows = slice(start, start + LORA_ROWS)
        total.addmm_(left[rows].T.to(dtype), right[rows].to(dtype))
    return total
