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
    """Says what its context is; notes what it was asked for together, and alone."""

    def __init__(self) -> None:
        self.groups: list[list[Request]] = []
        self.alone: list[Request] = []

    def translate(self, request: Request) -> Draft:
        self.alone.append(request)
        return self.said(request)

    def translate_lines(self, requests: Sequence[Request]) -> list[Draft]:
        self.groups.append(list(requests))
        return [self.said(request) for request in requests]

    def said(self, request: Request) -> Draft:
        """How many pairs are shown, as a letter."""
        return Draft(f"{request.source.upper()} {'abcdefghi'[len(request.context.last())]}.", 1)


def job(texts: Sequence[str] = TEXTS, lines: int = 3, **more: object) -> Job:
    units = [Unit(f"u{number:06d}", text) for number, text in enumerate(texts)]
    return Job(units, EN, DE, 8, limits=OFF, lines=lines, names=False, **more)  # type: ignore[arg-type]


def texts_of(records: Sequence[Record]) -> list[str]:
    return [record.text for record in records if isinstance(record, UnitTranslated)]


def test_units_are_asked_for_together_and_a_lesson_ends_a_group() -> None:
    """A chunk is four pairs: the fifth unit is there before the lesson, the sixth begins a group."""
    translator = Together()
    records = list(loop.translate(job(), translator, Notes()))
    assert [[request.source for request in group] for group in translator.groups] == [
        TEXTS[:3], TEXTS[3:6], TEXTS[5:8],
    ]  # fmt: skip
    assert translator.alone == []
    assert all(len({str(request.context) for request in group}) == 1 for group in translator.groups)
    shown = [len(group[0].context.last()) for group in translator.groups]
    assert shown == [0, 3, 5]
    drafts = {request.source: Together().said(request).text for group in translator.groups for request in group}
    assert texts_of(records) == [drafts[text] for text in TEXTS]


def test_given_and_copied_units_take_no_place_in_a_group() -> None:
    texts = [TEXTS[0], "12", TEXTS[1], "***", TEXTS[2], TEXTS[3]]
    corrections = [Pair(TEXTS[1], "Die zweite Zeile des Buches.")]
    translator = Together()
    records = list(loop.translate(job(texts, corrections=corrections, learn=frozenset()), translator, Notes()))
    assert [[request.source for request in group] for group in translator.groups] == [[TEXTS[0], TEXTS[2], TEXTS[3]]]
    assert texts_of(records)[2] == "Die zweite Zeile des Buches."


def test_one_line_is_asked_for_as_ever() -> None:
    translator = Together()
    list(loop.translate(job(lines=1), translator, Notes()))
    assert translator.groups == [] and len(translator.alone) == len(TEXTS)


def test_a_draft_that_fails_is_asked_for_again_alone() -> None:
    class Failing(Together):
        def said(self, request: Request) -> Draft:
            """Nothing of the second line at first."""
            return (
                Draft("") if request.source == TEXTS[1] and not request.attempt.temperature else super().said(request)
            )

    translator = Failing()
    records = list(loop.translate(job(), translator, Notes()))
    assert [request.source for request in translator.alone] == [TEXTS[1]] * 2
    assert all(record.status == "model" for record in records if isinstance(record, UnitTranslated))


def test_a_line_whose_terms_have_changed_since_is_asked_for_alone() -> None:
    """Anna is a name from the fourth unit on, in the middle of a group: what comes after is told so."""
    texts = [f"We saw how Anna {did} again in the evening." for did in ("sang", "ran", "slept", "left", "wept", "read")]
    what = job(texts, learn=frozenset(), lines=6)
    named = Job(**{**vars(what), "names": True})

    class Naming(Together):
        def said(self, request: Request) -> Draft:
            """Anna as she is called in German."""
            return Draft(f"Wir sahen, wie Änne {request.source.split()[4]} tat.", 1)

    translator = Naming()
    records = list(loop.translate(named, translator, Notes()))
    together = {request.source: request.terms for group in translator.groups for request in group}
    alone = {request.source: request.terms for request in translator.alone}
    assert list(together) == texts and not any(together.values())
    assert alone and all(("Anna", "Änne") in terms for terms in alone.values())
    assert set(alone) == set(texts[-len(alone) :])
    assert len(texts_of(records)) == len(texts)


@pytest.mark.parametrize("learn", [{"self"}, {"self", "source"}, set()], ids=["self", "source", "off"])
def test_a_run_that_continues_anywhere_asks_for_the_same_groups(learn: set[str]) -> None:
    """A group that was broken is asked for whole, in what its first unit was shown."""
    whole = Together()
    records = list(loop.translate(job(learn=frozenset(learn)), whole, Notes()))
    for count in range(len(records)):
        again = Together()
        rest = list(loop.translate(job(learn=frozenset(learn)), again, Notes(), Log(records[:count], count)))
        assert texts_of(records[:count]) + texts_of(rest) == texts_of(records)
        assert again.groups == whole.groups[len(whole.groups) - len(again.groups) :]
        assert again.alone == []
