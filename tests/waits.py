"""What makes a GPU's host wait: seen on any machine, by operators' names.

Owns: which operators those are. Does not know: steps, lessons.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "allclose")


class Waits(TorchDispatchMode):
    """Names operators that wait, or whose shapes depend on values; those on token ids, which stay on the host, aside.

    Attributes:
        found: their names, in order.
    """

    def __init__(self, *, ids: bool = False) -> None:
        """`ids`: token ids are on the device, too."""
        super().__init__()
        self.found: list[str] = []
        self._ids = ids

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        first = args[0] if args else None
        on_host = not self._ids and isinstance(first, Tensor) and first.dtype == torch.int64
        if not on_host and name.startswith(WAITS):
            self.found.append(name)
        return func(*args, **(kwargs or {}))
