"""Lines like this one: which are found, what is put into their translations, and that a run that continues finds the
same."""

from __future__ import annotations

from edge.documents import Unit
from edge.records import Corrected, UnitTranslated
from edge.translation import languages, loop
from edge.translation.asking import Draft, Request
from edge.translation.job import Job
from edge.translation.log import Log
from edge.translation.prompts import Pair
from edge.translation.recall import Recall
from edge.translation.similar import Similar, adapted
from tests.translators import OneByOne
from tests.unit.test_translation_loop import Notes
from tests.unit.test_translation_together import OFF, texts_of

EN, DE, ZH = (languages.find(code) for code in ("en", "de", "zh"))


def known(*pairs: tuple[str, str], language: languages.Language = EN) -> Similar:
    similar = Similar(language)
    for source, target in pairs:
        similar.learn(Pair(source, target))
    return similar


def test_the_same_line_gives_its_last_translation_alone() -> None:
    similar = known(("The end.", "Das Ende."), ("The  end.", "Ende."), ("The end", "Schluss"))
    assert similar.of("The end.") == ("Ende.",)


def test_other_numbers_and_names_are_put_into_an_alike_line() -> None:
    similar = known(
        ("Chapter 7", "Kapitel 7"),
        ("The file report.txt was saved in 3 seconds.", "Die Datei report.txt wurde in 3 Sekunden gespeichert."),
    )
    assert similar.of("Chapter 12") == ("Kapitel 12",)
    found = similar.of("The file notes.md was saved in 15 seconds.")
    assert found == ("Die Datei notes.md wurde in 15 Sekunden gespeichert.",)


def test_parts_change_places_at_once() -> None:
    assert adapted("2 before 1.", "1 and 2", "2 and 1") == "1 before 2."
    assert adapted("Von 1 bis 2.", "From 1 to 2 and 3", "From 4 to 5") == "Von 1 bis 2."  # not the same places


def test_other_lines_are_not_alike() -> None:
    similar = known(("The old captain went ashore.", "x"), ("She slept.", "y"))
    assert similar.of("A whale swam under the moon.") == ()
    assert similar.of("?!") == ()


def test_the_likest_lines_come_first() -> None:
    similar = known(("A b c d e f g", "1"), ("A b c d e f h", "2"), ("A b c d i j k", "3"))
    assert similar.of("A b c d e f g z") == ("1", "2")


def test_characters_in_pairs_where_words_are_not_separated() -> None:
    similar = known(("他打开了第3扇门。", "He opened door 3."), language=ZH)
    assert similar.of("他打开了第12扇门。") == ("He opened door 12.",)
    assert similar.of("船长睡着了。") == ()


def job(texts: list[str], **more: object) -> Job:
    units = [Unit(f"u{number:06d}", text) for number, text in enumerate(texts)]
    return Job(units, EN, DE, 2, learn=frozenset(), limits=OFF, **more)  # type: ignore[arg-type]


def test_corrections_take_the_place_of_what_was_there() -> None:
    recall = Recall(job(["The end.", "No."], carried=[Pair("No.", "Nein.")]))
    assert recall.lines.of("No.") == ("Nein.",)
    recall.see(UnitTranslated(1, "u000000", "The end.", "Das Ende.", "model", (), 1, 3, 0.1))
    assert recall.lines.of("The end.") == ("Das Ende.",)
    recall.see(UnitTranslated(2, "u000001", "No.", "...", "marked", (), 1, 3, 0.1))
    assert recall.lines.of("No.") == ("Nein.",)  # what failed is shown to nobody
    recall.see(Corrected(2, ("u000000",), ("The end.",), ("Ende.",), (), False))
    assert recall.lines.of("The end.") == ("Ende.",)


class Noting(OneByOne):
    """Says the line in capitals; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def translate(self, request: Request) -> Draft:
        self.asked.append(request)
        return Draft(request.source.upper(), 1)


TEXTS = ["Row one of the table.", "Row two of the table.", "The end.", "Row two of the table.", "The end."]


def test_a_run_that_continues_anywhere_finds_the_same_lines() -> None:
    what = job(TEXTS, names=False)
    whole = Noting()
    records = list(loop.translate(what, whole, Notes()))
    found = [request.similar for request in whole.asked]
    assert found == [(), ("ROW ONE OF THE TABLE.",), (), ("ROW TWO OF THE TABLE.",), ("THE END.",)]
    for count in range(len(records)):
        again = Noting()
        rest = list(loop.translate(what, again, Notes(), Log(records[:count], count)))
        assert texts_of(records[:count]) + texts_of(rest) == texts_of(records)
        assert again.asked == whole.asked[len(whole.asked) - len(again.asked) :]


def test_side_by_side_nothing_is_looked_up_and_nothing_asked_twice() -> None:
    whole = Noting()
    list(loop.translate(job(TEXTS[:4], lines=2, names=False), whole, Notes()))
    assert [request.source for request in whole.asked] == TEXTS[:4]
    assert not any(request.similar for request in whole.asked)
