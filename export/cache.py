"""The KV cache of one growing text, as the graph reads and writes it.

Owns: the buffers, what a layer with a sliding window may forget, going back to an earlier length, texts side by side.
Does not know: graphs, tokens, bindings.
Units: positions in tokens; shapes (1, G, room, D), of texts side by side (B, G, room, D).

Past and present are the same buffer, so a token costs no copy of what is there. A layer that sees everything has room
for the whole text. A layer that sees the last `window` tokens has room for these and one run: where the room is used
up, the rows that can still be seen move to its front, and the others are gone. Keys are rotated before they come here,
so a row does not depend on where it lies.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from edge.machine.allocator import own_pages
from edge.memory.graph import rounded, sliding_room

from .manifest import Manifest, cache_names
from .rows import Array

UNBOUNDED = 1 << 30  # tokens


def value(array: Array, device: str) -> Any:
    """The array as the runtime's own value; on the CPU it is the same memory."""
    return ort.OrtValue.ortvalue_from_numpy(array, device, 0)


def lasting(array: Array, device: str) -> Any:
    """A copy as the runtime's own value, outside the heap: for what stays."""
    with own_pages():
        copied = array.copy()
    return value(copied, device)


class Buffers:
    """Keys and values of all layers, in the order of the graph's inputs.

    Attributes:
        names: the graph's inputs.
        values: their values.
        capacity: tokens that a layer which sees everything has room for.
        sliding: rows that the other layers hold.
        together: the buffers of several texts that these are one row of.
        steps: bindings of a decoding step to these buffers, whatever their owner keeps of them.
    """

    def __init__(self, manifest: Manifest, device: str, capacity: int, *, texts: int = 1) -> None:
        """`texts`: how many lie side by side in each value."""
        m = manifest
        self.texts = texts
        self.together: Buffers | None = None
        self._manifest = m
        self.names = cache_names(m.layers, "past")
        self.capacity = capacity
        self.sliding = 0
        self._device = device
        self._window = m.window
        self._kind = np.dtype(m.cache)
        self._heads = m.groups
        self._size = m.head_size
        self._limit = sliding_room(m.window)
        self._slides = [index for index in range(len(self.names)) if index // 2 in m.sliding]
        self._moved = -1  # tokens in all when rows were dropped last
        self._mark: tuple[int, int, int] | None = None  # tokens in all, `sliding` and `_moved` as they were
        self._kept: dict[int, Array] = {}  # rows of the mark, once they are dropped from the buffers
        self.steps: list[Any] = []
        self.values: list[Any] = [self._value(index, None) for index in range(len(self.names))]

    def reserve(self, tokens: int, held: int) -> None:
        """Makes room for `tokens` in all, `held` of which are there."""
        if tokens <= self.capacity:
            return
        assert self.together is None  # a row of others stays where it is
        kept = list(self.arrays(held))
        self.capacity = rounded(tokens)
        for index, (_, array) in enumerate(kept):
            if self._rooms(index) != self.values[index].shape()[2]:
                self.values[index] = self._value(index, array)
        self.steps = []

    def slide(self, position: int, tokens: int) -> None:
        """Makes room in the layers with a window for `tokens` after `position` others: at most a run of them."""
        if self._slides and self.sliding + tokens > min(self.capacity, self._limit):
            keep = min(self.sliding, self._window - 1)
            lost = self._mark is not None and self._mark[2] == self._moved
            for index in self._slides:
                rows = self.values[index].numpy()
                if lost:
                    self._kept[index] = rows[:, :, : self._mark[1]].copy()  # type: ignore[index]
                self._put(index, rows[:, :, self.sliding - keep : self.sliding].copy())
            self.sliding = keep
            self._moved = position
        self.sliding += tokens

    def side_by_side(self, count: int, held: int, capacity: int) -> list[Buffers]:
        """`count` caches that each begin with the `held` tokens of this one, and have room for `capacity` in all.

        They lie in the values of the first one's `together`, which a run may read up to any of them.
        """
        together = Buffers(self._manifest, self._device, rounded(capacity), texts=count)
        for index, (_, array) in enumerate(self.arrays(held)):
            together.values[index].numpy()[:, :, : array.shape[2]] = array
        return [self._row(together, number) for number in range(count)]

    def _row(self, together: Buffers, number: int) -> Buffers:
        row = copy.copy(self)
        row.together = together
        row.capacity = together.capacity
        row.values = [value(whole.numpy()[number : number + 1], self._device) for whole in together.values]
        row.steps = []
        row._mark = None
        row._kept = {}
        return row

    def mark(self, length: int) -> None:
        """Remembers the state with `length` tokens, for `rewind`."""
        self._mark = (length, self.sliding, self._moved)
        self._kept = {}

    def rewind(self, now: int, length: int) -> bool:
        """Goes back from `now` tokens to `length`; False where rows were dropped since, and it is not the mark."""
        if self._mark is not None and self._mark[0] == length and self._kept:
            for index, rows in self._kept.items():
                self._put(index, rows)
            _, self.sliding, self._moved = self._mark
            self._kept = {}
            return True
        if length <= self._moved:
            return False
        self.sliding -= now - length
        if self._mark is not None and length < self._mark[0]:
            self._mark = None
            self._kept = {}
        return True

    def spare(self) -> int:
        """How many tokens can be forgotten again: no row may be dropped for them."""
        return self._limit - self.sliding if self._slides else UNBOUNDED

    def arrays(self, held: int) -> Iterator[tuple[str, Array]]:
        """What is held of `held` tokens, by name."""
        for index, (name, value) in enumerate(zip(self.names, self.values, strict=True)):
            yield name, value.numpy()[:, :, : self.sliding if index in self._slides else held]

    def drop(self) -> None:
        """Forgets all, and gives its memory back."""
        self.values = []
        self.steps = []

    def fill(self, arrays: Sequence[Array]) -> None:
        """Takes what `arrays` gave, in the same order."""
        self.values = [self._value(index, array) for index, array in enumerate(arrays)]

    def _rooms(self, index: int) -> int:
        return min(self.capacity, self._limit) if index in self._slides else self.capacity

    def _value(self, index: int, kept: Array | None) -> Any:
        with own_pages():
            array = np.zeros((self.texts, self._heads, self._rooms(index), self._size), self._kind)
        if kept is not None:
            array[:, :, : kept.shape[2]] = kept
        return value(array, self._device)

    def _put(self, index: int, rows: Array) -> None:
        """Writes rows to the front of a buffer, which stays where it is."""
        held = self.values[index]
        array: Array = held.numpy()  # on the CPU the memory itself
        array[:, :, : rows.shape[2]] = rows
        if self._device != "cpu":
            held.update_inplace(array)
