"""Asking: one unit of a document, asked of a translator until a draft passes or nothing is left to try.

Owns: attempts and retries, second drafts, sentence by sentence, what is marked.
Does not know: torch, the order of units, what is learned.
Units: tokens, seconds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from ..documents import Unit, placeholders, segments
from ..journal import fingerprint
from ..records import UnitTranslated
from . import drafts, guards, languages, quotes, spelling
from .context import Context
from .drafts import Checked, Judge
from .folding import folded
from .guards import Case
from .job import Attempt, Job
from .names import Memory, nothing
from .prompts import Pair, Terms, key
from .similar import Similar

SOFT = guards.SOFT  # problems with which a text is still better than none


class Without(NamedTuple):
    """Scripts that a draft holds no character of, and those of its language."""

    scripts: tuple[str, ...]
    kept: tuple[str, ...]


class Request(NamedTuple):
    """One unit, or a piece of one, to be translated.

    Attributes:
        seed: below 2^31, follows from the unit and the attempt.
        similar: translations of lines like it, which a draft may be found by sooner; no draft is another one for them.
        without: scripts that the draft holds no character of, and those that it is written in.
    """

    source: str
    context: Context
    terms: Terms
    attempt: Attempt
    seed: int
    similar: tuple[str, ...] = ()
    without: Without | None = None


class Draft(NamedTuple):
    """What came back; `cut` where the text did not end by itself."""

    text: str
    tokens: int = 0
    cut: bool = False


class Translator(Protocol):
    """Whoever translates lines."""

    def translate(self, request: Request) -> Draft:
        """A draft; the guards judge it."""
        ...

    def translate_lines(self, requests: Sequence[Request]) -> Sequence[Draft]:
        """Drafts of several lines in one context, none of which sees another."""
        ...


def seed_of(unit: Unit, *more: object) -> int:
    """A number below 2^31 that follows from the unit and the attempt alone."""
    return int(fingerprint("\n".join([unit.id, unit.text, *map(str, more)]))[:8], 16) >> 1


def translate_unit(
    job: Job,
    translator: Translator,
    number: int,
    unit: Unit,
    context: Context,
    known: Mapping[str, str],
    memory: Memory | None = None,
    judge: Judge | None = None,
    similar: Similar | None = None,
) -> UnitTranslated:
    """One unit: given, copied, translated whole, in pieces, or marked.

    Args:
        number: its index in the document.
        context: the pairs that its prompt may show.
        known: translations that are given, by source text, or by unit id and source text.
        memory: the names so far.
        judge: who judges drafts, with two candidates.
        similar: the lines so far.
    """
    ask = Asking(job, translator, unit, memory or nothing(job.target), judge, similar)
    begin = time.perf_counter()

    def record(text: str, status: str, tries: Tries | None = None) -> UnitTranslated:
        tries = tries or Tries()
        seconds = time.perf_counter() - begin
        return UnitTranslated(
            number + 1, unit.id, unit.text, text, status, tuple(tries.problems), tries.count, tries.tokens, seconds
        )

    text = given(unit, known)
    if text is not None:
        return record(text, "corrected")
    if guards.needs_no_translation(unit.text):
        return record(unit.text, "copied")
    tries = Tries()
    found = ask.line(unit.text, context, job.attempts, tries)
    if found is not None:
        return record(found, "model", tries)
    found = ask.in_pieces(context, tries)
    if found is not None:
        return record(found, "pieces", tries)
    return record(tries.usable, "marked", tries)


def given(unit: Unit, known: Mapping[str, str]) -> str | None:
    """The translation of a unit that is given, by its id and source text, or by its source text alone."""
    return known.get(f"{unit.id}\n{key(unit.text)}", known.get(key(unit.text)))


class Tries:
    """What was tried for one unit.

    Attributes:
        problems: of failed attempts, each kind once.
        usable: the first attempt at the whole unit in which only soft problems were found; one without an echo goes
            before one with.
        without: set once a draft had characters of the source left in it.
        echoed: whether a draft has said what other lines say: they are not shown any more.
    """

    def __init__(self) -> None:
        self.count = self.tokens = 0
        self.problems: list[str] = []
        self.usable = ""
        self.without: Without | None = None
        self.echoed = False
        self._usable_echoes = False

    def use(self, text: str, *, echoes: bool) -> None:
        """An attempt that is better than none."""
        if not self.usable or (self._usable_echoes and not echoes):
            self.usable = text
            self._usable_echoes = echoes

    def failed(self, found: Sequence[str]) -> None:
        """Notes the problems of a kind that is new."""
        kinds = {problem.partition(":")[0] for problem in self.problems}
        self.problems += [problem for problem in found if problem.partition(":")[0] not in kinds]


class Asking(NamedTuple):
    """The model is asked for one unit."""

    job: Job
    translator: Translator
    unit: Unit
    memory: Memory
    judge: Judge | None
    similar: Similar | None = None

    def line(
        self, source: str, context: Context, attempts: Sequence[Attempt], tries: Tries, piece: int | None = None
    ) -> str | None:
        """The first draft of a line that passes the guards, or the better one of two where that leaves doubts; None
        where none passes.
        """
        job = self.job
        terms = job.glossary.applying(source)
        names = self.names(source, terms)
        earlier = context.shown
        kept: Checked | None = None  # passed, with doubts
        for number in range(len(attempts)):
            shown = context.only(0) if tries.echoed else context
            request = self.request(source, shown, [*terms, *names], number, piece)
            draft = self.translator.translate(request._replace(without=tries.without))
            text = placeholders.tidy(" ".join(draft.text.split("\n")).strip())
            text = quotes.unwrapped(source, text, earlier)
            text = spelling.as_known(text, [name for _, name in (*terms, *names)])
            tries.count += 1
            tries.tokens += draft.tokens
            case = Case(source, text, job.source, job.target, terms, draft.cut, earlier, names)
            case, found = self.judged(case)
            text = case.target
            if not found:
                checked = drafts.check(case, job.limits, names, self.memory, self.judge, candidates=job.candidates)
                if kept is not None:
                    return drafts.better(kept, checked).text
                if not checked.doubts:
                    return text
                kept = checked
                found = list(checked.doubts)
            elif kept is not None:
                return kept.text
            tries.failed(found)
            if guards.left_in(case) and not guards.may_stay(case):
                tries.without = Without(languages.left_behind(job.source, job.target), languages.written_in(job.target))
            echoes = any(problem.startswith("echo") for problem in found)
            tries.echoed = tries.echoed or echoes
            if piece is None and all(problem.startswith(SOFT) for problem in found):
                tries.use(text, echoes=echoes)
        return kept.text if kept is not None else None

    def judged(self, case: Case) -> tuple[Case, list[str]]:
        """What is wrong with a draft; where its quotation marks are all, with those that can be set."""
        limits = drafts.lenient(self.job.limits)
        found = guards.problems(case, limits)
        if found and all(problem.startswith("quotes") for problem in found):
            marked = replace(case, target=quotes.wrapped(case.source, case.target, self.job.target, case.earlier))
            return marked, guards.problems(marked, limits)
        return case, found

    def request(
        self, source: str, context: Context, terms: Terms, number: int = 0, piece: int | None = None
    ) -> Request:
        """What is asked of the translator at attempt `number`; `terms`: of the glossary, and remembered names."""
        attempt = self.job.attempts[number]
        seed = seed_of(self.unit, piece, number)
        similar = self.similar.of(source) if self.similar else ()
        return Request(source, context.only(attempt.context), terms, attempt, seed, similar)

    def first(self, context: Context) -> Request:
        """What is asked for at first: the whole unit."""
        terms = self.job.glossary.applying(self.unit.text)
        return self.request(self.unit.text, context, [*terms, *self.names(self.unit.text, terms)])

    def names(self, source: str, terms: Terms) -> Terms:
        """The remembered names of a line; where a term of the glossary overlaps with one, the glossary's word holds."""
        given = [folded(term) for term, _ in terms]
        return [
            (name, target)
            for name, target in self.memory.applying(source)
            if not any(term in folded(name) or folded(name) in term for term in given)
        ]

    def in_pieces(self, context: Context, tries: Tries) -> str | None:
        """The unit sentence by sentence; None where it is one, or one of them fails, or the whole does."""
        job = self.job
        pieces = segments(self.unit.text)
        if len(pieces) < 2:
            return None
        texts: list[str] = []
        for number, piece in enumerate(pieces):
            source = piece.strip()
            if guards.needs_no_translation(source):
                texts.append(source)
                continue
            text = self.line(source, context, job.attempts[:2], tries, number)
            if text is None:
                return None
            texts.append(text)
            context = context.also(Pair(source, text))
        whole = (" " if job.target.spaced else "").join(texts)
        terms = job.glossary.applying(self.unit.text)
        case = Case(self.unit.text, whole, job.source, job.target, terms, names=self.names(self.unit.text, terms))
        found = guards.problems(case, drafts.lenient(job.limits))
        tries.failed(found)
        return None if found else whole
