"""One document's life: a fresh adapter, chunks, discard.

Owns: the adapter, the learner, the forward path and the document's tokens together.
Does not know: how a loop proceeds (`score.py`, `generate.py`), files, printing.
Units: tokens, bytes, seconds.
"""

from __future__ import annotations

import dataclasses
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import torch

from . import generate as generating
from . import score as scoring
from . import sources
from .adapter import Adapter
from .allocator import release_memory, trim
from .amounts import format_bytes
from .base import Base
from .baseline import FullAttention
from .budget import Plan
from .device import PeakMeter, capped, is_out_of_memory
from .errors import BudgetError, describe
from .forward import Cache, Forward, Opener, TorchForward
from .learner import Learner
from .paging import outside
from .records import ChunkRead, ChunkScore, ChunkWritten, Learned, TextPiece
from .tensorfile import Part
from .tokenstream import TYPE, TokenStream
from .windows import Window, window_at

Result = TypeVar("Result")


class Session:
    """One document: its tokens so far, and the adapter that learns them. Use it as a context manager.

    Calls add to the document in turn: `score` and `read` take text that exists, `generate` continues it.

    Attributes:
        tokens: token ids of the document so far, BOS included.
        coming: text that the loops have not taken yet.
        position: first token that is not yet part of a finished chunk.
        chunk_index: number of finished chunks.
        sinks: how many of the document's first tokens every window begins with.
        forward: what scores and writes; `torch_forward` is what learns, the same one or beside it.
        reading: a cache that a translator goes on with from line to line; dropped before a lesson.
        full_limit: tokens that the base with full attention sees at most, where it scores too (`baseline.py`).
        at_rest: whether a loop that has just yielded can go on from `tensors` alone; a KV cache is not among them.
    """

    def __init__(self, base: Base, plan: Plan, other_path: Opener | None = None) -> None:
        """`other_path`: opens the forward path that scores and writes in torch's place; the learner keeps torch's."""
        self.base = base
        self.plan = plan
        self.settings = settings = plan.settings
        self.tokens = array(TYPE)
        self.coming = TokenStream.of(())
        self.position = 0
        self.chunk_index = 0
        self.at_rest = True
        self.full_limit: int | None = None
        self.reading: object | None = None
        self.sinks = base.sinks(settings.window)
        self.meter = PeakMeter(base.device)
        self.adapter: Adapter | None = None
        self.learner: Learner | None = None
        if settings.learn.mode != "none":
            fused = settings.compute.lora == "fused"
            self.adapter = Adapter(base, settings.adapter, seed=settings.learn.seed, fused=fused)
        self.torch_forward = TorchForward(base, self.adapter, settings.compute)
        self.forward: Forward = self.torch_forward if other_path is None else other_path(self.adapter)
        self.pages = outside(base.device, sources.pages_folder())
        if self.adapter is not None:
            pages = self.pages if settings.compute.paging != "off" else None
            moments = self.pages if settings.compute.paging == "all" else None
            self.learner = Learner(
                self.adapter, self.torch_forward, settings.learn, settings.learn_context, moments, pages, self.sinks
            )
            self.learner.retry = self.retrying

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Discards the adapter. The base is bit for bit what it was."""
        if self.adapter is not None:
            self.adapter.discard()
        self.adapter = self.learner = self.reading = None
        self.pages.close()

    # --- the three loops ---

    def score(
        self, text: str, *, with_base: bool = True, max_tokens: int | None = None, full: bool = False
    ) -> Iterator[ChunkScore]:
        """Scores `text` chunk by chunk, each with the adapter that has learned all chunks before it.

        What `read` has left waiting is learned with the first chunk, and not scored. `full`: with the base that reads
        everything so far by attention, too (`baseline.py`).
        """
        return self.score_ids(self._encode(text)[:max_tokens], with_base=with_base, full=full)

    def score_ids(
        self, input_ids: Sequence[int] | TokenStream, *, with_base: bool = True, full: bool = False
    ) -> Iterator[ChunkScore]:
        """`score` for text that is tokenised, or that is while it is read."""
        self._feed(input_ids if isinstance(input_ids, TokenStream) else TokenStream.of(input_ids))
        against = None
        if full:
            against = FullAttention(self.torch_forward, self.plan, self.sinks, self.full_limit)
            self.full_limit = against.limit
        return scoring.score(self, with_base=with_base, against=against)

    def read(self, text: str) -> Iterator[ChunkRead]:
        """Reads `text` into the adapter; an unfinished last chunk waits for what comes next."""
        self._feed(TokenStream.of(()))
        self.tokens.extend(self._encode(text))
        return generating.read(self)

    def generate(
        self, prompt: str | TokenStream = "", *, max_tokens: int = 256, written: int = 0, reading: bool = False
    ) -> Iterator[ChunkRead | TextPiece | ChunkWritten]:
        """Continues the document, `prompt` appended to it, by at most `max_tokens` tokens.

        A document longer than the context is first read into the adapter; nothing is truncated. `written` and
        `reading` go on with a text that was begun before (`generate.generate`).
        """
        self._feed(prompt if isinstance(prompt, TokenStream) else TokenStream.of(()))
        if not isinstance(prompt, TokenStream) and (prompt or not self.tokens):
            self.tokens.extend(self._encode(prompt))
        return generating.generate(self, max_tokens, written=written, reading=reading)

    # --- going on later ---

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """All that the loops go on from, one tensor at a time: the document, the position, what the learner holds."""
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

    # --- memory ---

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measures the peak inside the block, and keeps it under the budget."""
        if self.base.device.kind == "cpu" and name != "decode":  # that phase is entered for every token
            trim()
        with self.meter.phase(name), capped(self.base.device, self.plan.budget):
            yield

    def retrying(self, run: Callable[[], Result]) -> Result:
        """Runs it; when memory runs out, again under a tighter plan, as long as there is one.

        Raises:
            BudgetError: nothing is left to give up.
        """
        while True:
            try:
                return run()
            except (RuntimeError, MemoryError) as error:
                self.recover(error)

    def recover(self, error: BaseException) -> None:
        """A tighter plan, where the error says that memory ran out; any other error is raised again."""
        if not is_out_of_memory(error):
            raise error
        error.__traceback__ = None  # it holds on to every tensor of the failed attempt
        self.tighten(f"memory ran out ({describe(error)[:120]})")

    @contextmanager
    def paged(self, cache: Cache | None) -> Iterator[None]:
        """Inside the block the KV cache lies outside the device's memory, where the plan says so."""
        pages = self.settings.compute.paging in ("cache", "all")
        if cache is None or not pages:
            yield
            return
        self.forward.page_out(cache, self.pages)
        try:
            yield
        finally:
            self.forward.page_in(cache, self.pages)

    def watch(self) -> None:
        """After a chunk: freed heap goes back, and a peak above the budget calls for a tighter plan.

        Raises:
            BudgetError: nothing is left to give up.
        """
        if self.base.device.kind == "cpu":
            trim()
        if self.meter.last > self.plan.budget:
            self.tighten(f"{format_bytes(self.meter.last)} were held")

    def tighten(self, why: str) -> None:
        """Goes one step down the result-preserving ladder.

        Raises:
            BudgetError: there is no further step.
        """
        plan = self.plan.tighter()
        if plan is None:
            term, size = self.plan.prediction.largest_term()
            raise BudgetError(
                f"{why} under the smallest plan (largest term: {term}, {format_bytes(size)})",
                f"no more than {format_bytes(self.plan.budget)}",
                "what was done so far is kept; use a larger budget, a smaller rank or a smaller window",
            )
        self.plan, self.settings = plan, plan.settings
        compute = plan.settings.compute
        if compute.weights == "packed":
            self.base.drop_cached_weights()
        self.forward.settle(compute)
        self.torch_forward.settle(compute)
        if self.learner is not None and compute.paging != "off":
            self.learner.use_pages(self.pages, moments=compute.paging == "all")
        release_memory()

    # --- drift ---

    def probe_drift(self, window: Window) -> None:
        """Every so many chunks, where the base does not score them all: both score a piece of the window, and an
        adapter that stays worse is dropped before it meets the chunk.
        """
        learner, settings = self.learner, self.settings.learn
        if learner is None or self.fresh or not settings.drift_margin or window.index % settings.drift_every:
            return
        half = max(2, self.settings.window.size // 8)
        end = min(window.end, window.start + half)
        piece = window_at(window.index, window.start, end, context=min(half, window.context), sinks=self.sinks)
        with self.phase("score"):
            adapter, base = (scoring.nll_sum(self, piece, piece.labels, adapter=which) for which in (True, False))
        self.compare(None, adapter, base, piece.labels)

    def compare(self, learned: Learned | None, adapter_nll: float, base_nll: float, tokens: int) -> Learned | None:
        """Drops the adapter where it has stayed worse than the base; what was learned, with that said."""
        learner = self.learner
        if learner is None or self.fresh or not learner.drift.sees(adapter_nll, base_nll, tokens):
            return learned
        learner.start_anew()
        return (
            None if learned is None else dataclasses.replace(learned, kept=False, reason="dropped: worse than the base")
        )

    def _feed(self, text: TokenStream) -> None:
        self.fill(sys.maxsize)  # what was given before, where nobody has read it
        self.coming = text

    def _encode(self, text: str) -> list[int]:
        ids = self.base.encode(text)
        bos = self.base.tokenizer.bos_token_id
        return ids[1:] if self.tokens and ids[:1] == [bos] else ids

    # --- what the loops share ---

    def window(self, end: int, *, learning: bool = False) -> Window:
        """The window of the chunk [position, end)."""
        context = self.settings.learn_context if learning else self.settings.window.context
        return window_at(self.chunk_index, self.position, end, context=context, sinks=self.sinks)

    def ids(self, window: Window) -> torch.Tensor:
        """(S,) token ids of a window, on the CPU."""
        return torch.tensor(window.of(self.tokens))

    def fill(self, end: int) -> bool:
        """Takes of what is coming until the document has `end` tokens; whether it has."""
        missing = max(0, end - len(self.tokens))
        if missing > self.coming.waiting and not self.coming.ended:
            with self.meter.phase("text"):  # not under a cap: a tokenizer that gets no memory ends the process
                self.coming.look(missing)
        self.tokens.extend(self.coming.take(missing))
        return len(self.tokens) >= end

    def finish_chunk(self, end: int) -> None:
        """Moves on: [position, end) is done."""
        self.position = end
        self.chunk_index += 1

    @property
    def fresh(self) -> bool:
        """Whether the adapter has not learned yet: it changes nothing, its scores are the base's."""
        return self.learner is None or (self.learner.steps == 0 and not self.learner.adapter.repairs)

    @property
    def fuses(self) -> bool:
        """Whether the first epoch's forward serves as the score."""
        return self.learner is not None and self.settings.fuses
