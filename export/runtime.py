"""The Forward protocol on ONNX Runtime: an engine's arrays as torch tensors, and the adapter's copies
that the graph reads.

Owns: which A and B the graph reads, and when they are copied again.
Does not know: sessions, bindings (`engine.py`), chunks, learning, sampling.
Units: nats; logits in float32; positions in tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from edge.memory.graph import SLICE, rounded
from edge.model.adapter import Adapter
from edge.model.forward import Cache, TorchForward
from edge.settings import ComputeSettings
from edge.weights.paging import Store

from .cache import lasting
from .engine import AdapterInputs, Engine, Reader
from .manifest import lora_inputs
from .rows import Array


class OnnxForward:
    """The Forward protocol on an export folder's graphs. The adapter stays torch's; the graph reads copies of it."""

    forgets = True

    def __init__(self, engine: Engine, adapter: Adapter | None, slice_size: int = SLICE) -> None:
        """`slice_size`: label positions that meet the head at a time."""
        self.engine = engine
        self.adapter = adapter
        self.reader = Reader(engine, slice_size)
        self._version = -1
        self._copies: dict[str, Any] = {}

    def settle(self, compute: ComputeSettings) -> None:
        """See `Forward.settle`."""
        self.reader.slice_size = min(compute.loss_slice or SLICE, SLICE)

    def nll(self, input_ids: Tensor, labels: int, *, adapter: bool = True) -> Tensor:
        """See `Forward.nll`."""
        return torch.from_numpy(self.reader.nll(_ids(input_ids), labels, self._inputs(adapter)))

    def prefill(self, input_ids: Tensor, *, adapter: bool = True) -> tuple[Tensor, Cache]:
        """See `Forward.prefill`."""
        cache = Cache(self.engine.buffers(rounded(len(input_ids) + 1)))
        return self.extend(input_ids, cache, adapter=adapter), cache

    def extend(self, input_ids: Tensor, cache: Cache, *, adapter: bool = True) -> Tensor:
        """See `Forward.extend`."""
        logits = self.reader.extend(_ids(input_ids), cache.state, cache.length, self._inputs(adapter))
        cache.length += len(input_ids)
        return torch.from_numpy(logits)

    def decode(self, token: int, cache: Cache, *, adapter: bool = True) -> Tensor:
        """See `Forward.decode`."""
        logits = self.reader.decode(token, cache.state, cache.length, self._inputs(adapter))
        cache.length += 1
        return torch.from_numpy(logits)

    def verify(self, input_ids: Tensor, cache: Cache, *, adapter: bool = True) -> Tensor:
        """See `Forward.verify`."""
        logits = self.reader.verify(_ids(input_ids), cache.state, cache.length, self._inputs(adapter))
        cache.length += len(input_ids)
        return torch.from_numpy(logits)

    def spare(self, cache: Cache) -> int:
        """See `Forward.spare`."""
        return cache.state.spare() if self.engine.device == "cpu" else 0

    def lines(self, cache: Cache, count: int, room: int) -> list[Cache] | None:
        """See `Forward.lines`."""
        if self.engine.device != "cpu":
            return None
        rows = cache.state.side_by_side(count, cache.length, cache.length + room)
        return [Cache(row, cache.length) for row in rows]

    def decode_lines(self, tokens: Sequence[int], lines: Sequence[Cache], *, adapter: bool = True) -> Tensor:
        """See `Forward.decode_lines`."""
        lines = lines[: len(tokens)]
        states = [line.state for line in lines]
        logits = self.reader.decode_lines(tokens, states, [line.length for line in lines], self._inputs(adapter))
        for line in lines:
            line.length += 1
        return torch.from_numpy(logits)

    def mark(self, cache: Cache) -> None:
        """See `Forward.mark`."""
        cache.state.mark(cache.length)

    def rewind(self, cache: Cache, length: int) -> bool:
        """See `Forward.rewind`: what comes next is written over what is forgotten."""
        if not cache.state.rewind(cache.length, length):
            return False
        cache.length = length
        return True

    def page_out(self, cache: Cache, pages: Store) -> None:
        """See `Forward.page_out`."""
        for name, array in cache.state.arrays(cache.length):
            pages.put(f"cache.{name}", torch.from_numpy(array))
        cache.state.drop()

    def page_in(self, cache: Cache, pages: Store) -> None:
        """See `Forward.page_in`."""
        cache.state.fill([pages.read(f"cache.{name}").numpy() for name in cache.state.names])

    def _inputs(self, adapter: bool) -> AdapterInputs:
        """The adapter's A and B as the graph wants them, transposed and scaled; copied again
        where they have changed."""
        if not adapter or self.adapter is None:
            return self.engine.nothing
        if self._version == self.adapter.version:
            return self._copies
        for key, array in adapter_arrays(self.adapter):
            if key in self._copies:
                self._copies[key].update_inplace(array)
            else:
                self._copies[key] = lasting(array, self.engine.device)
        for key, nothing in self.engine.nothing.items():
            self._copies.setdefault(key, nothing)
        self._version = self.adapter.version
        return self._copies


class MixedForward(OnnxForward):
    """The graph writes, torch scores: the nats that a run reports and compares are torch's own."""

    def __init__(self, engine: Engine, adapter: Adapter | None, scores: TorchForward) -> None:
        """`scores`: the path of the same base and adapter that gives the nats."""
        super().__init__(engine, adapter)
        self.scores = scores

    def settle(self, compute: ComputeSettings) -> None:
        """See `Forward.settle`."""
        super().settle(compute)
        self.scores.settle(compute)

    def nll(self, input_ids: Tensor, labels: int, *, adapter: bool = True) -> Tensor:
        """See `Forward.nll`."""
        return self.scores.nll(input_ids, labels, adapter=adapter)


def adapter_arrays(adapter: Adapter) -> Iterator[tuple[str, Array]]:
    """A and B as the graph wants them, transposed and scaled, by the names of its inputs."""
    for layer, module in adapter.layers.items():
        a = module.lora_A[adapter.name].weight
        b = module.lora_B[adapter.name].weight
        for key, tensor in zip(lora_inputs(layer), (a.detach().T, b.detach().T * adapter.scaling), strict=True):
            yield key, tensor.float().cpu().contiguous().numpy()


def _ids(input_ids: Tensor) -> Array:
    ids: Array = input_ids.to("cpu", torch.int64).numpy()
    return ids
