"""Evaluation on aligned text: perplexity of the references, and translations to be scored, by protocol.

Owns: the protocols, the order of scoring, translating and learning. Does not know: files, printing, how scores are made
of translations (`scores`).
Units: tokens, nats; chunks of pairs.

Protocols, never mixed:

    off          the base alone
    oracle       after each chunk its reference is learned, as the code of arXiv 2401.11504 does, and in its form
    self         the model's own translations that passed the guards are learned, a chunk of tokens at a time
    source       the source lines of each chunk are learned as plain text, before it is translated
    corrections  the references of the first tenth of the chunks are learned, nothing after

Perplexity is teacher-forced, in the paper's form: each chunk's reference lines after its source lines, with the
reference pairs before it as context in every protocol, so that only the adapter differs; torch computes it, whatever
translates. A prompt that translates shows what its protocol knows of the lines before: the references of past chunks in
`oracle`, those that are given in `corrections`, else the translations made so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..documents import Unit
from ..records import ChunkEvaluated, Learned, Lesson
from . import loop, recall
from .context import Context
from .drafts import Judge
from .loop import Job, Translator
from .names import Memory
from .prompts import Pair
from .together import Together

if TYPE_CHECKING:
    from ..core.state import State
    from .lessons import Lessons

USUAL = ("off", "oracle", "self", "corrections")  # where none are named
PROTOCOLS = (*USUAL, "source")
GIVEN = 10  # of `corrections`: the first of so many chunks, where nothing else is said


@dataclass(frozen=True)
class Block:
    """Pairs [start, end) of the text.

    `translated`: whether they are to be translated, not only scored; `given`: whether `corrections` may know them.
    """

    start: int
    pairs: Sequence[Pair]
    translated: bool
    given: bool

    @property
    def end(self) -> int:
        """The pair after it."""
        return self.start + len(self.pairs)


def blocks(
    chunks: Sequence[Sequence[Pair]],
    lessons: Lessons,
    wanted: Callable[[Sequence[Pair]], bool],
    given: int | None = None,
) -> list[Block]:
    """The chunks of an aligned text; those that are too long for a window are split.

    `wanted`: whether a chunk is to be translated; `given`: of how many of the first the references are given to
    `corrections`; None for a tenth of all.
    """
    known = -(-len(chunks) // GIVEN) if given is None else given
    result: list[Block] = []
    for number, chunk in enumerate(chunks):
        for _, pairs in loop.chunks(chunk, 0, lessons):
            result.append(Block(result[-1].end if result else 0, pairs, wanted(chunk), number < known))
    return result


def evaluate(
    protocol: str,
    text: Sequence[Block],
    job: Job,
    session: State,
    translator: Translator,
    lessons: Lessons,
    done: Sequence[ChunkEvaluated] = (),
    judge: Judge | None = None,
) -> Iterator[ChunkEvaluated]:
    """Goes through the text under one protocol, in a session of its own.

    Args:
        job: languages, glossary, context; its units are not looked at.
        done: chunks that this session has learned already, where a run continues.
        judge: who judges drafts, with two candidates.

    Yields:
        One record per chunk, after it was learned.
    """
    references = [pair for block in text for pair in block.pairs]
    memory = recall.memory_of(job, _sources(references))
    own, pending = _done_before(protocol, done, text, lessons, memory)
    for index, block in list(enumerate(text))[len(done) :]:
        begin = time.perf_counter()
        context = references[max(0, block.start - job.context_units) : block.start]
        taught = _is_taught(protocol, block)
        learned: Learned | None = None
        if protocol == "source":
            before = text[index - 1].pairs if index else ()
            learned = lessons.teach_source((block.start, block.end), _sources(before), _sources(block.pairs)).learned
        # 1. translated by the adapter as it is
        texts: tuple[str, ...] = ()
        marked = 0
        if block.translated or protocol == "self":
            history = context if protocol == "oracle" else own[max(0, len(own) - job.context_units) :]
            texts, marked = _translated(job, translator, block, history, memory, judge)
        own += _shown(protocol, block, texts)
        # 2. the references are scored; one forward does it where they are learned too
        if protocol == "oracle" and session.settings.lessons_score:
            tokens, nll, learned = _taught(lessons.teach(protocol, (block.start, block.end), context, block.pairs))
        else:
            tokens, nll = reference_nll(lessons, context, block.pairs, adapter=protocol != "off")
            # 3. what the protocol may know is learned
            if taught:
                learned = _teach(protocol, lessons, block, references, job.context_units)
        if protocol == "self":
            pairs = _accepted(block, texts)
            if _is_full(pending, pairs, lessons):
                earlier = len(own) - len(pairs) - len(pending)
                before = own[max(0, earlier - job.context_units) : earlier]
                learned = lessons.teach("self", (block.start, block.end), before, pending).learned
                pending = []
            pending += pairs
        _remember(memory, block, _accepted(block, texts), taught)
        session.at_rest = True
        yield ChunkEvaluated(
            index=index,
            start=block.start,
            end=block.end,
            tokens=tokens,
            nll=nll,
            seconds=time.perf_counter() - begin,
            peak_bytes=session.meter.peak,
            texts=texts if block.translated or protocol == "self" else (),
            marked=marked,
            learned=learned,
        )


def _teach(
    protocol: str, lessons: Lessons, block: Block, references: Sequence[Pair], context_units: int
) -> Learned | None:
    """Teaches the references of a chunk, in as many lessons as `loop` would make of them; the last one's numbers."""
    parts = [block.pairs]
    if protocol == "corrections":
        parts = [part for _, part in loop.chunks(block.pairs, 0, lessons, protocol)]
    learned: Learned | None = None
    start = block.start
    for part in parts:
        context = references[max(0, start - context_units) : start]
        learned = lessons.teach(protocol, (start, start + len(part)), context, part).learned
        start += len(part)
    return learned


def _done_before(
    protocol: str, done: Sequence[ChunkEvaluated], text: Sequence[Block], lessons: Lessons, memory: Memory
) -> tuple[list[Pair], list[Pair]]:
    """The session's own translations so far, and those of them that `self` has not taught yet; names are remembered."""
    own: list[Pair] = []
    pending: list[Pair] = []
    for record, block in zip(done, text, strict=False):
        pairs = _accepted(block, record.texts)
        _remember(memory, block, pairs, _is_taught(protocol, block))
        pending = pairs if _is_full(pending, pairs, lessons) else [*pending, *pairs]
        own += _shown(protocol, block, record.texts)
    return own, pending


def _is_full(pending: Sequence[Pair], pairs: Sequence[Pair], lessons: Lessons) -> bool:
    """Whether what waits for its lesson has no room for these pairs."""
    return bool(pending) and lessons.full([*pending, *pairs])


def reference_nll(
    lessons: Lessons, context: Sequence[Pair], pairs: Sequence[Pair], *, adapter: bool
) -> tuple[int, float]:
    """(tokens, nats) of the reference lines of a chunk."""
    ids, marks = lessons.window(context, pairs, whole=True)
    return sum(marks), lessons.nll(ids, marks, adapter=adapter)


def _taught(lesson: Lesson) -> tuple[int, float, Learned | None]:
    assert lesson.nll is not None
    return lesson.tokens, lesson.nll, lesson.learned


def _sources(pairs: Sequence[Pair]) -> list[str]:
    return [pair.source for pair in pairs]


def _is_taught(protocol: str, block: Block) -> bool:
    """Whether the references of a chunk are given after it."""
    return protocol == "oracle" or (protocol == "corrections" and block.given)


def _remember(memory: Memory, block: Block, own: Sequence[Pair], given: bool) -> None:
    """The names of a chunk: of its references where they are given, as the user's own, else of what was translated."""
    for pair in block.pairs if given else own:
        memory.learn(pair, by_user=given)


def _shown(protocol: str, block: Block, texts: Sequence[str]) -> Sequence[Pair]:
    """What later prompts show of a chunk: its references where they are corrections, else what was translated."""
    return block.pairs if protocol == "corrections" and block.given else _accepted(block, texts)


def _translated(
    job: Job, translator: Translator, block: Block, history: Sequence[Pair], memory: Memory, judge: Judge | None
) -> tuple[tuple[str, ...], int]:
    """A translation for each pair's source, empty where it failed the guards and is of no use; how many failed."""
    context = Context(history, (), job.context_units)
    texts = []
    marked = 0
    units = [Unit(f"u{number:06d}", pair.source) for number, pair in enumerate(block.pairs, block.start)]
    together = Together(job, translator, {}, memory)
    for number, unit in enumerate(units):
        shown = together.context(units, number, context)
        record = loop.translate_unit(job, together, block.start + number, unit, shown, {}, memory, judge)
        marked += record.status == "marked"
        texts.append("" if record.status == "marked" else record.text)
        if record.status in ("model", "pieces"):
            context = context.also(Pair(unit.text, record.text))
    return tuple(texts), marked


def _accepted(block: Block, texts: Sequence[str]) -> list[Pair]:
    return [Pair(pair.source, text) for pair, text in zip(block.pairs, texts, strict=False) if text]
