"""Loop: prompt -> tokens, learning from every finished chunk (of the prompt alone with `learn.mode=read`).

Owns: when a chunk is finished, when the KV cache is rebuilt, sampling, the text stream, why it ended.
Does not know: how logits or updates are computed, files, printing.
Units: tokens, nats, seconds. Source: arXiv 2401.11504, section 3.2 (generation, KV cache reuse).

The chunks of a document lie at multiples of the chunk size from its start. A chunk may begin in the prompt and
be finished by generated tokens; it is learned as one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import windows
from .errors import InputError
from .model import control
from .model.base import Base
from .model.forward import Cache
from .model.picking import Picker
from .records import ChunkRead, ChunkWritten, Learned, TextPiece

if TYPE_CHECKING:
    from .core.state import State


def read(state: State) -> Iterator[ChunkRead]:
    """Learns every finished chunk of the document and of what is coming; the rest waits as context."""
    chunk = state.settings.window.chunk
    while state.fill(state.position + chunk):
        start = time.perf_counter()
        window = state.window(state.position + chunk)
        taught = state.teach(window)
        state.memory.watch()
        state.finish_chunk(window.end)
        state.at_rest = True
        yield ChunkRead(
            index=window.index,
            start=window.start,
            end=window.end,
            of=len(state.tokens) + state.coming.waiting,
            tokens=window.labels,
            adapter_nll=taught.nll or 0.0,
            seconds=time.perf_counter() - start,
            peak_bytes=state.meter.peak,
            learned=taught.learned,
        )


def generate(
    state: State, max_tokens: int, *, written: int = 0, reading: bool = False
) -> Iterator[ChunkRead | TextPiece | ChunkWritten]:
    """Decodes up to `max_tokens` tokens after the document so far.

    Args:
        written: how many of the document's last tokens were generated before, by a loop that this one resumes from;
            they count among `max_tokens`, and their text is yielded first.
        reading: the loop that this one resumes from was reading, and had not finished.

    Yields:
        `ChunkRead` for what had to be read first, `TextPiece` as text becomes certain, `ChunkWritten` for each
        finished chunk and for the last, unfinished one; its `finish` says why the text ended:
        `length`, `eos` or `stop`.
    """
    # 1. what the context cannot hold is read into the adapter
    settings = state.settings
    if not state.fill(1):
        raise InputError("there is no text to continue", "a word or more: this model's texts begin with no token of "
                         "their own", "name a prompt")  # fmt: skip
    long = state.fill(state.position + settings.window.context + 1)
    if reading or (not written and long):
        yield from read(state)
    writing = Writing(state, max_tokens, written)
    before = writing.said_before()
    if before:
        yield TextPiece(before, written)
    while not writing.finish:
        # 2. the next token, and what text has become certain with it
        piece = writing.next()
        if piece:
            yield TextPiece(piece, len(writing.made))
        # 3. a finished chunk is learned; the last one may be unfinished
        if writing.whole or writing.finish:
            yield writing.end_chunk()


class Writing:
    """One text while it is written: its cache, what is made of the open chunk, why it ended.

    Attributes:
        first: the document's first token that was generated.
        made: tokens since the last record.
        finish: `length`, `eos` or `stop` when the text has ended; `before` where it had ended before this loop began.
    """

    def __init__(self, state: State, max_tokens: int, written: int) -> None:
        settings = state.settings.generate
        self.state = state
        self.max_tokens = max_tokens
        self.written = written
        self.first = len(state.tokens) - written
        self.made: list[int] = []
        self.finish = ""
        self._picker = Picker(settings, control.barred(state.base), state.settings.seed)
        self._stream = TextStream(state.base, list(state.tokens[max(0, self.first - 8) : self.first]), settings.stop)
        self._cache: Cache | None = None
        self._logits = torch.empty(0)
        self._nll = self._decoding = 0.0
        self._began = time.perf_counter()

    @property
    def whole(self) -> bool:
        """Whether the open chunk is full."""
        return len(self.state.tokens) - self.state.position >= self.state.settings.window.chunk

    @property
    def count(self) -> int:
        """Tokens that were generated, by loops before this one too."""
        return len(self.state.tokens) - self.first

    def said_before(self) -> str:
        """The text of what a loop before this one generated."""
        said = "".join([self._stream.add(token) for token in self.state.tokens[self.first :]])
        if self.written and self.written >= self.max_tokens:
            self.finish = "before"
            said += self._stream.flush()
        return said

    def next(self) -> str:
        """Decodes one token; the text that has become certain with it."""
        state = self.state
        start = time.perf_counter()
        with state.memory.phase("decode"):
            # a cache is built at the start, after an update (`rebuild`), and when it has grown to W
            if self._cache is None:
                context = _context(state)
                self._logits, self._cache = state.memory.retrying(lambda: state.forward.prefill(context))
                self._picker.begin(state.tokens[-len(context) :])
            token, cost = self._picker.pick(self._logits, len(state.tokens))
            ended = token in state.base.eos_ids and not state.settings.generate.ignore_eos
            state.tokens.append(token)
            self.made.append(token)
            self._nll += cost
            if self.count < self.max_tokens and not ended:
                self._read(token)
        self._decoding += time.perf_counter() - start
        piece = self._stream.add(token)
        stopped = self._stream.stopped
        enough = self.count >= self.max_tokens
        self.finish = "eos" if ended else "stop" if stopped else "length" if enough else ""
        if self._cache is not None and self._cache.length >= state.settings.window.size:
            self._cache = None
        return piece + self._stream.flush() if self.finish else piece

    def _read(self, token: int) -> None:
        assert self._cache is not None
        try:
            self._logits = self.state.forward.decode(token, self._cache)
        except (RuntimeError, MemoryError) as error:  # a cache that is half a token longer is of no use
            self.state.memory.recover(error)
            self._cache = None

    def end_chunk(self) -> ChunkWritten:
        """Learns the open chunk where it is full, and begins the next one."""
        state = self.state
        index = state.chunk_index
        start = state.position
        whole = self.whole
        learned = self._learn() if whole else None
        if whole:
            state.finish_chunk(len(state.tokens))
        state.at_rest = whole and self._cache is None
        now = time.perf_counter()
        record = ChunkWritten(
            index=index,
            start=start,
            end=len(state.tokens),
            tokens=len(self.made),
            nll=self._nll,
            seconds=now - self._began,
            decode_seconds=self._decoding,
            peak_bytes=state.meter.peak,
            token_ids=tuple(self.made),
            learned=learned,
            finish=self.finish,
        )
        self.made = []
        self._nll = self._decoding = 0.0
        self._began = now
        return record

    def _learn(self) -> Learned | None:
        state = self.state
        if state.learner is None or state.settings.learn.mode != "all":
            return None
        if state.settings.generate.cache == "rebuild":
            self._cache = None
        with state.memory.paged(state.forward, self._cache):
            taught = state.teach(state.window(len(state.tokens)), given=self.first)
        if taught.dropped:
            self._cache = None  # it is that of an adapter that is no more
        state.memory.watch()
        return taught.learned


def _context(state: State) -> Tensor:
    """What a new cache holds: L tokens before the open chunk, and the chunk so far; never more than W - 1."""
    settings = state.settings.window
    count = min(settings.context + len(state.tokens) - state.position, settings.size - 1)
    return torch.tensor(windows.last(state.tokens, count, state.sinks))


class TextStream:
    """Token ids -> text, given out only when it can no longer change.

    Held back: incomplete characters, and whatever may be the beginning of a stop string.
    """

    def __init__(self, base: Base, before: list[int], stop: tuple[str, ...]) -> None:
        """`before`: the tokens that the text follows."""
        self.decode = base.decode
        self.ends = base.eos_ids
        self.stop = tuple(s for s in stop if s)
        self.stopped = False
        # A tokenizer may treat the first token of a text specially, so decoding starts some tokens back.
        self._ids = before[-8:]
        self._sent = self.decode(self._ids)
        self._held = ""

    def add(self, token: int) -> str:
        """Text that has become certain with this token; nothing for a token that ends the text."""
        if token in self.ends:
            return ""
        self._ids.append(token)
        text = self.decode(self._ids)
        if text.endswith("�"):
            return ""
        self._held += text[len(self._sent) :]
        self._ids = self._ids[-16:]
        self._sent = self.decode(self._ids)
        for stop in self.stop:
            at = self._held.find(stop)
            if at >= 0:
                self._held = self._held[:at]
                self.stopped = True
        keep = 0 if self.stopped else self._undecided()
        ready = self._held[: len(self._held) - keep]
        self._held = self._held[len(ready) :]
        return ready

    def flush(self) -> str:
        """What was still held back when the text ended."""
        rest = "" if self.stopped else self._held + self.decode(self._ids)[len(self._sent) :]
        self._held = ""
        return rest

    def _undecided(self) -> int:
        """Length of the longest tail that a stop string may begin with."""
        longest = 0
        for stop in self.stop:
            for size in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:size]):
                    longest = size
                    break
        return longest
