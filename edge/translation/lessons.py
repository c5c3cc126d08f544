"""Lessons: finished pairs -> windows for the learner, in the form that decoding uses.

Owns: how pairs are packed, which tokens are labels. Does not know: where pairs come from, how learning works.
Units: tokens, nats, seconds.

A lesson on pairs is a window as decoding has it: the context pairs, half of the chunk as a block of source lines and
a block of target lines, the other half line by line. Target lines and their ends alone are labels: the adapter is
trained to translate, never to write the source. A block teaches how a text continues, a line to hold to its source:
lessons of blocks alone lower perplexity further, and what is written with them strays from what it translates. The
model's own translations are learned at a smaller rate, which falls from lesson to lesson: they sharpen what it says
already, and too much of that makes real text unlikely. In a lesson on source text every line is a label, the lines
read before are the context.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from ..records import Learned, Lesson
from ..windows import Window, window_at
from .decoding import encode_more, encode_prompt
from .glossary import Glossary
from .meaning import Meaning
from .prompts import Pair, Prompts

if TYPE_CHECKING:
    from ..core.state import State

SMALL = 256  # tokens of a lesson on corrections: one pass in small steps teaches most, tests/measurements/LOG.md
# Of what corrections have taught, where it is used: all of it is too much, right after the lessons and far from them.
STRENGTH = 0.7
OWN_SHARE = 0.25  # of the rate, for the model's own translations; divided by the number of the lesson


def strength(learn: Collection[str], carried: float | None = None, *, repairs: bool = False) -> float:
    """How much of its adapter a translation uses: `STRENGTH` of what corrections alone have taught, all of any other.

    Args:
        learn: what is learned.
        carried: how much was used of an adapter that it begins with.
        repairs: whether the adapter began as a repair, which is wanted whole.
    """
    if repairs or not set(learn) <= {"corrections"}:
        return 1.0
    if carried is not None:
        return carried
    return STRENGTH if learn else 1.0


class Lessons:
    """The session's learner as a `loop.Teacher`."""

    def __init__(
        self, session: State, prompts: Prompts, glossary: Glossary | None = None, *, judges: bool = False
    ) -> None:
        """`judges`: the model's own translations are judged by `meaning`, and what was
        found is kept with the lesson.
        """
        self.session = session
        self.prompts = prompts
        self.glossary = glossary or Glossary({})
        self.meaning = Meaning(session, prompts)
        self.judges = judges
        self._since = time.perf_counter()

    def full(self, pairs: Sequence[Pair], of: str = "self") -> bool:
        """Whether what is learned is more than a chunk, or, even without context, all of it more than a window; for
        corrections more than `SMALL`.
        """
        ids, marks = self._ids([], pairs, whole=False)
        window = self.session.settings.window
        most = min(window.chunk, SMALL) if of == "corrections" else window.chunk
        return len(ids) - marks.index(True) > most or len(ids) > window.size

    def source_full(self, sources: Sequence[str]) -> bool:
        """Whether source lines are more than a chunk."""
        return len(encode_more(self.session, _lines(sources))) > self.session.settings.window.chunk

    def window(
        self, context: Sequence[Pair], pairs: Sequence[Pair], *, whole: bool = False
    ) -> tuple[list[int], list[bool]]:
        """Token ids of a lesson's text, and which of them are labels. `whole`: in the paper's form, as one block.

        The oldest context pairs are left out where the window has no room for them.
        """
        shown = self.prompts.context(context)
        for first in range(len(shown) + 1):
            ids, marks = self._ids(shown[first:], pairs, whole=whole)
            if len(ids) <= self.session.settings.window.size:
                break
        return ids, marks

    def _ids(self, shown: Sequence[Pair], pairs: Sequence[Pair], *, whole: bool) -> tuple[list[int], list[bool]]:
        ids = list[int]()
        marks = list[bool]()
        for given, said in self.prompts.lesson(shown, pairs, self.glossary.applying, whole=whole):
            before = encode_more(self.session, given) if ids else encode_prompt(self.session, self.prompts, given)
            answer = encode_more(self.session, said)
            ids += before + answer
            marks += [False] * len(before) + [True] * len(answer)
        return ids, marks

    def teach(self, of: str, span: tuple[int, int], context: Sequence[Pair], pairs: Sequence[Pair]) -> Lesson:
        """Teaches one chunk of pairs; `of` none only closes it, `oracle` teaches it in the paper's form."""
        if of == "none" or self.session.learner is None:
            return self._lesson("none", span, sum(len(encode_more(self.session, p.target)) for p in pairs), [])
        gains: list[float] = []
        share = 1.0
        if of == "self":
            share = OWN_SHARE / (1 + self.session.learner.chunks)
            if self.judges:
                gains = self.meaning.gains(pairs)
        ids, marks = self.window(context, pairs, whole=of == "oracle")
        return self._lesson(of, span, sum(marks), self._learn(ids, marks, share), gains)

    def teach_source(self, span: tuple[int, int], before: Sequence[str], sources: Sequence[str]) -> Lesson:
        """Teaches source lines; the lines `before` them are the context."""
        new = encode_more(self.session, _lines(sources))
        if self.session.learner is None:
            return self._lesson("none", span, len(new), [])
        ids = [*self.session.base.encode(_lines(before)), *new]
        labels = min(len(new), len(ids) - 1)
        marks = [False] * (len(ids) - labels) + [True] * labels
        return self._lesson("source", span, labels, self._learn(ids, marks))

    def windows(self, ids: list[int], marks: list[bool]) -> Iterator[tuple[Window, torch.Tensor]]:
        """Windows of these token ids, and (labels,) which of each one's new tokens are labels: one window, more where
        a single long line is more than a chunk.
        """
        settings = self.session.settings
        chunk = settings.window.chunk
        size = settings.window.size
        for start in range(marks.index(True), len(ids), chunk):
            end = min(start + chunk, len(ids))
            window = window_at(0, start, end, context=size - (end - start), sinks=self.session.sinks)
            yield window, torch.tensor(marks[start:end])

    def nll(self, ids: list[int], marks: list[bool], *, adapter: bool) -> float:
        """Summed nats of those of these tokens that are labels; nothing is learned."""
        session = self.session
        session.reading = None
        total = 0.0
        with session.memory.phase("score"):
            for window, only in self.windows(ids, marks):
                read = torch.tensor(window.of(ids))
                nll = partial(session.torch_forward.nll, read, window.labels, adapter=adapter, only=only)
                total += float(session.memory.retrying(nll).double().sum())
        return total

    def _learn(self, ids: list[int], marks: list[bool], share: float = 1.0) -> list[tuple[Learned, float]]:
        session = self.session
        assert session.learner is not None
        session.reading = None  # it is the adapter's of before, and its memory is needed
        done = []
        for window, marked in self.windows(ids, marks):
            taught = session.teach(window, text=ids, only=None if marked.all() else marked, share=share)
            if taught.learned is not None:
                done.append((taught.learned, taught.nll or 0.0))
                session.memory.watch()
        return done

    def _lesson(
        self,
        of: str,
        span: tuple[int, int],
        tokens: int,
        done: list[tuple[Learned, float]],
        gains: Sequence[float] = (),
    ) -> Lesson:
        now = time.perf_counter()
        since = self._since
        self._since = now
        index = self.session.chunk_index
        self.session.finish_chunk(self.session.position)
        self.session.at_rest = True
        return Lesson(
            index=index,
            of=of,
            start=span[0],
            end=span[1],
            tokens=tokens,
            nll=sum(nll for _, nll in done) if done else None,
            seconds=now - since,
            peak_bytes=self.session.meter.peak,
            learned=done[-1][0] if done else None,
            gains=tuple(gains),
        )


def _lines(texts: Sequence[str]) -> str:
    return "".join(text + "\n" for text in texts)
