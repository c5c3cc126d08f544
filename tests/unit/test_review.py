"""A review file: what was corrected stays corrected, and every row comes back exactly as it went out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.commands import options
from edge.commands.outputs import Review
from edge.documents import Unit, open_document
from edge.errors import InputError
from edge.records import UnitTranslated
from edge.translation import interchange, languages, loop, pairs, reviewing
from edge.translation.prompts import Pair

EN, DE = languages.find("en"), languages.find("de")
HOSTILE = [
    "# a heading", "#", "=1+2", "+1 for that", "-5 degrees", "– no, said he", "@home", "'tis so", "'=quoted", "''-twice",
    "one\u2028two", "one\u2029two", "one\x85two", "one\x1etwo", "one\x0btwo", "one\x0ctwo", "\u00a0indented", "＝wide", "a #<# b",
    '"quoted"', "back\\slash \\t",
]  # fmt: skip


def unit(number: int, source: str, text: str, status: str = "model") -> UnitTranslated:
    return UnitTranslated(number + 1, f"u{number:06d}", source, text, status)


def read(path: Path) -> Sequence[Pair]:
    return [pair for chunk in pairs.read(path, EN, DE) for pair in chunk]


def test_a_correction_stays_one(tmp_path: Path) -> None:
    """Three rounds: each reads the review of the one before, and translates nothing again that was corrected."""
    path = tmp_path / "review.tsv"
    rows = [unit(0, "Sea.", "See."), unit(1, "Ship.", "Schiff."), unit(2, "Men.", "Mann.", "marked")]
    path.write_text(pairs.review(rows).replace("Schiff.\tmodel", "Boot.\tmodel"), "utf-8")
    for _ in range(3):
        known = {pair.source: pair.target for pair in read(path)}
        assert known == {"Ship.": "Boot."}
        again = [
            unit(n, r.source, known.get(r.source, r.text), "corrected" if r.source in known else r.status)
            for n, r in enumerate(rows)
        ]
        path.write_text(pairs.review(again), "utf-8")
    # removed by the user: it is none any more
    left = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("Ship.")]
    path.write_text("\n".join(left) + "\n", "utf-8")
    with pytest.raises(InputError, match="edited or confirmed"):
        read(path)


def test_rows_are_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "review.tsv"
    rows = [unit(n, text, text[::-1] if n % 2 else f"x{text}") for n, text in enumerate(HOSTILE)]
    rows += [unit(99 + n, f"y{text}", text) for n, text in enumerate(HOSTILE)]
    text = pairs.review(rows)
    path.write_bytes(text.replace("\tmodel\t", "\tok\t").encode())
    assert list(read(path)) == [Pair(row.source, row.text) for row in rows]
    cells = [cell for line in text.split("\n")[1:] for cell in line.split("\t")]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "＝"))]
    # untouched, none of them is a correction; with Windows line ends neither
    for data in (text, text.replace("\n", "\r\n")):
        path.write_bytes(data.encode())
        with pytest.raises(InputError, match="edited or confirmed"):
            read(path)


def test_what_a_user_types_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "review.tsv"
    path.write_text(
        pairs.review([unit(0, "Minus five.", "Minus f\u00fcnf.")]).replace("Minus f\u00fcnf.", "-5"), "utf-8"
    )
    assert list(read(path)) == [Pair("Minus five.", "-5")]


def test_comments_and_short_rows(tmp_path: Path) -> None:
    path = tmp_path / "review.tsv"
    text = pairs.review([unit(0, "Sea.", "See.")]).replace("model", "ok")
    path.write_text(text + "# a note of mine\n\n", "utf-8")
    assert list(read(path)) == [Pair("Sea.", "See.")]
    path.write_text(text + "Ship.\tSchiff.\n", "utf-8")
    with pytest.raises(InputError, match="line 3 has 2 column"):
        read(path)


def as_a_spreadsheet(text: str) -> str:
    """What one leaves of a table that it opened and saved: cells that are numbers to it are written as it shows them."""
    rows = list(csv.reader(io.StringIO(text)))
    for row in rows[1:]:
        for n, cell in enumerate(row):
            try:
                number = float(cell)
            except ValueError:
                continue
            row[n] = f"{number:.0f}" if cell.isdigit() else f"{number:.2E}"
    saved = io.StringIO()
    csv.writer(saved).writerows(rows)
    return saved.getvalue()


def test_a_spreadsheet_that_saves_a_review_edits_nothing(tmp_path: Path) -> None:
    """Eight digits, or digits around an e, are a number to it: 0.0012 and 1.4 of 100 fingerprints were."""
    path = tmp_path / "review.csv"
    rows = [unit(n, f"Line {n}.", f"Zeile {n}.") for n in range(3000)]
    path.write_text(as_a_spreadsheet(interchange.write(path, rows, EN, DE).removeprefix("\ufeff")), "utf-8")
    assert pairs.by_unit(path) == {}
    path.write_text(path.read_text("utf-8").replace("Zeile 7.", "Reihe 7."), "utf-8")
    assert pairs.by_unit(path) == {"u000007": Pair("Line 7.", "Reihe 7.")}


def test_a_review_of_an_earlier_version_is_known(tmp_path: Path) -> None:
    path = tmp_path / "review.tsv"
    row = "Sea.\tSee.\tmodel\tu000000\t{}\t\n".format("781cc6aa")
    path.write_text(f"{pairs.REVIEW}\n{row}", "utf-8")
    assert reviewing.check("See.")[1:] == "81cc6aa" and pairs.by_unit(path) == {}
    path.write_text(f"{pairs.REVIEW}\n{row.replace('See.', 'Meer.')}", "utf-8")
    assert pairs.by_unit(path) == {"u000000": Pair("Sea.", "Meer.")}


@pytest.mark.parametrize("suffix", interchange.SUFFIXES)
def test_a_review_that_is_saved_half_way_corrects_nothing(tmp_path: Path, suffix: str) -> None:
    """Wherever it ends: what is there of it is refused, or is what was written."""
    path = tmp_path / f"review{suffix}"
    rows = [
        unit(0, "Sea.", "See."),
        unit(1, "A ship, \u27e61\u27e7old\u27e6/1\u27e7.", "Ein Schiff, \u27e61\u27e7alt\u27e6/1\u27e7."),
    ]
    whole = interchange.write(path, rows, EN, DE)
    wrong = []
    for end in range(len(whole)):
        path.write_text(whole[:end], "utf-8")
        try:
            if found := pairs.by_unit(path):
                wrong.append((whole[:end][-30:], found))
        except InputError:
            continue
    assert not wrong


class Beside:
    """A review of three lines while a run goes on."""

    def __init__(self, folder: Path, name: str = "review.tsv") -> None:
        book = folder / "book.txt"
        book.write_text("Sea.\n\nShip.\n\nMen.\n")
        document = open_document(book)
        self.path = folder / name
        self.done = [unit(n, u.text, f"Wort {n}.") for n, u in enumerate(document.units)]
        self.review = Review(self.path, document, loop.Job(document.units, EN, DE))

    def edit(self, old: str, new: str) -> None:
        text = self.path.read_text("utf-8")
        assert old in text
        self.path.write_text(text.replace(old, new), "utf-8")


def test_an_edit_in_the_moment_of_writing_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor saves right after a review was written, and right before it is written again."""
    beside = Beside(tmp_path)
    real = options.write_bytes

    def saved_after(path: Path, data: bytes) -> None:
        real(path, data)
        beside.edit("Wort 0.", "Meer.")

    monkeypatch.setattr(options, "write_bytes", saved_after)
    beside.review.write(beside.done[:2])
    monkeypatch.setattr(options, "write_bytes", real)
    beside.review.write(beside.done)
    assert "Meer." in beside.path.read_text("utf-8")
    assert beside.review.edits() == {"u000000": Pair("Sea.", "Meer.")}
    write = interchange.write

    def saved_before(*args: object) -> str:
        text = write(*args)  # type: ignore[arg-type]
        beside.edit("Wort 1.", "Boot.")
        return text

    monkeypatch.setattr(interchange, "write", saved_before)
    beside.review.write(beside.done)
    assert set(beside.review.edits()) == {"u000000", "u000001"}


def test_a_review_that_cannot_be_read_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A loop of links, or a folder, or a file of somebody else: it is no missing one."""
    beside = Beside(tmp_path)
    beside.path.symlink_to(beside.path)
    assert beside.review.edits() == {}
    beside.review.write(beside.done)
    assert beside.path.is_symlink() and "it is left as it is, and not used" in capsys.readouterr().err


def test_a_review_may_be_sorted(tmp_path: Path) -> None:
    """Its first line goes with the rows, wherever a spreadsheet puts it."""
    for suffix in (".tsv", ".csv"):
        path = tmp_path / f"review{suffix}"
        text = interchange.write(path, [unit(n, f"Line {n}.", f"Zeile {n}.") for n in range(4)], EN, DE)
        head, *rows = text.replace("Zeile 2.", "Reihe 2.").removeprefix("\ufeff").splitlines()
        for lines in ([*rows[::-1], head], [rows[3], head, *rows[:3]]):
            path.write_text("\n".join(lines) + "\n", "utf-8")
            assert pairs.is_review(path)
            assert pairs.by_unit(path) == {"u000002": Pair("Line 2.", "Reihe 2.")}
            assert list(read(path)) == [Pair("Line 2.", "Reihe 2.")]


OTHERS = {
    "notes.tsv": "my own terms\tand notes\n",
    "headless.tsv": "Sea.\tMeer, by hand.\tmodel\tu000000\tg0000000\t\n",
    "notes.csv": "my own,notes\n",
    "client.po": 'msgid "Sea."\nmsgstr "Meer, by hand."\n',
    "client.xlf": '<xliff version="1.2"><file source-language="en" target-language="de"><body><trans-unit id="1">'
    "<source>Sea.</source><target>Meer, by hand.</target></trans-unit></body></file></xliff>",
    "client.xliff": '<xliff version="2.0" srcLang="en" trgLang="de"><file id="a"><unit id="1"><segment>'
    "<source>Sea.</source><target>Meer, by hand.</target></segment></unit></file></xliff>",
    "empty.tsv": "",
    "empty.po": "",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_review_is_not_written_over(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the user's that was named by mistake, or one from which a tool has dropped our notes or first line."""
    beside = Beside(tmp_path, name)
    beside.path.write_text(OTHERS[name], "utf-8")
    for done in (beside.done[:1], beside.done):
        assert beside.review.edits() == {}
        beside.review.write(done)
    assert beside.path.read_text("utf-8") == OTHERS[name]
    assert capsys.readouterr().err.count("it is left as it is, and not used") == 1  # said once
    beside.path.unlink()
    assert beside.review.edits() == {}
    beside.review.write(beside.done)
    assert pairs.is_review(beside.path)


def test_a_review_without_rows_is_one(tmp_path: Path) -> None:
    for suffix in interchange.SUFFIXES:
        path = tmp_path / f"review{suffix}"
        path.write_text(interchange.write(path, [], EN, DE), "utf-8")
        assert pairs.is_review(path) and pairs.by_unit(path) == {}


def test_the_same_line_may_be_corrected_in_two_ways(tmp_path: Path) -> None:
    """Each unit keeps its own correction, where it stands in the review."""
    path = tmp_path / "review.tsv"
    done = [unit(0, "Sea.", "See."), unit(1, "Sea.", "See.")]
    first, second = pairs.review(done).replace("\tmodel", "\tok").splitlines()[1:]
    path.write_text("\n".join([pairs.REVIEW, first.replace("See.", "Meer."), second]) + "\n", "utf-8")
    units = [Unit(r.id, r.source) for r in done] + [Unit("u000009", "Sea.")]
    job = loop.Job(units, EN, DE, learn=frozenset(), corrections=read(path), corrected=pairs.by_unit(path))
    made = [r for r in loop.translate(job, NoModel(), NoModel()) if isinstance(r, UnitTranslated)]
    assert [(r.text, r.status) for r in made[:2]] == [("Meer.", "corrected"), ("See.", "corrected")]
    assert made[2].status == "corrected"


class NoModel:
    """Nothing is to be translated or taught."""

    def full(self, pairs: Sequence[Pair], of: str = "self") -> bool:
        return False

    def __getattr__(self, name: str) -> None:
        raise AssertionError(name)
