"""What a step (`step.py`) multiplies rows with: a linear layer's weights, kept or packed, and an adapter beside them.

Owns: the products of a few rows, those with the same rows side by side; which way each of them goes.
Does not know: blocks, texts, captures.
Units: rows (n, K) -> (n, N).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..machine.device import Device
from . import kernels, rows
from .kernels import Choices, Form, Kind

MEASURED = 16  # lines of a kind, of which products are timed: more weights than a GPU's caches hold


class Line:
    """One linear layer for rows: y = x W^T + b + s (x A^T) B^T.

    Attributes:
        forms: how our own kernel computes that many rows, where it does (`kernels.py`).
    """

    def __init__(self, layer: nn.Linear, lora: tuple[Tensor, Tensor, float] | None, *, fused: bool = False) -> None:
        """`lora`: A^T (K, r), B^T (r, N) and s; None without an adapter. `fused`: x A^T by our own kernel."""
        self.bias = layer.bias
        self.weight: Tensor | None = None
        self.state = getattr(layer.weight, "quant_state", None)
        self.packed = layer.weight.data.t()
        kept: Tensor | None = getattr(layer, "dequantized", None)
        if kept is not None:
            self.weight = kept.T
        elif self.state is None:
            self.weight = layer.weight.T
        self.lora = lora
        self.fused = fused
        self.forms: dict[int, Form] = {}

    def use(self, form: Form | None, rows: int) -> None:
        """From now on so many rows are computed by our kernel in that form, or in the usual way."""
        self.forms.pop(rows, None)
        if form is not None:
            self.forms[rows] = form

    def __call__(self, x: Tensor, low: Tensor | None = None) -> Tensor:
        """(n, N) of rows (n, K). `low`: (n, r), x A^T where it is there already."""
        if low is None and self.lora is not None:
            low = _low(x, self.lora[0], self.fused)
        form = self.forms.get(len(x)) if self.forms else None
        if form is not None:
            return kernels.product(x, self.packed.t(), self.state, self.bias, self.lora, form, low)
        if self.weight is None:
            from bitsandbytes import matmul_4bit

            out: Tensor = matmul_4bit(x, self.packed, quant_state=self.state, bias=self.bias)
        elif self.bias is None:
            out = torch.mm(x, self.weight)
        else:
            out = torch.addmm(self.bias, x, self.weight)
        if low is not None:
            assert self.lora is not None
            out.addmm_(low, self.lora[1], alpha=self.lora[2])
        return out


@dataclass(frozen=True)
class Together:
    """Lines that multiply the same rows.

    Attributes:
        a: (K, r of all), their A^T side by side, where they lie so: a small product costs a GPU what a larger one does.
    """

    lines: Sequence[Line]
    a: Tensor | None = None

    def __call__(self, x: Tensor) -> list[Tensor]:
        """(n, N) of each."""
        if self.a is None:
            return [line(x) for line in self.lines]
        ranks = [0 if line.lora is None else line.lora[0].shape[1] for line in self.lines]
        lows = _low(x, self.a, self.lines[0].fused).split_with_sizes(ranks, 1)
        return [line(x, low) for line, low in zip(self.lines, lows, strict=True)]


def _low(x: Tensor, a: Tensor, fused: bool) -> Tensor:
    """(n, r) of rows (n, K) times A^T (K, r)."""
    return rows.times_a(x, a.T) if fused else torch.mm(x, a)


def settle(lines: Iterable[Line], rows: int, choices: Choices, device: Device) -> None:
    """Decides how each line computes that many rows, by the time that lines of its kind take: a row reads a quarter of
    what a copy of the weights holds, so our kernel is tried where there are copies, too.
    """
    alike: dict[Kind, list[Line]] = {}
    for line in lines:
        state: Any = line.state
        if kernels.takes(state):
            outputs, inputs = state.shape
            kind = Kind(outputs, inputs, rows, adapter=line.lora is not None, copied=line.weight is not None)
            alike.setdefault(kind, []).append(line)
    for kind, found in alike.items():
        noise = torch.randn(rows, kind.inputs, generator=torch.Generator().manual_seed(0))  # as states after a norm
        way = partial(_computed, found[:MEASURED], noise.to(device.name, device.torch_dtype))
        timed = partial(choices.timed, kind)
        measure = partial(kernels.choose, partial(way, None), way, failed=choices.failed, timed=timed)
        form = choices.of(kind, measure)
        for line in found:
            line.use(form, rows)


def _computed(lines: Sequence[Line], x: Tensor, form: Form | None) -> list[Tensor]:
    """The lines' products with x (n, K), by our kernel in that form or in the usual way."""
    for line in lines:
        line.use(form, len(x))
    return [line(x) for line in lines]
