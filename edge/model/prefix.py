"""The keys and values of the tokens before a chunk, kept without gradient.

Owns: how a chunk is computed after tokens that were computed earlier, and which of its own are kept for the next.
Does not know: adapters, losses, when keys are too old.
Units: tokens; keys and values (1, G, tokens, D).

Where old tokens are dropped the document's first ones, the sinks, stay (`windows.py`), at their own positions: the gap
between them and the rest grows with the document. Layers whose own window is shorter than what is kept see no sinks, as
they would see none in one long forward.

With `learn.prefix=frozen` or `cached` a forward touches the chunk's tokens only. A layer here gives the same answer
however often a block is run, so that blocks may be recomputed in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from ..errors import ModelError
from ..memory import families

_SLIDING = ("sliding_attention", "hybrid_sliding", "chunked_attention")
MAX_POSITION = 32768  # where the model names no limit: rotary angles lose precision as positions grow


def windows_of(config: Any) -> list[int | None]:
    """How many tokens each layer of a model sees; None for all.

    Raises:
        ModelError: a layer keeps something else than keys and values of each token.
    """
    from transformers.cache_utils import get_layer_types_and_kwargs

    kinds, options = get_layer_types_and_kwargs(config)
    why = families.anew(kinds, str(config.model_type))
    if why:
        raise ModelError(
            f"no keys and values of this model can be kept: {why}",
            "learn.prefix=full or auto, and no comparison with full attention", "leave them out",
        )  # fmt: skip
    if isinstance(options, dict):  # transformers 5.17: one for all layers
        options = [options if kind in _SLIDING else {} for kind in kinds]
    return [values.get("sliding_window") for values in options]


class Prefix:
    """Keys and values of `ids`, the tokens before the next ones.

    Attributes:
        ids: token ids whose keys and values are held, on the CPU.
        position: position of the token that comes next, as the rotary embedding counts it.
        cache: what transformers' models take as `past_key_values`.
    """

    def __init__(self, windows: list[int | None], limit: int, sinks: int = 0) -> None:
        """`windows`: how many tokens each layer sees; None for all. `limit`: tokens held at most, `sinks`
        of them the first.
        """
        self.sinks = max(0, min(sinks, limit))
        self._layers = [
            _Layer(limit, self.sinks) if window is None or window > limit else _Layer(window) for window in windows
        ]
        self.cache = Cache(layers=list(self._layers))
        self.limit = limit
        self.ids = torch.empty(0, dtype=torch.long)
        self.position = 0

    def holds(self, ids: Tensor) -> bool:
        """Whether it holds just these tokens."""
        return torch.equal(self.ids, ids.cpu())

    def positions(self, count: int, device: str) -> Tensor:
        """(1, count) position ids of the tokens that come next."""
        return torch.arange(self.position, self.position + count, device=device)[None]

    def take(self, ids: Tensor) -> None:
        """After a forward over `ids`: holds their keys and values too, and no more than `limit` tokens' in all."""
        for layer in self._layers:
            layer.take()
        self.position += len(ids)
        self.ids = _last(torch.cat([self.ids, ids.cpu()]), self.limit, self.sinks, 0)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that must be kept to go on from here, by name."""
        state = {"ids": self.ids, "position": torch.tensor(self.position)}
        for index, layer in enumerate(self._layers):
            if layer.held is not None:
                state |= {f"{index}.keys": layer.held[0], f"{index}.values": layer.held[1]}
        return state

    def load(self, state: dict[str, Tensor], device: str) -> None:
        """Puts back what `tensors` gave."""
        self.ids = state["ids"].clone()
        self.position = int(state["position"])
        for index, layer in enumerate(self._layers):
            if f"{index}.keys" in state:
                keys, values = (state[f"{index}.{kind}"].to(device, copy=True) for kind in ("keys", "values"))
                layer.held = keys, values


class _Layer(DynamicLayer):  # type: ignore[misc]
    """One layer, as transformers' caches see it; `held` are the keys and values of the prefix."""

    def __init__(self, limit: int, sinks: int = 0) -> None:
        super().__init__()
        self.limit = limit
        self.sinks = sinks
        self.held: tuple[Tensor, Tensor] | None = None
        self._new: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The keys and values that the new tokens see; those before them carry no gradient."""
        self._new = key_states.detach(), value_states.detach()
        if self.held is None:
            return key_states, value_states
        return torch.cat([self.held[0], key_states], 2), torch.cat([self.held[1], value_states], 2)

    def take(self) -> None:
        """Keeps what the last forward made."""
        if self._new is None:
            return
        keys, values = self._new
        self._new = None
        if self.held is not None:
            keys = torch.cat([self.held[0], keys], 2)
            values = torch.cat([self.held[1], values], 2)
        self.held = _last(keys, self.limit, self.sinks, 2).clone(), _last(values, self.limit, self.sinks, 2).clone()

    def get_seq_length(self) -> int:
        """Tokens held."""
        return 0 if self.held is None else self.held[0].shape[2]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys, offset of the first one), for models that make masks."""
        return self.get_seq_length() + query_length, 0


def _last(tensor: Tensor, limit: int, sinks: int, dim: int) -> Tensor:
    """The last `limit` along `dim`, `sinks` of them the first ones where others are left out."""
    size = tensor.shape[dim]
    if size <= limit:
        return tensor
    rest = tensor.narrow(dim, size - limit + sinks, limit - sinks)
    return torch.cat([tensor.narrow(dim, 0, sinks), rest], dim) if sinks else rest
