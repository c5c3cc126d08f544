"""Corrections while a run goes on: taken in between chunks, taught, obeyed, and the same again after any stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from edge.records import Corrected, Lesson, Record, UnitTranslated
from edge.translation import languages, loop, report, settled
from edge.translation.log import Log
from edge.translation.loop import Draft, Request
from edge.translation.prompts import Pair
from edge.translation.revision import Revision
from tests.scenes import SCENES
from tests.translators import OneByOne
from tests.unit.test_translation_loop import DE, EN, Notes, Upper, job, translated

LINES = [
    "The old man Joshua sat there.", "It was a cold morning in spring.", "They saw Joshua again that night.",
    "Nobody spoke for a long time.", "Her sister Isabelle laughed at them.", "In the house Joshua sang.",
    "The lamps were lit at seven.", "Then Isabelle and Joshua left.", "Nothing else was heard of them.",
]  # fmt: skip
FIRST = {"u000000": Pair(LINES[0], "Der alte Josua saß dort.")}


class Scribe(Upper):
    """Writes names of its own making: Joshu for Joshua, until it has read the right one in its context."""

    def translate(self, request: Request) -> Draft:
        self.asked.append(request)
        shown = " ".join(pair.target for pair in request.context.last())
        name = "Josua" if "Josua" in shown else "Joschu"
        return Draft(request.source.replace("Joshua", name), 1)


class Review:
    """A review file whose content depends on how many units are done when it is looked at."""

    def __init__(self, after: Mapping[int, Mapping[str, Pair]]) -> None:
        self.after = after
        self.revision: Revision | None = None

    def edits(self) -> dict[str, Pair]:
        assert self.revision is not None
        done = len(self.revision.settled.units)
        return {id: pair for least, pairs in self.after.items() if least <= done for id, pair in pairs.items()}


def run(
    what: Any, after: Mapping[int, Mapping[str, Pair]], *, redo: bool = False, kept: list[Record] | None = None,
    restored: int = 0,
) -> tuple[list[Record], Scribe, Notes]:  # fmt: skip
    translator, teacher, review = Scribe(), Notes(), Review(after)
    review.revision = Revision(what.units, (EN, DE), review.edits, redo=redo, teaches=bool(what.learn))
    records = list(loop.translate(what, translator, teacher, Log(kept or [], restored), revision=review.revision))
    return records, translator, teacher


def texts(records: list[Record]) -> list[str]:
    return [unit.text for unit in report.settled(records)]


def test_a_correction_is_taken_in_at_the_next_chunk_taught_and_obeyed() -> None:
    what = job(LINES, context_units=4)
    records, translator, teacher = run(what, {3: FIRST})
    # a chunk is four pairs: after the fifth unit the review is looked at
    kinds = [record.kind for record in records]
    assert kinds[:8] == ["unit"] * 5 + ["corrected", "lesson", "lesson"]
    correction = records[5]
    assert isinstance(correction, Corrected)
    assert (correction.end, correction.ids, correction.taught, correction.again) == (5, ("u000000",), True, ())
    of, span, _, pairs = teacher.taught[0]
    assert (of, span, pairs) == ("corrections", (5, 5), [FIRST["u000000"]])
    # the lesson of the chunk, and every prompt after it, have the corrected text
    assert teacher.taught[1][0] == "self" and teacher.taught[1][3][0] == FIRST["u000000"]
    assert FIRST["u000000"] in translator.asked[5].context.before
    # and the name in it is asked for from there on
    assert [request.terms for request in translator.asked if "Joshua" in request.source][2] == [("Joshua", "Josua")]
    assert texts(records)[0] == FIRST["u000000"].target
    # nothing is translated twice: a line is asked for again only at its own turn, by the memory of names
    assert [unit.source for unit in translated(records)] == LINES
    assert len(translator.asked) == sum(unit.attempts for unit in translated(records))
    # what holds the name as it was is named
    what_is_said = report.summary(records, what)
    assert [(a["id"], a["names"]) for a in what_is_said["affected"]][:1] == [("u000002", ["Joschu"])]
    assert what_is_said["corrected_meanwhile"] == 1 and what_is_said["units"]["corrected"] == 1
    assert "u000002" in report.page(what_is_said, "b") and "--redo" in report.page(what_is_said, "b")


def test_units_that_are_still_to_come_get_their_correction() -> None:
    later = {"u000006": Pair(LINES[6], "Um sieben brannten die Lampen.")}
    records, translator, _ = run(job(LINES), {2: later})
    assert texts(records)[6] == "Um sieben brannten die Lampen."
    assert LINES[6] not in [request.source for request in translator.asked]
    assert translated(records)[6].status == "corrected"


def test_redo_translates_again_what_holds_the_name_and_nothing_else() -> None:
    what = job(LINES, context_units=4)
    records, translator, _ = run(what, {3: FIRST}, redo=True)
    (correction,) = [record for record in records if isinstance(record, Corrected)]
    assert correction.again == ("u000002",)
    asked = [request.source for request in translator.asked]
    assert asked.count(LINES[2]) == 2 and len(asked) == len(LINES) + 1
    assert "Josua" in texts(records)[2] and all("Joschu" not in text for text in texts(records))
    assert report.summary(records, what)["affected"] == []
    assert len(texts(records)) == len(LINES)


@pytest.mark.parametrize("redo", [False, True])
@pytest.mark.parametrize("learn", [frozenset({"self"}), frozenset({"self", "source"}), frozenset()])
def test_a_run_with_corrections_goes_on_from_any_record(redo: bool, learn: frozenset[str]) -> None:
    """After any record, with the adapter at any earlier one: the same records, nothing asked or taught again."""
    what = job(LINES, context_units=4, learn=learn)
    after = {3: FIRST, 6: {"u000001": Pair(LINES[1], "Es war ein kalter Morgen.")}}
    whole, _, teacher = run(what, after, redo=redo)
    assert [r.kind for r in whole].count("corrected") == 2 and whole[-1].kind in ("lesson", "corrected")

    def plain(records: list[Record]) -> list[dict[str, Any]]:
        return [{**record.to_json(), "seconds": 0, "index": 0} for record in records]

    for kept in range(len(whole) + 1):
        for restored in range(0, kept + 1, 2):
            rest, translator, again = run(what, after, redo=redo, kept=whole[:kept], restored=restored)
            assert plain(rest) == plain(whole[restored:]), (kept, restored)
            lessons = sum(isinstance(record, Lesson) for record in whole[:restored])
            assert again.taught == teacher.taught[lessons:]
            new = [r for r in whole[kept:] if isinstance(r, UnitTranslated) and r.status == "model"]
            assert len(translator.asked) == sum(unit.attempts for unit in new)


def test_what_was_corrected_after_the_end_is_taught_with_the_next_correction() -> None:
    what = job(LINES, context_units=4)
    whole, _, _ = run(what, {})
    late = Corrected(len(LINES), ("u000000",), (LINES[0],), (FIRST["u000000"].target,))
    records, _, teacher = run(what, {3: FIRST}, redo=True, kept=[*whole, late], restored=len(whole) + 1)
    (again,) = [record for record in records if isinstance(record, Corrected)]
    assert again.ids == () and again.again == ("u000002", "u000005", "u000007")
    assert [(of, pairs) for of, _, _, pairs in teacher.taught] == [("corrections", [FIRST["u000000"]])]


def test_rows_that_say_nothing_new_are_none() -> None:
    what = job(LINES[:2], corrections=[Pair(LINES[1], "Es war ein kalter Morgen.")])
    rows = {
        "u000001": Pair(LINES[1], "Es war ein kalter Morgen."),  # given before
        "u000000": Pair("Another line.", "Eine andere Zeile."),  # of another text
        "u000009": Pair(LINES[0], "Nirgends."),  # no unit
    }
    records, _, _ = run(what, {0: rows})
    assert not [record for record in records if isinstance(record, Corrected)]


def test_names_that_a_correction_shows_to_be_wrong() -> None:
    zh = languages.find("zh")
    wrong = settled.wrong_names
    assert wrong("Then Joshu sat with Isabelle.", "Then Joshua sat with Isabelle.", EN) == ["Joshu"]
    assert wrong("Joshu sat there.", "Joshua sat there.", EN, {"there", "sat"}) == ["Joshu"]
    assert wrong("Yesterday he sat there.", "He sat there.", EN, {"yesterday"}) == []
    assert wrong("Joshu's hat.", "Joshu sat.", EN) == []
    assert wrong("Then O'Brien sat by Zoë.", "Then O’Brien sat by Zoe\u0308.", EN) == []
    assert wrong("جلس محمد هناك", "جلس محمَّد هناك", languages.find("ar")) == []
    assert settled.stands("O'Brien", "So O’Brien sat.", EN) and settled.stands("Su Mian", "So Su\u00a0Mian sat.", EN)
    assert not settled.stands("Rose", "A rose.", EN)
    assert settled.share_a_name("Then O'Brien went.", "There O’Brien slept.", EN)
    assert wrong("约书坐在那里。", "乔舒亚坐在那里。", zh) == ["约书"]
    assert wrong("他坐在那里。", "他站在那里。", zh) == []  # one character is no name
    assert settled.stands("Joshu", "So Joshu sat.", EN) and not settled.stands("Joshu", "So Joshua sat.", EN)
    assert settled.share_a_name("Then Ahab went.", "Ahab slept.", EN, {"then"})
    assert not settled.share_a_name("Then he went.", "Then she slept.", EN, {"then"})
    assert settled.share_a_name("爵士来了。", "他看见爵士。", zh) and not settled.share_a_name("他来了。", "她走。", zh)


MORE_SCENES = {
    **SCENES,
    "On Monday {} wrote to us.": "Am Montag hat {} uns geschrieben.",
    "In the house {} sang.": "In dem Haus sang {} lange.",
    "Nobody had asked {} about it.": "Keiner hatte {} danach gefragt.",
}
STORY = {source.format("Joshua"): target for source, target in MORE_SCENES.items()}
FIRST_LINE = Pair(next(iter(STORY)), next(iter(STORY.values())).format("Josua"))


class Obeying(OneByOne):
    """Calls Joshua what it is told, and else Joschu."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def translate(self, request: Request) -> Draft:
        self.asked.append(request)
        return Draft(STORY[request.source].format(dict(request.terms).get("Joshua", "Joschu")), 5)


def told(
    after: int, kept: list[Record] | None = None, *, target: Pair = FIRST_LINE
) -> tuple[list[Record], list[Request]]:
    """The story, whose first line is corrected once so many units are done, and what was asked for."""
    what = job(list(STORY), context_units=2)
    translator, review = Obeying(), Review({after: {"u000000": target}})
    review.revision = Revision(what.units, (EN, DE), review.edits, redo=True, teaches=True)
    done = kept or []
    return list(
        loop.translate(what, translator, Notes(), Log(done, len(done)), revision=review.revision)
    ), translator.asked


@pytest.mark.parametrize("after", [3, 5, 7])
def test_a_remembered_name_that_was_corrected_is_shown_no_more(after: int) -> None:
    records, asked = told(after)
    place = next(number for number, record in enumerate(records) if isinstance(record, Corrected))
    before = sum(unit.attempts for unit in translated(records[:place]))
    shown = [dict(request.terms).get("Joshua") for request in asked]
    assert "Joschu" in shown[:before]  # it was remembered
    assert shown[before:] and set(shown[before:]) == {"Josua"}
    assert texts(records) == [line.format("Josua") for line in STORY.values()]
    names = report.memory(records, job(list(STORY))).names()
    assert [(name.source, name.target) for name in names] == [("Joshua", "Josua")]


def test_a_correction_that_leaves_a_name_out_does_not_make_it_wrong() -> None:
    said = Pair(FIRST_LINE.source, "An jenem Morgen ging er an Deck.")
    _, asked = told(5, target=said)
    assert dict(asked[-1].terms) == {"Joshua": "Joschu"}


def test_a_run_that_goes_on_after_a_correction_remembers_the_same() -> None:
    records, asked = told(5)
    for cut in range(len(records)):
        rest, again = told(5, records[:cut])
        before = sum(unit.attempts for unit in translated(records[:cut]))
        assert again == asked[before:]
        assert [(u.id, u.text) for u in translated(rest)] == [(u.id, u.text) for u in translated(records[cut:])]
