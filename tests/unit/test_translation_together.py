"""Units that are decoded side by side: what is asked for together, what its prompts show, and that a run continues."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge.documents import Unit
from edge.records import Record, UnitTranslated
from edge.translation import languages, loop
from edge.translation.asking import Draft, Request
from edge.translation.guards import Limits
from edge.translation.job import Job
from edge.translation.log import Log
from edge.translation.prompts import Pair
from tests.translators import OneByOne
from tests.unit.test_translation_loop import Notes

EN, DE = languages.find("en"), languages.find("de")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
TEXTS = [f"The {word} line of the book." for word in ORDINALS]
OFF = Limits(off=frozenset({"copy", "language", "loop"}))


class Together(OneByOne):
    """Says how much its prompt shows; notes what was asked for ahead, in which slot, again, and by itself."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, Request]] = []
        self.again: list[Request] = []
        self.alone: list[Request] = []
        self.forgotten = 0

    def translate(self, request: Request) -> Draft:
        self.alone.append(request)
        return self.said(request)

    def begin(self, slot: int, request: Request, *, again: bool = False) -> None:
        super().begin(slot, request, again=again)
        if again:
            self.again.append(request)
        else:
            self.begun.append((slot, request))

    def finish(self, slot: int) -> Draft:
        return self.said(self._slots()[slot])

    def forget(self) -> None:
        super().forget()
        self.forgotten += 1

    def said(self, request: Request) -> Draft:
        """How many pairs are shown, as a letter."""
        return Draft(f"{request.source.upper()} {'abcdefghi'[len(request.context.last())]}.", 1)


def job(texts: Sequence[str] = TEXTS, lines: int = 3, **more: object) -> Job:
    units = [Unit(f"u{number:06d}", text) for number, text in enumerate(texts)]
    return Job(units, EN, DE, 8, limits=OFF, lines=lines, names=False, **more)  # type: ignore[arg-type]


def texts_of(records: Sequence[Record]) -> list[str]:
    return [record.text for record in records if isinstance(record, UnitTranslated)]


def test_each_unit_is_begun_when_the_one_three_before_it_is_done() -> None:
    translator = Together()
    records = list(loop.translate(job(learn=frozenset()), translator, Notes()))
    assert [request.source for _, request in translator.begun] == TEXTS
    assert [slot for slot, _ in translator.begun] == [0, 1, 2, 0, 1, 2, 0, 1]
    assert [len(request.context.last()) for _, request in translator.begun] == [0, 0, 0, 1, 2, 3, 4, 5]
    assert not translator.alone and not translator.again and not translator.forgotten
    assert texts_of(records) == [translator.said(request).text for _, request in translator.begun]


def test_a_lesson_ends_what_was_begun_before_it() -> None:
    """A chunk is four pairs: the fifth unit is there before the lesson, the sixth and seventh were begun in vain."""
    translator = Together()
    records = list(loop.translate(job(), translator, Notes()))
    assert [request.source for _, request in translator.begun] == [*TEXTS[:7], *TEXTS[5:]]
    assert [len(request.context.last()) for _, request in translator.begun] == [0, 0, 0, 1, 2, 3, 4, 5, 5, 5]
    assert translator.forgotten == 1 and not translator.alone and not translator.again
    assert [text[-2] for text in texts_of(records)] == list("aaabcfff")


def test_a_chunk_that_teaches_nothing_ends_nothing() -> None:
    translator = Together()
    list(loop.translate(job(learn=frozenset({"corrections"})), translator, Notes()))
    assert [request.source for _, request in translator.begun] == TEXTS and not translator.forgotten


def test_given_and_copied_units_take_no_slot() -> None:
    texts = [TEXTS[0], "12", TEXTS[1], "***", TEXTS[2], TEXTS[3], TEXTS[4]]
    corrections = [Pair(TEXTS[1], "Die zweite Zeile des Buches.")]
    translator = Together()
    records = list(loop.translate(job(texts, corrections=corrections, learn=frozenset()), translator, Notes()))
    assert [(slot, request.source) for slot, request in translator.begun] == [
        (0, TEXTS[0]), (1, TEXTS[2]), (2, TEXTS[3]), (0, TEXTS[4]),
    ]  # fmt: skip
    assert texts_of(records)[2] == "Die zweite Zeile des Buches."


def test_one_line_is_asked_for_as_ever() -> None:
    translator = Together()
    list(loop.translate(job(lines=1), translator, Notes()))
    assert translator.begun == [] and len(translator.alone) == len(TEXTS)


def test_a_draft_that_fails_is_asked_for_again_in_its_slot() -> None:
    class Failing(Together):
        def said(self, request: Request) -> Draft:
            """Nothing of the second line at first."""
            return (
                Draft("") if request.source == TEXTS[1] and not request.attempt.temperature else super().said(request)
            )

    translator = Failing()
    records = list(loop.translate(job(), translator, Notes()))
    assert [request.source for request in translator.again] == [TEXTS[1]] * 2 and not translator.alone
    assert all(record.status == "model" for record in records if isinstance(record, UnitTranslated))


def test_a_line_whose_terms_have_changed_since_is_asked_for_again() -> None:
    """Anna is a name from the fourth unit on, when others are on their way: what comes after is told so."""
    texts = [f"We saw how Anna {did} again in the evening." for did in ("sang", "ran", "slept", "left", "wept", "read")]
    what = job(texts, learn=frozenset(), lines=6)
    named = Job(**{**vars(what), "names": True})

    class Naming(Together):
        def said(self, request: Request) -> Draft:
            """Anna as she is called in German."""
            return Draft(f"Wir sahen, wie Änne {request.source.split()[4]} tat.", 1)

    translator = Naming()
    records = list(loop.translate(named, translator, Notes()))
    ahead = {request.source: request.terms for _, request in translator.begun}
    again = {request.source: request.terms for request in translator.again}
    assert list(ahead) == texts and not any(ahead.values())
    assert again and all(("Anna", "Änne") in terms for terms in again.values())
    assert set(again) == set(texts[-len(again) :])
    assert len(texts_of(records)) == len(texts)


@pytest.mark.parametrize("learn", [{"self"}, {"self", "source"}, set()], ids=["self", "source", "off"])
def test_a_run_that_continues_anywhere_asks_for_the_same(learn: set[str]) -> None:
    """What was on its way is asked for again, in the same slots, in what it was shown."""
    whole = Together()
    records = list(loop.translate(job(learn=frozenset(learn)), whole, Notes()))
    for count in range(len(records)):
        again = Together()
        rest = list(loop.translate(job(learn=frozenset(learn)), again, Notes(), Log(records[:count], count)))
        assert texts_of(records[:count]) + texts_of(rest) == texts_of(records)
        missing = len(texts_of(rest))
        assert again.begun[-missing:] == whole.begun[-missing:] or not missing
        assert again.alone == again.again == []
