"""Loop: a document's units -> one record for each, and a lesson for the adapter after each chunk of them.

Owns: the order of things, what may be learned from, continuing from records that are there.
Does not know: torch, how one unit is asked for (`asking`), how text is generated or learned (`decoding`, `lessons`),
documents, files, printing.
Units: units, tokens, seconds.

Everything the loop decides follows from the records, so that a run that was stopped continues the same: a unit that is
in the records is not translated again, and a lesson that the adapter does not hold yet is learned again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from ..documents import Unit
from ..records import Lesson, Record, UnitTranslated
from .asking import Draft, Request, Translator, key_of, seed_of, translate_unit
from .candidates import Candidates
from .context import Context
from .drafts import Judge
from .job import ATTEMPTS, Attempt, Job
from .names import Memory
from .prompts import Pair

__all__ = ["ATTEMPTS", "Attempt", "Draft", "Job", "Request", "Translator", "seed_of", "translate", "translate_unit"]
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
) -> Iterator[Record]:
    """Translates a document.

    Args:
        kept: the records of the run so far, for one that continues.
        restored: how many of them the adapter has learned already.
        judge: who judges drafts, with two candidates.

    Yields:
        `UnitTranslated` for each unit, in order; `Lesson` before it begins for corrections and source text, and after
        each chunk. Records before `restored` are not yielded again.
    """
    log = _Log(kept, restored)
    # 1. the user's own translations come first
    known = {key_of(pair.source): pair.target for pair in job.corrections}
    known |= {f"{id}\n{key_of(pair.source)}": pair.target for id, pair in job.corrected.items()}
    if "corrections" in job.learn:
        for context, chunk in chunks(job.corrections, job.context_units, teacher):
            yield from log.lesson(partial(teacher.teach, "corrections", (0, 0), context, chunk))
    history: list[Pair] = []  # pairs that passed; prompts show the last ones
    pending: list[Pair] = []  # the end of it that was not taught yet
    lines: list[str] = []  # source text read last
    memory = memory_of(job, [unit.text for unit in job.units])
    taught = read_until = 0
    for number, unit in enumerate(job.units):
        # 2. the language model reads ahead in the source
        if "source" in job.learn and number == read_until:
            before_lines = lines
            lines = _ahead(job.units, number, teacher)
            read_until += len(lines)
            yield from log.lesson(partial(teacher.teach_source, (number, read_until), before_lines, lines))
        # 3. one unit
        shown = _shown(history, pending, job.context_units)
        record = log.unit(partial(translate_unit, job, translator, number, unit, shown, known, memory, judge))
        if log.new():
            yield record
        remember(memory, record)
        if record.status not in ("model", "pieces", "corrected"):
            continue
        # 4. the chunk before it is taught, where this pair does not fit any more
        pair = Pair(record.source, record.text)
        if pending and teacher.full([*pending, pair]):
            before = _last(history[: len(history) - len(pending)], job.context_units)
            of = "self" if "self" in job.learn else "none"
            yield from log.lesson(partial(teacher.teach, of, (taught, number), before, pending))
            taught = number
            pending = []
        history.append(pair)
        pending.append(pair)
        history = _last(history, len(pending) + job.context_units)


def memory_of(job: Job, sources: Sequence[str]) -> Memory:
    """A name memory for a text with these sources, which knows the user's own translations."""
    memory = Memory(Candidates(sources if job.names else (), job.source), job.target, job.glossary.terms)
    for pair in job.corrections:
        memory.learn(pair, by_user=True)
    return memory


def remember(memory: Memory, record: Record) -> None:
    """Takes in a unit that was accepted; the user's own translations are known already."""
    if isinstance(record, UnitTranslated) and record.status in ("model", "pieces"):
        memory.learn(Pair(record.source, record.text))


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
