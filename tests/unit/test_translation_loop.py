"""The loop with translators that are no models: every unit once, retries, pieces, marks, lessons, continuing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.documents import Unit, open_document, placeholders
from edge.records import Lesson, Record, UnitTranslated
from edge.translation import languages, loop, report
from edge.translation.context import arrange
from edge.translation.glossary import Glossary
from edge.translation.guards import Limits
from edge.translation.log import Log
from edge.translation.loop import Attempt, Draft, Job, Request
from edge.translation.prompts import Pair
from tests.translators import Notes, OneByOne
from tests.unit.documents import books

EN, DE = languages.find("en"), languages.find("de")
LENIENT = Limits(off=frozenset({"copy", "language", "loop"}))  # capitals are no German


class Upper(OneByOne):
    """Capitals, placeholders kept."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def translate(self, request: Request) -> Draft:
        self.asked.append(request)
        return Draft(books.upper(request.source), 1)


def units(texts: Sequence[str]) -> list[Unit]:
    return [Unit(f"u{i:06d}", text, tuple(m.text for m in placeholders.marks(text))) for i, text in enumerate(texts)]


def job(texts: Sequence[str], **more: object) -> Job:
    return Job(units(texts), EN, DE, **{"limits": LENIENT, "context_units": 2, **more})  # type: ignore[arg-type]


def translated(records: Sequence[Record]) -> list[UnitTranslated]:
    return [record for record in records if isinstance(record, UnitTranslated)]


WORDS = [
    f"Sentence number {word} of the book."
    for word in ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
]


# --- every unit exactly once ---

pieces = st.one_of(
    st.text(st.characters(exclude_characters="⟦⟧"), max_size=40),
    st.sampled_from(["Hello there. ", "Wie? ", "⟦#⟧bold⟦/#⟧", "⟦#/⟧", "1894", "他走了。", " "]),
)
lines = st.lists(pieces, min_size=1, max_size=5).map(
    lambda parts: "".join(part.replace("#", str(n)) if "⟦" in part else part for n, part in enumerate(parts, 1))
)  # each mark once, as documents number them


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=15), st.integers(0, 3), st.sampled_from(["off", "self", "self,source"]))  # fmt: skip
def test_no_unit_is_lost_doubled_or_moved(texts: list[str], context: int, learn: str) -> None:
    what = job(texts, context_units=context, learn=frozenset(learn.split(",")) - {"off"})
    found = translated(list(loop.translate(what, Upper(), Notes())))
    assert [record.id for record in found] == [unit.id for unit in what.units]
    assert [record.source for record in found] == texts
    assert [record.end for record in found] == list(range(1, len(texts) + 1))
    for record in found:  # placeholders survive or the unit fails
        assert record.status == "marked" or not placeholders.check(record.source, record.text)


@settings(max_examples=80, deadline=None)
@given(st.lists(lines, max_size=8), st.randoms(use_true_random=False))
def test_placeholders_survive_whatever_the_translator_does(texts: list[str], chance: object) -> None:
    class Careless(OneByOne):
        def translate(self, request: Request) -> Draft:
            kept = [c for c in request.source if chance.random() > 0.1]  # type: ignore[attr-defined]
            return Draft("".join(kept), 1, chance.random() < 0.1)  # type: ignore[attr-defined]

    for record in translated(list(loop.translate(job(texts), Careless(), Notes()))):
        assert record.status == "marked" or not placeholders.check(record.source, record.text)


# --- attempts ---


class Script:
    """Gives the drafts of a script in turn, then capitals."""

    def __init__(self, *drafts: str | None) -> None:
        self.drafts = list(drafts)
        self.asked: list[Request] = []

    def translate(self, request: Request) -> Draft:
        self.asked.append(request)
        text = self.drafts.pop(0) if self.drafts else books.upper(request.source)
        return Draft("", 5, cut=True) if text is None else Draft(text, 5)


def test_a_failed_unit_is_tried_with_other_settings() -> None:
    translator = Script("", None)
    (record,) = translated(list(loop.translate(job(WORDS[:1]), translator, Notes())))
    assert record.status == "model" and record.attempts == 3 and record.tokens == 15
    assert {p.partition(":")[0] for p in record.problems} == {"empty", "cut", "length"}
    first, second, third = translator.asked
    assert first.attempt == Attempt() and second.attempt.repetition_penalty > 1 and third.attempt.temperature > 0
    assert len({r.seed for r in translator.asked}) == 3 and all(0 <= r.seed < 2**31 for r in translator.asked)


def test_seeds_follow_from_the_unit() -> None:
    again = [Script("", None), Script("", None)]
    for translator in again:
        list(loop.translate(job(WORDS[:1]), translator, Notes()))
    assert [r.seed for r in again[0].asked] == [r.seed for r in again[1].asked]


def test_then_by_sentences_then_marked() -> None:
    text = "⟦1⟧One thing here.⟦/1⟧ Another thing there. 7."
    whole = [None] * len(loop.ATTEMPTS)
    (record,) = translated(list(loop.translate(job([text]), Script(*whole), Notes())))
    assert record.status == "pieces" and record.text == "⟦1⟧ONE THING HERE.⟦/1⟧ ANOTHER THING THERE. 7."
    (record,) = translated(list(loop.translate(job([text]), Script(*[None] * 99), Notes())))
    assert record.status == "marked" and record.text == ""
    assert report.texts([record]) == {record.id: report.MARK + text}


def test_a_term_that_stays_missing_marks_the_unit_but_keeps_its_text() -> None:
    what = job(["The whale is here."], glossary=Glossary({"whale": "Wal"}))
    translator = Upper()
    (record,) = translated(list(loop.translate(what, translator, Notes())))
    assert translator.asked[0].terms == [("whale", "Wal")]
    assert (
        record.status == "marked"
        and record.text == "THE WHALE IS HERE."
        and record.problems == ("terms: 'Wal' is missing",)
    )


def test_a_draft_that_echoes_other_lines_is_asked_for_without_them() -> None:
    texts = ["A grey gull cried above the harbour in the morning.", "He said that the boat had to be mended."]
    said = "EINE GRAUE MÖWE SCHRIE AM MORGEN ÜBER DEM HAFEN."
    translator = Script(said, f"{said} ER SPRACH.", "ER SAGTE, DASS DAS BOOT AUSGEBESSERT WERDEN MUSS.")
    _, record = translated(list(loop.translate(job(texts), translator, Notes())))
    assert record.status == "model" and record.attempts == 2 and record.text.startswith("ER SAGTE")
    (problem,) = record.problems
    assert problem.startswith("echo: 'EINE GRAUE MÖWE") and "of the translation of 'A grey gull" in problem
    assert [len(request.context.last()) for request in translator.asked] == [0, 1, 0]
    translator = Script(said, *[f"{said} ER SPRACH."] * 99)  # it insists
    _, record = translated(list(loop.translate(job(texts), translator, Notes())))
    assert record.status == "marked" and record.text == f"{said} ER SPRACH."
    texts[1] = "He said that the boat had to be mended in 1894."  # a lost number is less than another line's sentence
    translator = Script(said, f"{said} ER SPRACH.", *["ER SAGTE, DASS DAS BOOT AUSGEBESSERT WERDEN MUSS."] * 99)
    _, record = translated(list(loop.translate(job(texts), translator, Notes())))
    assert record.status == "marked" and record.text.startswith("ER SAGTE")


def test_an_echo_of_any_line_that_is_shown_is_seen() -> None:
    texts = [
        "A grey gull cried above the harbour in the morning.",
        *WORDS[:14],
        "He said that the boat had to be mended.",
    ]
    said = "EINE GRAUE MÖWE SCHRIE AM MORGEN ÜBER DEM HAFEN."
    for before in range(1, 15):
        lines = [texts[0], *texts[1:before], texts[-1]]
        translator = Script(said, *map(str.upper, lines[1:-1]), f"{said} ER SPRACH.")
        *_, record = translated(list(loop.translate(job(lines, context_units=8), translator, Notes())))
        shown = translator.asked[len(lines) - 1].context
        block, after = arrange(shown, 10_000, lambda pair: 1)
        echoed = any(pair.source == texts[0] for pair in [*block, *after])
        assert echoed <= any(problem.startswith("echo") for problem in record.problems), before


def test_what_has_no_letters_is_never_asked() -> None:
    translator = Upper()
    found = translated(list(loop.translate(job(["* * *", "1894", "Word"]), translator, Notes())))
    assert [record.status for record in found] == ["copied", "copied", "model"] and len(translator.asked) == 1


# --- what is shown and learned ---


def test_prompts_show_the_last_pairs_that_passed() -> None:
    class Upper2(Upper):
        def translate(self, request: Request) -> Draft:
            draft = super().translate(request)
            return Draft("", 1, cut=True) if "gamma" in request.source else draft

    translator = Upper2()
    list(loop.translate(job(WORDS[:5]), translator, Notes()))
    shown = [p.source for p in translator.asked[-1].context.last()]
    assert shown == [WORDS[1], WORDS[3]]  # gamma failed: it is neither context nor lesson


def test_failed_output_never_trains() -> None:
    class Bad(Upper):
        def translate(self, request: Request) -> Draft:
            return Draft("", 1, cut=True) if "eta" in request.source else super().translate(request)

    teacher = Notes()
    found = translated(list(loop.translate(job(WORDS), Bad(), teacher)))
    bad = {record.source for record in found if record.status == "marked"}
    assert len(bad) == 4  # beta, zeta, eta, theta
    taught = [pair for _, _, context, pairs in teacher.taught for pair in [*context, *pairs]]
    assert taught and not bad & {pair.source for pair in taught}


def test_chunks_are_taught_once_in_order_with_what_came_before() -> None:
    teacher = Notes()
    list(loop.translate(job(WORDS), Upper(), teacher))
    assert [(of, span, len(p)) for of, span, _, p in teacher.taught] == [("self", (0, 4), 4), ("self", (4, 8), 4)]
    pairs = [pair for _, _, _, chunk in teacher.taught for pair in chunk]
    assert [pair.source for pair in pairs] == WORDS[:8]
    assert [pair.source for pair in teacher.taught[1][2]] == WORDS[2:4]


def test_off_teaches_nothing_and_still_ends_chunks() -> None:
    teacher = Notes()
    list(loop.translate(job(WORDS, learn=frozenset()), Upper(), teacher))
    assert [of for of, *_ in teacher.taught] == ["none", "none"]


def test_source_is_read_ahead() -> None:
    teacher = Notes()
    records = list(loop.translate(job(WORDS, learn=frozenset({"source"})), Upper(), teacher))
    read = [(span, lines, before) for of, span, before, lines in teacher.taught if of == "source"]
    assert [line for _, lines, _ in read for line in lines] == WORDS
    assert [span for span, _, _ in read] == [(0, 4), (4, 8), (8, 10)] and read[1][2] == WORDS[:4]
    assert isinstance(records[0], Lesson) and isinstance(records[1], UnitTranslated)


def test_corrections_are_taught_first_and_used_as_they_are() -> None:
    given_pairs = [Pair(WORDS[1], "Satz Beta."), Pair("Not in the book.", "Nicht im Buch.")]
    teacher, translator = Notes(), Upper()
    records = list(
        loop.translate(job(WORDS[:3], corrections=given_pairs, learn=frozenset({"corrections"})), translator, teacher)
    )
    assert isinstance(records[0], Lesson) and records[0].of == "corrections"
    assert teacher.taught[0][3] == given_pairs
    assert translated(records)[1].status == "corrected" and translated(records)[1].text == "Satz Beta."
    assert WORDS[1] not in [r.source for r in translator.asked]


@pytest.mark.parametrize("learn", ["self", "source", "self,source,corrections", ""])
def test_a_run_goes_on_from_any_record(learn: str) -> None:
    """After any record, with the adapter at any earlier lesson: the same records, nothing asked again."""
    what = job(
        WORDS, learn=frozenset(filter(None, learn.split(","))), corrections=[Pair(WORDS[5], "SATZ ZETA DES BUCHES.")]
    )
    teacher = Notes()
    whole = list(loop.translate(what, Upper(), teacher))
    key = [(r.kind, getattr(r, "id", None), getattr(r, "text", None), r.end) for r in whole]
    for kept in range(len(whole) + 1):
        for restored in range(kept + 1):
            again, translator = Notes(), Upper()
            rest = list(loop.translate(what, translator, again, Log(whole[:kept], restored)))
            assert [(r.kind, getattr(r, "id", None), getattr(r, "text", None), r.end) for r in rest] == key[restored:]
            done = sum(isinstance(r, Lesson) for r in whole[:restored])
            assert again.taught == teacher.taught[done:]
            fresh = [r for r in whole[kept:] if isinstance(r, UnitTranslated) and r.status == "model"]
            assert len(translator.asked) == len(fresh)


@pytest.mark.parametrize(
    "count, sizes", [(0, []), (1, [1]), (6, [6]), (7, [7]), (8, [8]), (9, [6, 3]), (12, [6, 6]), (14, [6, 8]), (15, [6, 6, 3])]
)  # fmt: skip
def test_what_is_left_over_goes_with_the_lesson_before(count: int, sizes: list[int]) -> None:
    class Six(Notes):
        def full(self, pairs: Sequence[Pair], of: str = "self") -> bool:
            return len(pairs) > (6 if of == "corrections" else 8)

    given_pairs = [Pair(f"Line {number}.", f"Zeile {number}.") for number in range(count)]
    found = [chunk for _, chunk in loop.chunks(given_pairs, 2, Six(), "corrections")]
    assert [len(chunk) for chunk in found] == sizes and [pair for chunk in found for pair in chunk] == given_pairs
    whole = [len(chunk) for _, chunk in loop.chunks(given_pairs, 2, Six())]  # others are as long as can be
    assert sum(whole) == count and all(size == 8 for size in whole[:-1])


def test_a_run_goes_on_that_was_begun_with_fewer_lessons() -> None:
    class Small(Notes):
        def full(self, pairs: Sequence[Pair], of: str = "self") -> bool:
            return len(pairs) > (1 if of == "corrections" else 4)

    given_pairs = [Pair(f"Not in the book, {number}.", f"Nicht im Buch, {number}.") for number in range(3)]
    what = job(WORDS, learn=frozenset({"self", "corrections"}), corrections=given_pairs)
    whole = list(loop.translate(what, Upper(), Notes()))  # one lesson on three pairs
    assert [isinstance(record, Lesson) for record in whole[:2]] == [True, False]
    for kept in range(2, len(whole) + 1):
        again, translator = Small(), Upper()
        rest = list(loop.translate(what, translator, again, Log(whole[:kept], kept)))
        assert [(r.kind, r.end) for r in rest] == [(r.kind, r.end) for r in whole[kept:]]
        assert len(translator.asked) == sum(isinstance(record, UnitTranslated) for record in whole[kept:])
        assert all(of == "self" for of, *_ in again.taught)
    ahead = job(WORDS, learn=frozenset({"source", "corrections"}), corrections=given_pairs)
    whole = list(loop.translate(ahead, Upper(), Notes()))  # a lesson on the source comes right after it
    for kept in range(2, len(whole) + 1):
        again = Small()
        rest = list(loop.translate(ahead, Upper(), again, Log(whole[:kept], kept)))
        assert [(r.kind, r.end) for r in rest] == [(r.kind, r.end) for r in whole[kept:]]
        assert all(of != "corrections" for of, *_ in again.taught)


# --- documents ---


@pytest.mark.parametrize("suffix", ["epub", "docx", "srt", "md"])
def test_documents_go_round(suffix: str, tmp_path: Path) -> None:
    """Each format through the loop: same structure, every unit exactly once."""
    path = tmp_path / f"book.{suffix}"
    if suffix == "epub":
        books.make_epub(path)
    elif suffix == "docx":
        books.make_docx(path)
    elif suffix == "srt":
        path.write_text(
            "1\n00:00:01,000 --> 00:00:02,000\n<i>Call me</i> Ishmael.\nSome years ago\n\n2\n00:00:03,000 --> 00:00:04,500\nيا ما كان\n",
            "utf-8",
        )
    else:
        path.write_text(
            "# Loomings\n\nCall me **Ish*mael***, [see](x.html) ![whale](w.png).\n\n| a | b |\n|---|---|\n| one | 话说 |\n\n- item[^1]\n\n[^1]: A note.\n",
            "utf-8",
        )
    document = open_document(path)
    what = Job(document.units, EN, DE, limits=Limits(off=frozenset({"copy", "language", "loop", "noise"})))
    records = list(loop.translate(what, Upper(), Notes()))
    assert [r.id for r in translated(records)] == [unit.id for unit in document.units]
    assert not [r for r in translated(records) if r.status == "marked"]
    out = tmp_path / f"out.{suffix}"
    document.write(out, report.texts(records), language="de")
    again = open_document(out)
    assert [unit.text for unit in again.units] == [books.upper(unit.text) for unit in document.units]
    assert [(u.kind, u.chapter, u.placeholders) for u in again.units] == [
        (u.kind, u.chapter, u.placeholders) for u in document.units
    ]


def test_a_correction_is_of_a_line_that_has_soft_hyphens_in_one_of_both() -> None:
    what = job(["The whale."], corrections=[Pair("The wh\u00adale.", "Der Wal.")])
    (record,) = translated(list(loop.translate(what, Upper(), Notes())))
    assert (record.text, record.status) == ("Der Wal.", "corrected")


def test_a_term_counts_as_kept_however_it_is_typed() -> None:
    what = job(["The ship's ⟦1⟧cook⟦/1⟧."], glossary=Glossary({"ship’s cook": "SHIP’S\u00a0COOK"}))
    records = list(loop.translate(what, Upper(), Notes()))
    assert translated(records)[0].status == "model"
    assert report.summary(records, what)["terms"] == {"glossary": 1, "due": 1, "kept": 1}


def test_report_counts_and_its_page_needs_nothing_else() -> None:
    what = job([*WORDS, "The whale <b>here</b>."], glossary=Glossary({"whale": "Wal"}))
    result = report.summary(list(loop.translate(what, Upper(), Notes())), what)
    assert result["units"] == {
        "total": 11,
        "done": 11,
        "model": 10,
        "pieces": 0,
        "corrected": 0,
        "copied": 0,
        "marked": 1,
    }
    assert result["problems"] == {"terms": 1} and result["retried"] == 1
    page = report.page(result, "A <book>")
    assert "&lt;book&gt;" in page and "<b>here" not in page and "<script" not in page
    assert "http" not in page.replace("http-equiv", "") and "src=" not in page
