"""One document as the loops see it: its tokens so far, its windows, and the adapter that learns them.

Owns: the document's tokens and position, adapter, learner and forward path together, lessons, the comparison of adapter
and base. Does not know: how a loop proceeds (`score.py`, `generate.py`, `translation/`), files, printing.
Units: tokens, nats.
"""

from __future__ import annotations

import dataclasses
import time
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ModelError, SettingsError
from ..learning.learner import MIN_LABELS, Learner
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
    """What came of a chunk. Nats are sums over what was scored, each token before it was learned.

    Attributes:
        learned: None where there was nothing to learn from.
        nll: with the adapter; None where nothing was computed.
        base_nll: with the base alone; None where it did not score.
        seconds: of scoring apart from the lesson.
        dropped: whether the adapter was dropped before it met the chunk.
    """

    learned: Learned | None
    nll: float | None = None
    base_nll: float | None = None
    seconds: float = 0.0
    dropped: bool = False


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

    def teach(
        self,
        window: Window,
        *,
        labels: int | None = None,
        base: bool = False,
        given: int | None = None,
        text: Sequence[int] | None = None,
        only: Tensor | None = None,
        share: float = 1.0,
    ) -> Taught:
        """Scores the chunk of a window and learns it after: what the guards say, the lesson, and the nats of both.

        Args:
            labels: how many of the window's last tokens are scored; without it the nats are those of the lesson.
            base: whether the base scores them, too; it does without an adapter.
            given: where the text ends that was given, if the model itself has written the chunk after it: that is
                learned only where it does not repeat itself.
            text: token ids of which the window is one; the document's without it.
            only: (window.labels,) which of the window's labels count; all without it.
            share: of the learning rate.
        """
        ids = torch.tensor(window.of(self.tokens if text is None else text))
        count = window.labels if only is None else int(only.sum())
        if labels == 0:
            count = 0  # nothing of the chunk is new here
        fresh = self.fresh
        base_nll: float | None = None
        nll: float | None = None
        learned: Learned | None = None
        dropped = False
        # 1. the base, unless the adapter is still the base; where it does not score, both read a piece now and then
        if labels and (self.learner is None or (base and not fresh)):
            base_nll = self._sum(ids, labels, adapter=False)
        elif text and count < MIN_LABELS:
            return Taught(None)
        elif self.learner is not None and self._compares(self.learner.chunks if text else window.index):
            dropped = self._worse(ids, window.labels, only) if text else self._worse_on_a_piece(window, given)
        if self.learner is None:
            return Taught(None, base_nll=base_nll)
        # 2. the adapter's score, where the lesson's first forward does not serve as it
        start = time.perf_counter()
        apart = labels is not None and (count < MIN_LABELS or not self.settings.fuses)
        if apart:
            nll = self._sum(ids, labels, adapter=True) if labels else 0.0
        seconds = time.perf_counter() - start if apart else 0.0
        # 3. the lesson, where no guard is against it
        reason = self._against(window, given) if count >= MIN_LABELS else ""
        if reason:
            learned = Learned(skipped=True, reason=reason)
            if nll is None and given is None:
                nll = self._sum(ids, labels or window.labels, only, adapter=True)
        elif count >= MIN_LABELS:
            with self.memory.phase("learn"):
                learned, nats = self.learner.learn(ids, window.labels, share=share, only=only)
            nll = float(nats[-(labels or len(nats)) :].double().sum()) if nll is None else nll
        # 4. the drift guard, where both have scored the chunk
        base_nll = nll if base and fresh else base_nll
        if labels and nll is not None and base_nll is not None and self._dropped(nll, base_nll, labels) and learned:
            learned = dataclasses.replace(learned, kept=False, reason="dropped: worse than the base")
        return Taught(learned, nll, base_nll, seconds, dropped)

    def _against(self, window: Window, given: int | None) -> str:
        """Why a chunk is not to be learned; empty where it is."""
        assert self.learner is not None
        if given is not None:
            seen = self.tokens[window.context_start : window.start]
            if novelty(seen, self.tokens[window.start : window.end]) < MIN_NOVELTY:
                return "repeats itself"
        if self.learner.drift.rests:
            self.learner.drift.passed()
            return "resting"
        return ""

    def _sum(self, ids: Tensor, labels: int, only: Tensor | None = None, *, adapter: bool) -> float:
        """Summed nats of the last `labels` tokens, or of those of them that count."""
        with self.memory.phase("score"):
            return float(self._nats(ids, labels, only, adapter=adapter).double().sum())

    def _nats(self, ids: Tensor, labels: int, only: Tensor | None = None, *, adapter: bool = True) -> Tensor:
        if only is None:
            return self.memory.retrying(lambda: self.forward.nll(ids, labels, adapter=adapter))
        return self.memory.retrying(lambda: self.torch_forward.nll(ids, labels, adapter=adapter, only=only))

    # --- drift ---

    def _compares(self, number: int) -> bool:
        """Whether adapter and base are compared before a chunk or lesson of this number."""
        return not self.fresh and self.settings.learn.guard == "on" and number % PROBE_EVERY == 0

    def _worse(self, ids: Tensor, labels: int, only: Tensor | None = None) -> bool:
        """Lets both score the last `labels` of (S,) tokens; whether the adapter was dropped."""
        adapter, base = (self._sum(ids, labels, only, adapter=which) for which in (True, False))
        return self._dropped(adapter, base, labels if only is None else int(only.sum()))

    def _worse_on_a_piece(self, window: Window, given: int | None) -> bool:
        """The same on the beginning of a chunk, or on the end of what the model was `given`."""
        half = max(2, self.settings.window.size // 8)  # as many tokens before them are context
        start, end, context = window.start, min(window.end, window.start + half), min(half, window.context)
        if given is not None:
            start, end, context = max(0, given - half), given, half
        piece = window_at(window.index, start, end, context=context, sinks=self.sinks)
        return piece.labels > 0 and self._worse(torch.tensor(piece.of(self.tokens)), piece.labels)

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
