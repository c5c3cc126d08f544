"""A review file: what was corrected stays corrected, and every row comes back exactly as it went out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from edge.documents import Unit
from edge.errors import InputError
from edge.records import UnitTranslated
from edge.translation import languages, loop, pairs
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
    with pytest.raises(InputError, match="has no pair"):
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
        with pytest.raises(InputError, match="has no pair"):
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

    def full(self, pairs: Sequence[Pair]) -> bool:
        return False

    def __getattr__(self, name: str) -> None:
        raise AssertionError(name)
