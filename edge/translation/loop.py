"""Loop: a document's units -> one record for each, and a lesson for the adapter after each chunk of them.

Owns: the order of things, what may be learned from.
Does not know: torch, how one unit is asked for (`asking`), how text is generated or learned (`decoding`, `lessons`),
which records are there already (`log`), documents, files, printing.
Units: units, tokens, seconds.

Everything the loop decides follows from the records, so that a run that was stopped continues the same: a unit that is
in the records is not translated again, and a lesson that the adapter does not hold yet is learned again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from ..documents import Unit
from ..records import Lesson, Record, UnitTranslated
from .asking import Draft, Request, Translator, seed_of, translate_unit
from .context import Context
from .drafts import Judge
from .job import ATTEMPTS, Attempt, Job
from .log import Log
from .passed import Passed
from .prompts import Pair, key
from .recall import Recall
from .revision import Revision
from .together import Together

__all__ = ["ATTEMPTS", "Attempt", "Draft", "Job", "Request", "Translator", "seed_of", "translate", "translate_unit"]
PASSED = ("model", "pieces", "corrected")  # what is shown and learned
LEARN = ("self", "source", "corrections")


class Teacher(Protocol):
    """Whoever packs pairs into chunks and teaches them."""

    def full(self, pairs: Sequence[Pair], of: str = "self") -> bool:
        """Whether `pairs` are more than one lesson `of` that kind holds: a chunk, for corrections a part of one."""
        ...

    def source_full(self, sources: Sequence[str]) -> bool:
        """Whether source lines are more than one chunk."""
        ...

    def teach(self, of: str, span: tuple[int, int], context: Sequence[Pair], pairs: Sequence[Pair]) -> Lesson:
        """Teaches a chunk; `of` none teaches nothing."""
        ...

    def teach_source(self, span: tuple[int, int], before: Sequence[str], sources: Sequence[str]) -> Lesson:
        """Teaches source lines as plain text, after the lines `before` them."""
        ...


def translate(
    job: Job,
    translator: Translator,
    teacher: Teacher,
    log: Log | None = None,
    judge: Judge | None = None,
    revision: Revision | None = None,
) -> Iterator[Record]:
    """Translates a document.

    Args:
        log: the records of a run that continues.
        judge: who judges drafts, with two candidates.
        revision: what the user corrects meanwhile; taken in before the first unit, between chunks, and at the end.

    Yields:
        `UnitTranslated` for each unit, in order; `Lesson` before it begins for corrections and source text, and after
        each chunk; `Corrected` where the user has corrected something, with what follows from it (`revision`).
    """
    log = log or Log()
    revision = revision or Revision(job.units, (job.source, job.target))
    passed = Passed(job.context_units)
    recall = Recall(job)
    known = _known(job)
    together = Together(job, translator, known, recall.memory)
    once = partial(translate_unit, job, together, known=known, memory=recall.memory, judge=judge, similar=recall.lines)
    teach = partial(_corrections, job, teacher, log)
    again = partial(_once_more, job, once, revision)
    ahead = _Ahead(job.units, teacher, log)
    of = "self" if "self" in job.learn else "none"

    def revise() -> Generator[Record, None, None]:
        passed.change((yield from revision.take_in(log, known, teach, again, recall.see)))

    # 1. the user's own translations come first
    if "corrections" in job.learn:
        yield from teach(0, job.corrections)
    yield from revise()
    for number, unit in enumerate(job.units):
        # 2. the language model reads ahead in the source
        if "source" in job.learn:
            yield from ahead.read(number)
        # 3. one unit
        shown = together.context(job.units, number, passed.shown(), log.lessons)
        record = log.unit(partial(once, number, unit, shown))
        revision.settled.see(record)
        if log.new():
            yield record
        recall.see(record)
        if record.status not in PASSED:
            continue
        # 4. the chunk before it is taught, where this pair does not fit any more, after what the user has made of it
        pair = Pair(record.source, record.text)
        if passed.pending and teacher.full([*passed.pending, pair]):
            yield from revise()
            pair = Pair(record.source, revision.settled.units[unit.id].text)
            yield from log.lesson((passed.taught, number), passed.lesson(teacher.teach, of))
            passed.close(number)
        passed.pending.append(pair)
    yield from revise()


def _known(job: Job) -> dict[str, str]:
    """The user's own translations, by source text; those of one unit alone by its id and source text."""
    known = {key(pair.source): pair.target for pair in (*job.carried, *job.corrections)}
    return known | {f"{id}\n{key(pair.source)}": pair.target for id, pair in job.corrected.items()}


def _corrections(job: Job, teacher: Teacher, log: Log, done: int, pairs: Sequence[Pair]) -> Iterator[Lesson]:
    """Lessons on the user's own translations, after `done` units."""
    for context, chunk in chunks(pairs, job.context_units, teacher, "corrections"):
        yield from log.lesson((done, done), partial(teacher.teach, "corrections", context=context, pairs=chunk))


def _once_more(job: Job, once: Callable[..., UnitTranslated], revision: Revision, id: str) -> UnitTranslated:
    """A unit that was translated before, after the pairs that stand before it now; as it is, where that goes wrong."""
    number = revision.number[id]
    done = revision.settled.units
    before = [done[unit.id] for unit in job.units[max(0, number - 2 * job.context_units) : number]]
    pairs = [Pair(unit.source, unit.text) for unit in before if unit.status in PASSED]
    shown = pairs[max(0, len(pairs) - job.context_units) :]
    record = once(number, job.units[number], Context(shown, (), job.context_units))
    if record.status == "marked":
        record = replace(record, text=done[id].text, status=done[id].status)
    return replace(record, end=len(done))


def chunks(
    pairs: Sequence[Pair], context_units: int, teacher: Teacher, of: str = "self"
) -> Iterator[tuple[list[Pair], list[Pair]]]:
    """All of `pairs` as (context, chunk), each chunk as long as the teacher takes it in a lesson `of` that kind.

    What is left over, less than half of one, goes with the one before where a chunk of text has room: a lesson on
    little is a step as large as any.
    """
    starts = [0]
    for end in range(2, len(pairs) + 1):
        if teacher.full(pairs[starts[-1] : end], of):
            starts.append(end - 1)
    over = pairs[starts[-1] :] if len(starts) > 1 else ()
    if over and not teacher.full([*over, *over], of) and not teacher.full(pairs[starts[-2] :]):
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(pairs)], strict=True):
        if end > start:
            yield list(pairs[max(0, start - context_units) : start]), list(pairs[start:end])


class _Ahead:
    """The source text, read as plain text before it is translated: one chunk after the other."""

    def __init__(self, units: Sequence[Unit], teacher: Teacher, log: Log) -> None:
        self._units = units
        self._teacher = teacher
        self._log = log
        self._lines: list[str] = []  # read last
        self._end = 0  # first unit that was not read

    def read(self, number: int) -> Iterator[Lesson]:
        """The lesson on the chunk that begins with unit `number`; none where that unit is in a chunk that was read."""
        if number < self._end:
            return
        before = self._lines
        self._lines = self._chunk(number)
        self._end = number + len(self._lines)
        lesson = partial(self._teacher.teach_source, before=before, sources=self._lines)
        yield from self._log.lesson((number, self._end), lesson)

    def _chunk(self, first: int) -> list[str]:
        """The source lines from unit `first` on that make one chunk; at least one."""
        lines = [self._units[first].text]
        for unit in self._units[first + 1 :]:
            if self._teacher.source_full([*lines, unit.text]):
                break
            lines.append(unit.text)
        return lines
