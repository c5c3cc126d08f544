"""The Forward protocol, and its torch implementation: window NLL, prefill, decode, KV cache.

Owns: how a window's tokens become nats or next-token logits, the KV cache.
Does not know: chunks, learning, sampling. Loops use the protocol and do not know who answers.
Units: nats; logits in float32; positions in tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from typing import Any, Protocol

import torch
from torch import Tensor

from ..errors import SettingsError
from ..machine.allocator import keep_heap, keep_scratch
from ..machine.device import matmul_units
from ..settings import ComputeSettings, Settings
from ..weights.paging import Store
from . import attention
from .adapter import Adapter
from .base import Base
from .caches import Grown, Rooms, forgets
from .loss import plain_nll, sliced_nll
from .prefix import MAX_POSITION, Prefix, windows_of
from .step import Step
from .tended import tended_blocks


@dataclass
class Cache:
    """A KV cache of `length` tokens; `state` is the forward path's own."""

    state: Any
    length: int = 0


class Forward(Protocol):
    """What a loop needs of a forward path. Batch size is one everywhere: a document is one stream.

    Attributes:
        forgets: whether a cache can go back to an earlier length; one that holds a state cannot.
    """

    forgets: bool

    def nll(self, input_ids: Tensor, labels: int, *, adapter: bool = True) -> Tensor:
        """Nats of each of the window's last `labels` tokens.

        Args:
            input_ids: (S,) token ids, context and chunk.
            labels: how many of the last tokens are predicted; at most S - 1.
            adapter: with the session's adapter, or the base alone.

        Returns:
            (labels,) float32 on the CPU.
        """
        ...

    def prefill(self, input_ids: Tensor, *, adapter: bool = True) -> tuple[Tensor, Cache]:
        """Reads (S,) tokens into a new cache; returns the (V,) logits after the last one, and the cache."""
        ...

    def extend(self, input_ids: Tensor, cache: Cache, *, adapter: bool = True) -> Tensor:
        """Adds (S,) tokens to the cache; returns the (V,) logits after the last one."""
        ...

    def decode(self, token: int, cache: Cache, *, adapter: bool = True) -> Tensor:
        """Adds one token to the cache; returns the (V,) logits after it, valid until the next token."""
        ...

    def verify(self, input_ids: Tensor, cache: Cache, *, adapter: bool = True) -> Tensor:
        """Adds (S,) tokens to the cache, at most `spare` of them; returns (S, V) logits after each, valid until the
        next token. They differ from `decode`'s by rounding alone, and `rewind` forgets the tokens again.
        """
        ...

    def spare(self, cache: Cache) -> int:
        """How many tokens can be added and forgotten again: none where that costs more than it may save."""
        ...

    def lines(self, cache: Cache, count: int, room: int) -> list[Cache] | None:
        """`count` caches that each begin as this one does, to be decoded side by side; None where the path cannot.

        Each has room for `room` tokens more, which `extend` and `decode_lines` add; nothing else is done with them.
        They are of no use when others are asked for of the same cache.
        """
        ...

    def decode_lines(self, tokens: Sequence[int], lines: Sequence[Cache], *, adapter: bool = True) -> Tensor:
        """Adds one token to each of the first n caches of `lines`; returns (n, V) logits, valid until the next call.

        The weights are read once for all of them. What a text gets differs from `decode`'s by rounding alone.
        """
        ...

    def mark(self, cache: Cache) -> None:
        """Remembers the cache as it is, for `rewind` to come back to; what was marked before is forgotten."""
        ...

    def rewind(self, cache: Cache, length: int) -> bool:
        """Forgets all but the first `length` tokens, bit for bit as it was then; False where it
        cannot, and did nothing.

        It can go back to the marked length, and where no layer has dropped a token to any length.
        """
        ...

    def page_out(self, cache: Cache, pages: Store) -> None:
        """Moves the cache's tensors to `pages`; it cannot be used until `page_in`."""
        ...

    def page_in(self, cache: Cache, pages: Store) -> None:
        """Brings the cache back, bit for bit."""
        ...

    def settle(self, compute: ComputeSettings) -> None:
        """Goes on with what a tighter plan chose."""
        ...


Opener = Callable[[Adapter | None], Forward]  # a session's forward path, once its adapter is there


def other_path(base: Base, settings: Settings) -> Opener | None:
    """The forward path that the settings name, where it is another package's; None for torch.

    Raises:
        SettingsError: no installed package has it.
    """
    if not settings.graph_precision:
        return None
    for entry in metadata.entry_points(group="templora.forwards", name="onnx"):
        try:
            make = entry.load()
        except ImportError as error:
            raise SettingsError(
                f"forward path '{settings.forward}' needs '{error.name}'", "it to be installed",
                f"pip install templora[{settings.forward}]",
            ) from error  # fmt: skip
        opener: Opener = make(base, settings)
        return opener
    raise SettingsError(
        f"no installed package has the forward path '{settings.forward}'", "torch, or one of templora's extras",
        f"pip install templora[{settings.forward}]",
    )  # fmt: skip


class TorchForward:
    """The Forward protocol on the base's own torch model."""

    def __init__(self, base: Base, adapter: Adapter | None, compute: ComputeSettings) -> None:
        self.base = base
        self.adapter = adapter
        self.plain = compute.plain
        self.forgets = forgets(base.config)
        self._choose(compute)

    @cached_property
    def step(self) -> Step | None:
        """What decodes a token; None where the model's own forward does. Found when a text is first read."""
        if "step" in self.plain or not attention.is_used(self.base.model):
            return None
        return Step.of(self.base, captures="graph" not in self.plain, chooses="kernel" not in self.plain)

    def settle(self, compute: ComputeSettings) -> None:
        """See `Forward.settle`."""
        self._choose(compute)
        if (step := self.__dict__.get("step")) is not None:
            step.forget_weights()
        if self.base.device.kind == "cpu":
            keep_heap(compute.heap == "keep")

    def _choose(self, compute: ComputeSettings) -> None:
        self.slice_size = compute.loss_slice
        self.checkpointing = compute.checkpointing != "off"

    @torch.inference_mode()
    def nll(
        self,
        input_ids: Tensor,
        labels: int,
        *,
        adapter: bool = True,
        only: Tensor | None = None,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """See `Forward.nll`. `only`, `prefix`: as in `loss`."""
        with self._using(adapter), tended_blocks(self.base), matmul_units(self.base.device):
            return self.loss(input_ids, labels, prefix, only)[1].cpu()

    def loss(
        self, input_ids: Tensor, labels: int, prefix: Prefix | None = None, only: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The mean nats over the labels with gradients for the adapter, and the (labels,) nats.

        Call backward on the mean inside `learning()`: with checkpointing the blocks run again there.

        Args:
            prefix: what `read_prefix` made of the tokens before the one that predicts the first label. Only the
                tokens after it are computed, and no gradient flows into it.
            only: (labels,) bool, which of them count; the mean and the nats are of those.
        """
        ids = input_ids.to(self.base.device.name)
        first = len(ids) - labels
        targets = ids[first:]
        if prefix is None:
            predicting = self.base.decoder(input_ids=ids[None], use_cache=False).last_hidden_state[0, first - 1 : -1]
        else:
            predicting = self._after(prefix, ids[first - 1 : -1])
        if only is not None:
            predicting = predicting[only]
            targets = targets[only]
        if "loss" in self.plain:
            return plain_nll(predicting, self.base.head, targets)
        return sliced_nll(predicting, self.base.head, targets, slice_size=self.slice_size)

    @torch.no_grad()
    def read_prefix(self, input_ids: Tensor, limit: int, sinks: int = 0, *, adapter: bool = True) -> Prefix:
        """The keys and values of (S,) tokens, S may be 0, computed with the adapter as it is now, or without.

        `limit`: tokens that are kept at most when more are read, `sinks` of them the first.
        """
        windows = windows_of(self.base.config)
        if not attention.is_used(self.base.model):  # transformers' masks count what is held: all layers hold the same
            windows = [None] * len(windows)
        prefix = Prefix(windows, limit, sinks)
        if len(input_ids):
            self.read_on(prefix, input_ids, adapter=adapter)
        return prefix

    @torch.no_grad()
    def read_on(self, prefix: Prefix, input_ids: Tensor, *, adapter: bool = True) -> None:
        """Adds the keys and values of (S,) tokens to the prefix, S above 0."""
        with self._using(adapter), tended_blocks(self.base), matmul_units(self.base.device):
            self._after(prefix, input_ids.to(self.base.device.name))
        prefix.take(input_ids)

    @property
    def position_limit(self) -> int:
        """How many positions the model knows; `MAX_POSITION` where it names more, or none."""
        config = self.base.config
        rope = getattr(config, "rope_parameters", None) or {}
        limit = min(self.base.max_positions or MAX_POSITION, MAX_POSITION)
        if rope.get("rope_type") in ("longrope", "dynamic"):  # beyond it all keys would be rotated otherwise
            limit = min(
                limit,
                int(
                    getattr(config, "original_max_position_embeddings", None)
                    or rope.get("original_max_position_embeddings")
                    or limit
                ),
            )
        return limit

    def reaches(self, prefix: Prefix, count: int) -> bool:
        """Whether `count` tokens after the prefix still have positions that the model knows."""
        return prefix.position + count <= self.position_limit

    def _after(self, prefix: Prefix, ids: Tensor) -> Tensor:
        """(n, H) last hidden states of n tokens that follow the prefix."""
        hidden: Tensor = self.base.decoder(
            input_ids=ids[None],
            position_ids=prefix.positions(len(ids), self.base.device.name),
            past_key_values=prefix.cache,
            use_cache=False,
        ).last_hidden_state[0]
        return hidden

    @contextmanager
    def learning(self, *, dropout: bool = False, shallow: bool = False) -> Iterator[None]:
        """Adapter on, activation checkpointing as set, dropout and shallow gradients (`Adapter.active`) as asked."""
        if self.adapter is None:
            raise RuntimeError("a forward path without an adapter cannot learn")
        with (
            self.adapter.active(training=dropout, shallow=shallow),
            tended_blocks(self.base, checkpointing=self.checkpointing),
            matmul_units(self.base.device),
        ):
            yield

    @torch.inference_mode()
    def prefill(self, input_ids: Tensor, *, adapter: bool = True) -> tuple[Tensor, Cache]:
        """See `Forward.prefill`."""
        step = self.step
        cache = Cache(Grown(self.base.config) if step is None else Rooms(step.windows))
        with tended_blocks(self.base), matmul_units(self.base.device):
            return self._extend(input_ids, cache, adapter), cache

    @torch.inference_mode()
    def extend(self, input_ids: Tensor, cache: Cache, *, adapter: bool = True) -> Tensor:
        """See `Forward.extend`."""
        with tended_blocks(self.base), matmul_units(self.base.device):
            return self._extend(input_ids, cache, adapter)

    @torch.inference_mode()
    def decode(self, token: int, cache: Cache, *, adapter: bool = True) -> Tensor:
        """See `Forward.decode`."""
        step = self.step
        with keep_scratch():
            if step is None or not isinstance(cache.state, Rooms) or step.trusted is False:
                return self._extend(torch.tensor([token]), cache, adapter)
            if step.trusted is None:
                ours = step.tried(token, cache.state, self.adapter if adapter else None)
                theirs = self._extend(torch.tensor([token]), cache, adapter)  # its keys and values stay
                step.compare(ours, theirs)
                return theirs
            logits = step.logits(token, cache.state, self.adapter if adapter else None)
            cache.length += 1
            return logits

    @torch.inference_mode()
    def verify(self, input_ids: Tensor, cache: Cache, *, adapter: bool = True) -> Tensor:
        """See `Forward.verify`."""
        with keep_scratch():
            return self.base.head.logits(self._states(input_ids, cache, adapter))

    def spare(self, cache: Cache) -> int:
        """See `Forward.spare`. A recorded step of one token is much faster than a forward that is not recorded."""
        captured = self.step is not None and self.step.captures
        return 0 if captured else cache.state.spare(cache.length)

    @torch.inference_mode()
    def lines(self, cache: Cache, count: int, room: int) -> list[Cache] | None:
        """See `Forward.lines`; where no step decodes, neither do lines."""
        step = self.step
        if step is None or not isinstance(cache.state, Rooms):
            return None
        if step.trusted is None:
            self.decode(0, self.prefill(torch.zeros(1, dtype=torch.long))[1])
        if not step.trusted:
            return None
        return [Cache(rooms, cache.length) for rooms in cache.state.side_by_side(count, room)]

    @torch.inference_mode()
    def decode_lines(self, tokens: Sequence[int], lines: Sequence[Cache], *, adapter: bool = True) -> Tensor:
        """See `Forward.decode_lines`."""
        assert self.step is not None
        with keep_scratch():
            rows = [line.state for line in lines]
            logits = self.step.logits_of_lines(tokens, rows, self.adapter if adapter else None)
        for line in lines[: len(tokens)]:
            line.length += 1
        return logits

    def mark(self, cache: Cache) -> None:
        """See `Forward.mark`."""
        cache.state.mark(cache.length)

    @torch.inference_mode()
    def rewind(self, cache: Cache, length: int) -> bool:
        """See `Forward.rewind`."""
        if not cache.state.rewind(cache.length, length):
            return False
        cache.length = length
        return True

    def page_out(self, cache: Cache, pages: Store) -> None:
        """See `Forward.page_out`."""
        for name, place, key in cache.state.places():
            pages.put(f"cache.{name}", place[key])
            place[key] = place[key].new_empty(0)

    def page_in(self, cache: Cache, pages: Store) -> None:
        """See `Forward.page_in`."""
        for name, place, key in cache.state.places():
            place[key] = pages.read(f"cache.{name}").to(self.base.device.name)
        cache.state.moved()

    def _extend(self, input_ids: Tensor, cache: Cache, adapter: bool) -> Tensor:
        return self.base.head.logits(self._states(input_ids, cache, adapter)[-1:])[0]

    def _states(self, input_ids: Tensor, cache: Cache, adapter: bool) -> Tensor:
        """(S, H) last hidden states of tokens that are added to the cache."""
        with self._using(adapter):
            hidden: Tensor = self.base.decoder(
                input_ids=input_ids.to(self.base.device.name)[None], past_key_values=cache.state.inner, use_cache=True
            ).last_hidden_state[0]
        cache.length += len(input_ids)
        return hidden

    def _using(self, adapter: bool) -> Any:
        return self.adapter.active() if adapter and self.adapter is not None else nullcontext()
