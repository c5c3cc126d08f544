"""One document as the loops see it: its tokens so far, its windows, and the adapter that learns them.

Owns: the document's tokens and position, adapter, learner and forward path together, lessons, the comparison of adapter
and base. Does not know: how a loop proceeds (`score.py`, `generate.py`, `translation/`), files, printing.
Units: tokens, nats.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ModelError, SettingsError
from ..learning.learner import Learner, labels_of
from ..learning.repetition import novelty
from ..machine.held import PeakMeter
from ..memory.budget import Plan
from ..model.adapter import Adapter
from ..model.base import Base
from ..model.forward import Forward, Opener, TorchForward
from ..records import Learned
from ..settings import Settings
from ..tokenstream import TYPE, TokenStream
from ..weights.adapterfolder import Kept
from ..weights.tensorfile import Part
from ..windows import Window, window_at
from .keeper import Keeper

MIN_NOVELTY = 0.8  # of its n-grams of 4 tokens must be new in the window, or what the model wrote is not learned
PROBE_EVERY = 8  # chunks: adapter and base are compared on a part of one, where the base does not score them all


class Taught(NamedTuple):
    """A lesson on a window. `nats`: (labels,) of each token before it was learned; None where nothing was computed."""

    learned: Learned | None
    nats: Tensor | None


class State:
    """A document so far, and the adapter that learns it.

    Attributes:
        tokens: token ids of the document so far, BOS included.
        coming: text that the loops have not taken yet.
        position: first token that is not yet part of a finished chunk.
        chunk_index: number of finished chunks.
        sinks: how many of the document's first tokens every window begins with.
        memory: what keeps the session under its budget.
        forward: what scores and writes; `torch_forward` is what learns, the same one or beside it.
        reading: a cache that a translator continues from line to line; dropped before a lesson.
        full_limit: tokens that the base with full attention sees at most, where it scores too (`model/baseline.py`).
        carries: whether the adapter began as another document's.
        at_rest: whether a loop that has just yielded can resume from `tensors` alone; a KV cache is not among them.
    """

    def __init__(self, base: Base, plan: Plan, other_path: Opener | None = None) -> None:
        """`other_path`: opens the forward path that scores and writes in torch's place; the learner keeps torch's."""
        self.base = base
        self.settings: Settings = plan.settings
        self.tokens = array(TYPE)
        self.coming = TokenStream.of(())
        self.position = 0
        self.chunk_index = 0
        self.at_rest = True
        self.full_limit: int | None = None
        self.reading: object | None = None
        self.carries = False
        self.sinks = base.sinks(self.settings.window)
        self.memory = Keeper(base.device, plan, self._settle)
        self.adapter: Adapter | None = None
        self.learner: Learner | None = None
        settings = self.settings
        if settings.learn.mode != "none":
            fused = "lora" not in settings.compute.plain
            self.adapter = Adapter(base, settings.adapter, seed=settings.seed, fused=fused)
        self.torch_forward = TorchForward(base, self.adapter, settings.compute)
        self.forward: Forward = self.torch_forward if other_path is None else other_path(self.adapter)
        if self.adapter is not None:
            pages = self.memory.pages if settings.compute.paging != "off" else None
            moments = self.memory.pages if settings.compute.paging == "all" else None
            self.learner = Learner(
                self.adapter, self.torch_forward, settings.learn, settings.window.context, moments, pages, self.sinks,
                settings.seed,
            )  # fmt: skip
            self.learner.retry = self.memory.retrying

    def close(self) -> None:
        """Discards the adapter. The base is bit for bit what it was."""
        if self.adapter is not None:
            self.adapter.discard()
        self.adapter = self.learner = self.reading = None
        self.memory.pages.close()

    def adapter_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All that the adapter adds to the base, also in layers that are repaired and do not learn."""
        if self.adapter is not None:
            yield from self.adapter.tensors()

    @torch.no_grad()
    def begin_with(self, kept: Kept) -> None:
        """The adapter begins as another document's was at its end; the base stays what it is.

        Raises:
            SettingsError: it has another rank, or lies on other layers.
            ModelError: a layer of it is of another shape.
        """
        assert self.adapter is not None
        own = dict(self.adapter.named_parameters())
        rank = self.settings.adapter.rank
        if kept.rank != rank:
            raise SettingsError(f"the adapter of {kept.where} has rank {kept.rank}", f"adapter.rank={rank}",
                                f"--set adapter.rank={kept.rank}")  # fmt: skip
        others = {name for name, _ in self.adapter_tensors()} - set(own)  # only repaired, the same in both
        if set(kept.tensors) - others != set(own):
            raise SettingsError(
                f"the adapter of {kept.where} lies on {_kinds(kept.tensors)}", _kinds(own),
                "use the same model, adapter.modules and adapter.layers",
            )  # fmt: skip
        factor = kept.scale / (self.settings.adapter.alpha / rank)
        for name, parameter in own.items():
            tensor = kept.tensors[name]
            if tensor.shape != parameter.shape:
                got = f"{name} of {kept.where} is {tuple(tensor.shape)}"
                raise ModelError(got, f"{tuple(parameter.shape)}", "use the model that it was made on")
            parameter.copy_(tensor.to(parameter) * factor if name.endswith("lora_B") else tensor)
        self.adapter.version += 1
        self.carries = True

    @property
    def plan(self) -> Plan:
        """The plan that holds now."""
        return self.memory.plan

    @property
    def meter(self) -> PeakMeter:
        """What was held, phase by phase."""
        return self.memory.meter

    def _settle(self, plan: Plan) -> None:
        self.settings = plan.settings
        compute = plan.settings.compute
        if compute.copied is not None:  # never more than before
            self.base.cache_weights(compute.copied)
        self.forward.settle(compute)
        self.torch_forward.settle(compute)
        if self.learner is not None and compute.paging != "off":
            self.learner.use_pages(self.memory.pages, moments=compute.paging == "all")

    # --- going on later ---

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All that the loops resume from, one tensor at a time: the document, the position, what the learner holds."""
        yield "tokens", torch.tensor(self.tokens, dtype=torch.int32)
        yield "position", torch.tensor([self.position, self.chunk_index, self.full_limit or 0])
        if self.learner is not None:
            for name, tensor in self.learner.tensors():
                yield f"learner.{name}", tensor

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Goes back to what `tensors` gave, bit for bit."""
        self.tokens = array(TYPE, tensors["tokens"].tolist())
        self.position, self.chunk_index, *limit = tensors["position"].tolist()
        self.full_limit = (limit or [0])[0] or None
        if self.learner is not None:
            self.learner.restore(Part(tensors, "learner."))

    # --- the text and its windows ---

    def window(self, end: int) -> Window:
        """The window of the chunk [position, end)."""
        return window_at(self.chunk_index, self.position, end, context=self.settings.window.context, sinks=self.sinks)

    def ids(self, window: Window) -> torch.Tensor:
        """(S,) token ids of a window, on the CPU."""
        return torch.tensor(window.of(self.tokens))

    def fill(self, end: int) -> bool:
        """Takes of what is coming until the document has `end` tokens; whether it has."""
        missing = max(0, end - len(self.tokens))
        if missing > self.coming.waiting and not self.coming.ended:
            with self.memory.meter.phase("text"):  # not under a cap: a tokenizer that gets no memory ends the process
                self.coming.look(missing)
        self.tokens.extend(self.coming.take(missing))
        return len(self.tokens) >= end

    def finish_chunk(self, end: int) -> None:
        """Moves on: [position, end) is done."""
        self.position = end
        self.chunk_index += 1

    # --- scoring and learning ---

    @property
    def fresh(self) -> bool:
        """Whether the adapter has not learned yet: it changes nothing, its scores are the base's."""
        return self.learner is None or (
            self.learner.steps == 0 and not self.learner.adapter.repairs and not self.carries
        )

    @property
    def fuses(self) -> bool:
        """Whether the first epoch's forward serves as the score."""
        return self.learner is not None and self.settings.fuses

    def nll_sum(self, window: Window, labels: int, *, adapter: bool) -> float:
        """Summed nats of the window's last `labels` tokens."""
        return float(self._nats(self.ids(window), labels, adapter=adapter).double().sum())

    def teach(self, window: Window, *, written: bool = False) -> Taught:
        """Learns the window's chunk, where there is something to learn and the drift guard does not rest.

        `written`: by the model itself, and learned only where it does not repeat itself.
        """
        if self.learner is None or not labels_of(window):
            return Taught(None, None)
        if written:
            seen = self.tokens[window.context_start : window.start]
            new = self.tokens[window.start : window.end]
            if novelty(seen, new) < MIN_NOVELTY:
                return Taught(Learned(skipped=True, reason="repeats itself"), None)
        return self.lesson(self.ids(window), window.labels)

    def lesson(self, ids: Tensor, labels: int, *, share: float = 1.0, only: Tensor | None = None) -> Taught:
        """One lesson on (S,) token ids (`Learner.learn`); while learning rests they are scored and not learned."""
        assert self.learner is not None
        if self.learner.drift.rests:
            self.learner.drift.passed()
            with self.memory.phase("score"):
                return Taught(Learned(skipped=True, reason="resting"), self._nats(ids, labels, only))
        with self.memory.phase("learn"):
            return Taught(*self.learner.learn(ids, labels, share=share, only=only))

    def _nats(self, ids: Tensor, labels: int, only: Tensor | None = None, *, adapter: bool = True) -> Tensor:
        if only is None:
            return self.memory.retrying(lambda: self.forward.nll(ids, labels, adapter=adapter))
        return self.memory.retrying(lambda: self.torch_forward.nll(ids, labels, adapter=adapter, only=only))

    # --- drift ---

    @property
    def _half_a_piece(self) -> int:
        """Tokens on which adapter and base are compared; as many before them are context."""
        return max(2, self.settings.window.size // 8)

    def probe_drift(self, window: Window) -> None:
        """For chunks that the base does not score: every eighth time both score a piece of the window. An adapter that
        stays worse is dropped before it meets the chunk.
        """
        half = self._half_a_piece
        end = min(window.end, window.start + half)
        piece = window_at(window.index, window.start, end, context=min(half, window.context), sinks=self.sinks)
        self.probe(window.index, self.ids(piece), piece.labels)

    def probe_given(self, end: int) -> bool:
        """The same while the model writes, on the end of the text that it was given; `end` is where that ends.

        Returns:
            Whether the adapter was dropped.
        """
        half = self._half_a_piece
        piece = window_at(self.chunk_index, max(0, end - half), end, context=half, sinks=self.sinks)
        return piece.labels > 0 and self.probe(self.chunk_index, self.ids(piece), piece.labels)

    def probe(self, index: int, ids: Tensor, labels: int, only: Tensor | None = None) -> bool:
        """Lets adapter and base score the last `labels` of (S,) tokens, before chunk or lesson number `index`.

        Args:
            only: (labels,) which of them count; all without it.

        Returns:
            Whether the adapter was dropped.
        """
        off = self.settings.learn.guard == "off"
        if self.learner is None or self.fresh or off or index % PROBE_EVERY:
            return False
        with self.memory.phase("score"):
            adapter, base = (
                float(self._nats(ids, labels, only, adapter=which).double().sum()) for which in (True, False)
            )
        return self._dropped(adapter, base, labels if only is None else int(only.sum()))

    def compare(self, learned: Learned | None, adapter_nll: float, base_nll: float, tokens: int) -> Learned | None:
        """Drops the adapter where it has stayed worse than the base. Returns `learned`, which then says that it was."""
        if not self._dropped(adapter_nll, base_nll, tokens) or learned is None:
            return learned
        return dataclasses.replace(learned, kept=False, reason="dropped: worse than the base")

    def _dropped(self, adapter_nll: float, base_nll: float, tokens: int) -> bool:
        """Whether the adapter has stayed worse than the base, and starts over."""
        if self.learner is None or self.fresh or not self.learner.drift.sees(adapter_nll, base_nll, tokens):
            return False
        self.learner.start_anew()
        return True


def _kinds(names: Iterable[str]) -> str:
    """'28 layers (q_proj, v_proj)', from the names of an adapter's tensors."""
    layers = {name.rpartition(".")[0] for name in names}
    return f"{len(layers)} layers ({', '.join(sorted({layer.rpartition('.')[2] for layer in layers}))})"
