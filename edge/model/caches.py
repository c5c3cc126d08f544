"""The keys and values of a text that is being written: in rooms with space for more, or grown as transformers does.

Owns: where they lie, how they grow, going back to an earlier length, moving them out of the device and back, texts
side by side.
Does not know: adapters, how a token is computed.
Units: tokens; keys and values of a layer (2, 1, G, places, D), of n texts side by side (2, n, G, places, D).

`Rooms` holds what layers of full and sliding attention keep. A layer has room for up to `ROOM_STEP` tokens more than it
holds at most, so that most tokens cost no copy of what is there, and its address stays the same for a step that is
captured. A layer that sees the last `w` tokens has `w` places, and token p lies in place p mod w: keys are rotated
before they come here, so a row does not depend on where it lies. `Grown` is transformers' own cache, for models that
keep something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import Cache as TransformersCache
from transformers import DynamicCache
from transformers import cache_utils as hf
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ..memory.sizes import room_for

EMPTY: tuple[type, ...] = (hf.DummyLayer,) if hasattr(hf, "DummyLayer") else ()  # transformers 5.17 has none
FORGETTING = (DynamicLayer, DynamicSlidingWindowLayer, *EMPTY)  # whose tokens can be taken back
UNBOUNDED = 1 << 30
Place = tuple[str, dict[Any, Any], Any]  # a tensor of a cache: a name for it, and where it is kept


def forgets(config: Any) -> bool:
    """Whether all that a model's layers keep are tokens, which can be taken back: a state is none."""
    return _all_forget(DynamicCache(config=config).layers)


def _all_forget(layers: Iterable[Any]) -> bool:
    return all(type(layer) in FORGETTING for layer in layers)


class Rooms:
    """The keys and values of one text.

    Attributes:
        layers: one room for each of the model's layers.
        inner: what transformers' models take as `past_key_values`.
        recorded: steps that were recorded on these tensors; forgotten when one of them moves.
        together: the rooms of several texts that these are one row of.
    """

    def __init__(self, windows: list[int | None]) -> None:
        """`windows`: how many tokens each layer sees; None for all."""
        self.layers = [Room(window) for window in windows]
        self.inner = TransformersCache(layers=list(self.layers))
        self.recorded: dict[Any, Any] = {}
        self.together: Rooms | None = None
        self._beside: list[Rooms] = []  # those that `side_by_side` gave last

    @property
    def length(self) -> int:
        """Tokens that are held, or were and have left a sliding window."""
        return self.layers[0].length

    def reserve(self, count: int) -> None:
        """Makes sure that `count` more tokens find room, and that what is marked survives them."""
        for layer in self.layers:
            layer.save(count)
            if layer.grow(count):
                self.moved()

    def advance(self, count: int = 1) -> None:
        """`count` tokens were written at position `length` of each layer; below 0 they are written again."""
        for layer in self.layers:
            layer.length += count

    def side_by_side(self, count: int, room: int) -> list[Rooms]:
        """`count` rooms that each hold what these hold, with places for `room` tokens more; they never grow.

        They lie where those lay that were asked for before, and take their place, where they are of the same size: what
        was recorded on them is of use again.
        """
        windows = [layer.window for layer in self.layers]
        if len(self._beside) != count:
            together = Rooms(windows)
            self._beside = [Rooms(windows) for _ in range(count)]
            for row in self._beside:
                row.together = together
        rows = self._beside
        found = rows[0].together
        assert found is not None
        for index, layer in enumerate(self.layers):
            there = found.layers[index]
            held = layer.copies(count, room, there.held)
            if held is not there.held:
                there.held = held
                found.moved()
            there.length = layer.length
            for number, row in enumerate(rows):
                row.layers[index].held = held[:, number : number + 1]
                row.layers[index].length = layer.length
        return rows

    def mark(self, length: int) -> None:
        """See `Forward.mark`."""
        for layer in self.layers:
            layer.saved = None
            layer.marked = length

    def rewind(self, held: int, length: int) -> bool:
        """See `Forward.rewind`; `held` tokens are there now."""
        marked = self.layers[0].marked
        if length > held or (length != marked and any(layer.has_dropped for layer in self.layers)):
            return False
        for layer in self.layers:
            layer.restore(length)
        if length < marked:
            self.mark(-1)
        return True

    def spare(self, held: int) -> int:
        """How many tokens after `held` can be forgotten again: none of them may be written over another one."""
        windows = [layer.window for layer in self.layers if layer.window is not None]
        return max(0, min(windows, default=UNBOUNDED) - held)

    def places(self) -> Iterator[Place]:
        """Every tensor, its name, and where it is kept; who puts another one there says so by `moved`."""
        for index, layer in enumerate(self.layers):
            if layer.held is not None:
                yield f"{index}.held", layer.__dict__, "held"

    def moved(self) -> None:
        """The tensors lie elsewhere now."""
        self.recorded.clear()


class Room(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, as transformers' caches see it.

    Attributes:
        held: (2, 1, G, places, D); None before the first token.
        length: tokens so far.
        window: how many tokens the layer sees; None for all.
        saved: what was held at the marked length, once that is about to be overwritten.
    """

    def __init__(self, window: int | None) -> None:
        super().__init__()
        self.held: Tensor | None = None
        self.length = 0
        self.window = window
        self.marked = -1
        self.saved: Tensor | None = None

    @property
    def has_dropped(self) -> bool:
        """Whether a token has been overwritten."""
        return self.window is not None and self.length > self.window

    def get_seq_length(self) -> int:
        """See transformers."""
        return self.length

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Takes (1, G, n, D) of n new tokens; gives all that they may see, in the text's order."""
        groups, count, size = key_states.shape[1:]
        if self.held is None:
            self.held = key_states.new_empty(2, 1, groups, 0, size)
        self.save(count)
        if self.window is not None and self.length + count > self.window:
            seen = torch.cat([self._ordered(), torch.stack([key_states, value_states])], 3)
            self.grow(count)
            self._write_over(seen[..., -count:, :])
            self.length += count
        else:
            self.grow(count)
            self.held[0, :, :, self.length : self.length + count] = key_states
            self.held[1, :, :, self.length : self.length + count] = value_states
            self.length += count
            seen = self.held[..., : self.length, :]
        return seen[0], seen[1]

    def copies(self, count: int, room: int, into: Tensor | None = None) -> Tensor:
        """(2, count, G, places, D): what is held, `count` times, with places for `room` tokens more; in `into` where
        that is of this size.
        """
        assert self.held is not None
        places = self._places(self.length + room)
        shape = (2, count, self.held.shape[2], places, self.held.shape[4])
        wider = self.held.new_zeros(shape) if into is None or into.shape != shape else into
        kept = min(self.length, places)
        wider[..., :kept, :] = self.held[..., :kept, :]
        return wider

    def _places(self, tokens: int) -> int:
        """How many places so many tokens need."""
        return room_for(tokens) if self.window is None else min(room_for(tokens), self.window)

    def grow(self, count: int) -> bool:
        """Makes room for `count` more tokens; whether the tensor has moved."""
        assert self.held is not None
        places = self.held.shape[3]
        needed = self.length + count
        if self.window is not None:
            needed = min(needed, self.window)
        if needed <= places:
            return False
        wanted = self._places(needed)
        wider = self.held.new_zeros(*self.held.shape[:3], wanted, self.held.shape[4])
        wider[..., :places, :] = self.held
        self.held = wider
        return True

    def save(self, count: int) -> None:
        """Keeps a copy of the marked state where `count` more tokens would overwrite a part of it."""
        if self.saved is not None or self.marked < 0 or self.window is None or self.held is None:
            return
        if self.length + count > self.window:
            self.saved = self.held[..., : min(self.marked, self.window), :].clone()

    def restore(self, length: int) -> None:
        """Goes back to `length` tokens, the marked ones where some have been overwritten since."""
        if self.has_dropped and self.saved is not None:
            assert self.held is not None
            self.held[..., : self.saved.shape[3], :] = self.saved
        self.length = length

    def _ordered(self) -> Tensor:
        """(2, 1, G, n, D) of the last tokens that are held, in the text's order."""
        assert self.held is not None and self.window is not None
        if self.length <= self.window:
            return self.held[..., : self.length, :]
        return self.held.roll(-(self.length % self.window), 3)

    def _write_over(self, new: Tensor) -> None:
        """Puts the last of the new tokens into their places, over the oldest."""
        assert self.held is not None and self.window is not None
        end = self.length + new.shape[3]
        kept = new[..., -self.window :, :]
        places = torch.arange(end - kept.shape[3], end, device=new.device)
        self.held[..., places % self.window, :] = kept


class Grown:
    """transformers' own cache, whatever a model's layers keep; a token costs a copy of it."""

    def __init__(self, config: Any) -> None:
        self.inner = DynamicCache(config=config)
        self._marked: tuple[int, dict[int, tuple[Tensor, Tensor]]] = (-1, {})

    @property
    def layers(self) -> list[Any]:
        """transformers' layers."""
        layers: list[Any] = self.inner.layers
        return layers

    def mark(self, length: int) -> None:
        """See `Forward.mark`. Only layers that drop old tokens are kept; a step replaces their tensors."""
        sliding = {i: layer for i, layer in enumerate(self.layers) if getattr(layer, "is_sliding", False)}
        self._marked = (length, {i: (layer.keys, layer.values) for i, layer in sliding.items()})

    def rewind(self, held: int, length: int) -> bool:
        """See `Forward.rewind`; `held` tokens are there now."""
        at, kept = self._marked
        if not _all_forget(self.layers):
            return False  # a state that has no tokens to forget
        layers = {index: layer for index, layer in enumerate(self.layers) if type(layer) not in EMPTY}
        dropped = {index for index, layer in layers.items() if layer.keys.shape[2] < held}
        if dropped and at != length:
            return False
        for index, layer in layers.items():
            if index in dropped:
                layer.keys, layer.values = kept[index]
            else:
                layer.keys = layer.keys[:, :, :length]
                layer.values = layer.values[:, :, :length]
            if layer.is_sliding:
                layer.cumulative_length = length
        return True

    def spare(self, held: int) -> int:
        """See `Rooms.spare`. A sliding layer keeps one token fewer than it sees; a state forgets nothing."""
        if not _all_forget(self.layers):
            return 0
        windows = [layer.sliding_window - 1 for layer in self.layers if getattr(layer, "is_sliding", False)]
        return max(0, min(windows, default=UNBOUNDED) - held)

    def places(self) -> Iterator[Place]:
        """See `Rooms.places`. Layers with a state keep several tensors under numbers."""
        for index, layer in enumerate(self.layers):
            for kind in ("keys", "values"):
                if isinstance(getattr(layer, kind, None), Tensor):
                    yield f"{index}.{kind}", layer.__dict__, kind
            for kind in ("conv_states", "recurrent_states"):
                held = getattr(layer, kind, {})
                for number in [key for key, tensor in held.items() if isinstance(tensor, Tensor)]:
                    yield f"{index}.{kind}.{number}", held, number

    def moved(self) -> None:
        """Nothing depends on where they lie."""
