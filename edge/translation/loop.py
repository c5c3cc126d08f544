"""Loop: a document's units -> one record for each, and a lesson for the adapter after each chunk of them.

Owns: the order of things, what may be learned from, continuing from records that are there.
Does not know: torch, how one unit is asked for (`asking`), how text is generated or learned (`decoding`, `lessons`),
documents, files, printing.
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
from ..records import Corrected, Lesson, Record, UnitTranslated
from .ahead import Ahead
from .asking import Draft, Request, Translator, seed_of, translate_unit
from .context import Context
from .drafts import Judge
from .job import ATTEMPTS, Attempt, Job
from .prompts import Pair, key
from .recall import Recall
from .revision import Revision

__all__ = ["ATTEMPTS", "Attempt", "Draft", "Job", "Request", "Translator", "seed_of", "translate", "translate_unit"]
PASSED = ("model", "pieces", "corrected")  # what is shown and learned
LEARN = ("self", "source", "corrections")


class Teacher(Protocol):
    """Whoever packs pairs into chunks and teaches them."""

    def full(self, pairs: Sequence[Pair]) -> bool:
        """Whether `pairs` are more than one chunk."""
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
    kept: Sequence[Record] = (),
    restored: int = 0,
    judge: Judge | None = None,
    revision: Revision | None = None,
) -> Iterator[Record]:
    """Translates a document.

    Args:
        kept: the records of the run so far, for one that continues.
        restored: how many of them the adapter has learned already.
        judge: who judges drafts, with two candidates.
        revision: what the user corrects meanwhile; taken in before the first unit, between chunks, and at the end.

    Yields:
        `UnitTranslated` for each unit, in order; `Lesson` before it begins for corrections and source text, and after
        each chunk; `Corrected` where the user has corrected something, with what follows from it (`revision`). Records
        before `restored` are not yielded again.
    """
    log = _Log(kept, restored)
    revision = revision or Revision(job.units, (job.source, job.target))
    # 1. the user's own translations come first
    known = {key(pair.source): pair.target for pair in (*job.carried, *job.corrections)}
    known |= {f"{id}\n{key(pair.source)}": pair.target for id, pair in job.corrected.items()}
    if "corrections" in job.learn:
        yield from _corrections(job, teacher, log, 0, job.corrections)
    history: list[Pair] = []  # pairs that passed; prompts show the last ones
    pending: list[Pair] = []  # the end of it that was not taught yet
    lines: list[str] = []  # source text read last
    recall = Recall(job)
    taught = read_until = 0
    ahead = Ahead(job, translator, known, recall.memory)
    once = partial(translate_unit, job, ahead, known=known, memory=recall.memory, judge=judge)

    def revise() -> Generator[Record, None, None]:
        nonlocal history, pending
        teach = partial(_corrections, job, teacher, log)
        again = partial(_once_more, job, once, revision)
        changed = yield from revision.take_in(log, known, teach, again, recall.see)
        history = [changed.get(pair, pair) for pair in history]
        pending = [changed.get(pair, pair) for pair in pending]

    yield from revise()
    for number, unit in enumerate(job.units):
        # 2. the language model reads ahead in the source
        if "source" in job.learn and number == read_until:
            before_lines = lines
            lines = _ahead(job.units, number, teacher)
            read_until += len(lines)
            yield from log.lesson(partial(teacher.teach_source, (number, read_until), before_lines, lines))
            ahead.end()
        # 3. one unit
        context = ahead.context(job.units, number, _shown(history, pending, job.context_units))
        record = log.unit(partial(once, number, unit, context))
        revision.settled.see(record)
        if log.new():
            yield record
        recall.see(record)
        if record.status not in PASSED:
            continue
        # 4. the chunk before it is taught, where this pair does not fit any more, after what the user has made of it
        pair = Pair(record.source, record.text)
        if pending and teacher.full([*pending, pair]):
            yield from revise()
            pair = Pair(record.source, revision.settled.units[unit.id].text)
            before = _last(history[: len(history) - len(pending)], job.context_units)
            of = "self" if "self" in job.learn else "none"
            yield from log.lesson(partial(teacher.teach, of, (taught, number), before, pending))
            ahead.end()
            taught = number
            pending = []
        history.append(pair)
        pending.append(pair)
        history = _last(history, len(pending) + job.context_units)
    yield from revise()


def _corrections(job: Job, teacher: Teacher, log: _Log, done: int, pairs: Sequence[Pair]) -> Iterator[Lesson]:
    """Lessons on the user's own translations, after `done` units."""
    for context, chunk in chunks(pairs, job.context_units, teacher):
        yield from log.lesson(partial(teacher.teach, "corrections", (done, done), context, chunk))


def _once_more(job: Job, once: Callable[..., UnitTranslated], revision: Revision, id: str) -> UnitTranslated:
    """A unit that was translated before, after the pairs that stand before it now; as it is, where that goes wrong."""
    number = revision.number[id]
    done = revision.settled.units
    before = [done[unit.id] for unit in job.units[max(0, number - 2 * job.context_units) : number]]
    pairs = [Pair(unit.source, unit.text) for unit in before if unit.status in PASSED]
    record = once(number, job.units[number], Context(_last(pairs, job.context_units), (), job.context_units))
    if record.status == "marked":
        record = replace(record, text=done[id].text, status=done[id].status)
    return replace(record, end=len(done))


def chunks(pairs: Sequence[Pair], context_units: int, teacher: Teacher) -> Iterator[tuple[list[Pair], list[Pair]]]:
    """All of `pairs` as (context, chunk), each chunk as long as the teacher takes it."""
    start = 0
    for end in range(1, len(pairs) + 1):
        if end == len(pairs) or teacher.full(pairs[start : end + 1]):
            yield list(pairs[max(0, start - context_units) : start]), list(pairs[start:end])
            start = end


def _last(pairs: list[Pair], count: int) -> list[Pair]:
    return pairs[max(0, len(pairs) - count) :]


def _shown(history: list[Pair], pending: list[Pair], keep: int) -> Context:
    return Context(_last(history[: len(history) - len(pending)], keep), tuple(pending), keep)


class _Log:
    """Where the loop stands in the records of a run that continues."""

    def __init__(self, kept: Sequence[Record], restored: int) -> None:
        self.kept = kept
        self.restored = restored
        self.count = 0

    def new(self) -> bool:
        """Counts a record; whether it is to be yielded."""
        self.count += 1
        return self.count > self.restored

    def unit(self, make: Callable[[], UnitTranslated]) -> UnitTranslated:
        """The kept record, or a new one."""
        if self.count < len(self.kept) and isinstance(found := self.kept[self.count], UnitTranslated):
            return found
        return make()

    def corrected(self, notice: Callable[[], Corrected | None]) -> Corrected | None:
        """The kept record, where one stands here; a new one only after all that are kept."""
        if self.count < len(self.kept):
            found = self.kept[self.count]
            return found if isinstance(found, Corrected) else None
        return notice()

    def lesson(self, make: Callable[[], Lesson]) -> Iterator[Lesson]:
        """A lesson that the adapter does not hold yet."""
        if self.new():
            yield make()


def _ahead(units: Sequence[Unit], first: int, teacher: Teacher) -> list[str]:
    """The source lines from unit `first` on that make one chunk; at least one."""
    lines = [units[first].text]
    for unit in units[first + 1 :]:
        if teacher.source_full([*lines, unit.text]):
            break
        lines.append(unit.text)
    return lines
