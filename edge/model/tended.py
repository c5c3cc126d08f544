"""A forward's blocks, tended: freed heap goes back before each, and activations may be computed again.

Owns: what happens around a block. Does not know: what a block computes, losses, caches.
Units: none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ..machine.allocator import trim
from . import patches
from .base import Base


@contextmanager
def tended_blocks(base: Base, *, checkpointing: bool = False) -> Iterator[None]:
    """Inside the block, on a CPU, freed heap goes back to the system before each transformer block.

    With `checkpointing`, and where gradients are computed, one activation per block is kept and the rest
    recomputed in the backward pass (arXiv 1604.06174), without putting the model into training mode, which would
    switch its own dropout on.
    """
    from torch.utils.checkpoint import checkpoint

    on_cpu = base.device.kind == "cpu"
    if not on_cpu and not checkpointing:
        yield
        return

    def tended(forward: patches.Forward) -> patches.Forward:
        def compute(*args: Any, **kwargs: Any) -> Any:
            if on_cpu:
                trim()
            return forward(*args, **kwargs)

        def run(*args: Any, **kwargs: Any) -> Any:
            if not checkpointing or not torch.is_grad_enabled():
                return compute(*args, **kwargs)
            return checkpoint(compute, *args, use_reentrant=False, preserve_rng_state=True, **kwargs)

        return run

    for block in base.blocks:
        patches.put(block, "tended", tended)
    try:
        yield
    finally:
        for block in base.blocks:
            patches.take(block, "tended")
