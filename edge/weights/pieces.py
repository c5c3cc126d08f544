"""A model's tensors in pieces: one at a time, and by rows.

Owns: what such a tensor is, the model without weights that names them, reading a file's bytes.
Does not know: file formats, names.
Units: bytes; rows of a tensor's first dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from . import alone, language, libraries

Rows = Callable[[int, int], Tensor]


class Whole(Exception):
    """The model cannot be read in pieces; says why."""


@dataclass(frozen=True)
class Original:
    """One tensor: all of it, or rows from ... to, where it can be had by rows."""

    shape: tuple[int, ...]
    whole: Callable[[], Tensor]
    rows: Rows | None = None

    def blocks(self, numbers: int, multiple: int = 1) -> Iterator[Tensor]:
        """The tensor in order, about `numbers` at a time; each part is flat, and a whole number of `multiple`s but the
        last."""
        width = math.prod(self.shape[1:])
        rows = multiple // math.gcd(multiple, width) if width else 0
        if self.rows is None or not self.shape or not rows:
            flat = self.whole().reshape(-1)
            step = numbers // multiple * multiple
            yield from (flat[start : start + step] for start in range(0, flat.numel(), step))
            return
        step = max(rows, numbers // width // rows * rows)
        for start in range(0, self.shape[0], step):
            yield self.rows(start, min(start + step, self.shape[0])).reshape(-1)

    def row(self, index: int) -> Original:
        """One row of the first dimension, as a tensor of its own: of experts, one expert."""
        rows = self.rows
        assert rows is not None
        return Original(self.shape[1:], lambda: rows(index, index + 1)[0])


def fitting(tensor: Tensor, wanted: Tensor) -> Tensor:
    """The tensor in the type that the model needs.

    Raises:
        ModelError: it has another shape.
    """
    if tensor.shape != wanted.shape:
        raise ModelError(
            f"a tensor is {tuple(tensor.shape)}", f"{tuple(wanted.shape)} as its config says", "another file"
        )
    return tensor.to(wanted.dtype)


def read(path: Path, begin: int, count: int) -> Any:
    """Bytes of a file as a numpy array: read, not mapped, since pages of a mapping count as this process's memory."""
    import numpy as np

    data = np.empty(count, np.uint8)
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        view = memoryview(data.data)
        done = 0
        while done < count:
            got = file.readinto(view[done:])
            if not got:
                raise ModelError(f"{path} is cut short", "a whole file", "copy or download it again")
            done += got
    return data


def skeleton(config: Any, dtype: torch.dtype, remote_code: bool) -> Any:
    """The transformers model of a config on the meta device, its tensors in `dtype` and tied as the config says."""
    with libraries.weightless(), alone.sealed():
        model = language.empty(config, dtype, remote_code)
    model.tie_weights()
    return model
