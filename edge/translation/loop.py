"""Loop: a document's units -> one record for each, and a lesson for the adapter after each chunk of them.

Owns: the order of things, attempts and retries, what may be learned from, continuing from records that are there.
Does not know: torch, how text is generated or learned (`decoding`, `lessons`), documents, files, printing.
Units: units, tokens, seconds.

Everything the loop decides follows from the records, so that a run that was stopped continues the same: a unit that is
in the records is not translated again, and a lesson that the adapter does not hold yet is learned again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

from ..documents import Unit, placeholders, segments
from ..journal import fingerprint
from ..records import Corrected, Lesson, Record, UnitTranslated
from . import guards
from .context import Context
from .glossary import Glossary
from .guards import Case, Limits
from .languages import Language
from .prompts import Pair, Terms
from .revision import Revision, key

SOFT = guards.SOFT  # problems with which a text is still better than none
PASSED = ("model", "pieces", "corrected")  # what is shown and learned
LEARN = ("self", "source", "corrections")


@dataclass(frozen=True)
class Attempt:
    """How the model is asked: greedy, or sampled above temperature 0; with how many context pairs at most."""

    temperature: float = 0.0
    repetition_penalty: float = 1.0
    context: int | None = None


ATTEMPTS = (
    Attempt(),
    Attempt(repetition_penalty=1.15),
    Attempt(temperature=0.5, repetition_penalty=1.1),
    Attempt(temperature=0.8, repetition_penalty=1.1, context=3),
)


class Request(NamedTuple):
    """One unit, or a piece of one, to be translated. `seed`: below 2^31, follows from the unit and the attempt."""

    source: str
    context: Context
    terms: Terms
    attempt: Attempt
    seed: int


class Draft(NamedTuple):
    """What came back; `cut` where the text did not end by itself."""

    text: str
    tokens: int = 0
    cut: bool = False


class Translator(Protocol):
    """Whoever translates one line."""

    def translate(self, request: Request) -> Draft:
        """A draft; the guards judge it."""
        ...


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


@dataclass(frozen=True)
class Job:
    """What is to be translated, and how.

    Attributes:
        context_units: how many finished pairs a prompt shows (the paper's k).
        corrections: pairs of the user's own, in their order; a unit with such a source gets that translation.
        corrected: those that are of one unit, by its id: another unit with the same source may have another one.
        learn: what the adapter learns from: some of `LEARN`.
        carried: corrections of an earlier volume, which its adapter has learned; those of this one go before them.
    """

    units: Sequence[Unit]
    source: Language
    target: Language
    context_units: int = 8
    learn: frozenset[str] = frozenset({"self"})
    glossary: Glossary = field(default_factory=lambda: Glossary({}))
    corrections: Sequence[Pair] = ()
    corrected: Mapping[str, Pair] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    attempts: Sequence[Attempt] = ATTEMPTS
    carried: Sequence[Pair] = ()


def translate(
    job: Job,
    translator: Translator,
    teacher: Teacher,
    kept: Sequence[Record] = (),
    restored: int = 0,
    revision: Revision | None = None,
) -> Iterator[Record]:
    """Translates a document.

    Args:
        kept: the records of the run so far, for one that continues.
        restored: how many of them the adapter has learned already.
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
    taught = read_until = 0

    def revise() -> Generator[Record, None, None]:
        nonlocal history, pending
        once_more = partial(_once_more, job, translator, revision, known)
        changed = yield from revision.take_in(log, known, partial(_corrections, job, teacher, log), once_more)
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
        # 3. one unit
        record = log.unit(
            partial(translate_unit, job, translator, number, unit, _shown(history, pending, job.context_units), known)
        )
        revision.settled.see(record)
        if log.new():
            yield record
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


def _once_more(
    job: Job, translator: Translator, revision: Revision, known: Mapping[str, str], id: str
) -> UnitTranslated:
    """A unit that was translated before, after the pairs that stand before it now; as it is, where that goes wrong."""
    number = revision.number[id]
    done = revision.settled.units
    before = [done[unit.id] for unit in job.units[max(0, number - 2 * job.context_units) : number]]
    pairs = [Pair(unit.source, unit.text) for unit in before if unit.status in PASSED]
    shown = Context(_last(pairs, job.context_units), (), job.context_units)
    record = translate_unit(job, translator, number, job.units[number], shown, known)
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


def seed_of(unit: Unit, *more: object) -> int:
    """A number below 2^31 that follows from the unit and the attempt alone."""
    return int(fingerprint("\n".join([unit.id, unit.text, *map(str, more)]))[:8], 16) >> 1


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


def translate_unit(
    job: Job, translator: Translator, number: int, unit: Unit, context: Context, known: Mapping[str, str]
) -> UnitTranslated:
    """One unit: given, copied, translated whole, in pieces, or marked.

    Args:
        number: its index in the document.
        context: the pairs that its prompt may show.
        known: translations that are given, by source text, or by unit id and source text.
    """
    begin = time.perf_counter()

    def record(text: str, status: str, tries: _Tries | None = None) -> UnitTranslated:
        tries = tries or _Tries()
        seconds = time.perf_counter() - begin
        return UnitTranslated(
            number + 1, unit.id, unit.text, text, status, tuple(tries.problems), tries.count, tries.tokens, seconds
        )

    for name in (f"{unit.id}\n{key(unit.text)}", key(unit.text)):
        if name in known:
            return record(known[name], "corrected")
    if guards.needs_no_translation(unit.text):
        return record(unit.text, "copied")
    tries = _Tries()
    found = _line(job, translator, unit, unit.text, context, job.attempts, tries)
    if found is not None:
        return record(found, "model", tries)
    found = _in_pieces(job, translator, unit, context, tries)
    if found is not None:
        return record(found, "pieces", tries)
    return record(tries.usable, "marked", tries)


class _Tries:
    """What was tried for one unit.

    Attributes:
        problems: of failed attempts, each kind once.
        usable: the first attempt at the whole unit in which only soft problems were found.
    """

    def __init__(self) -> None:
        self.count = self.tokens = 0
        self.problems: list[str] = []
        self.usable = ""

    def failed(self, found: Sequence[str]) -> None:
        """Notes the problems of a kind that is new."""
        kinds = {problem.partition(":")[0] for problem in self.problems}
        self.problems += [problem for problem in found if problem.partition(":")[0] not in kinds]


def _line(
    job: Job,
    translator: Translator,
    unit: Unit,
    source: str,
    context: Context,
    attempts: Sequence[Attempt],
    tries: _Tries,
    piece: int | None = None,
) -> str | None:
    """The first draft of a line that passes the guards; None where none does."""
    terms = job.glossary.applying(source)
    earlier = context.last()
    for number, attempt in enumerate(attempts):
        shown = context.only(attempt.context)
        draft = translator.translate(Request(source, shown, terms, attempt, seed_of(unit, piece, number)))
        text = placeholders.tidy(" ".join(draft.text.split("\n")).strip())
        tries.count += 1
        tries.tokens += draft.tokens
        found = guards.problems(Case(source, text, job.source, job.target, terms, draft.cut, earlier), job.limits)
        if not found:
            return text
        tries.failed(found)
        if piece is None and not tries.usable and all(problem.startswith(SOFT) for problem in found):
            tries.usable = text
    return None


def _in_pieces(job: Job, translator: Translator, unit: Unit, context: Context, tries: _Tries) -> str | None:
    """The unit sentence by sentence; None where it is one, or one of them fails, or the whole does."""
    pieces = segments(unit.text)
    if len(pieces) < 2:
        return None
    texts: list[str] = []
    for number, piece in enumerate(pieces):
        source = piece.strip()
        if guards.needs_no_translation(source):
            texts.append(source)
            continue
        text = _line(job, translator, unit, source, context, job.attempts[:2], tries, number)
        if text is None:
            return None
        texts.append(text)
        context = context.also(Pair(source, text))
    whole = (" " if job.target.spaced else "").join(texts)
    terms = job.glossary.applying(unit.text)
    found = guards.problems(Case(unit.text, whole, job.source, job.target, terms), job.limits)
    tries.failed(found)
    return None if found else whole
