"""Subtitles: what is a time and what is said, and which lines are whose."""

from __future__ import annotations

from pathlib import Path

import books
import pytest

from edge.documents import open_document

_CUE = "1\n00:00:01,000 --> 00:00:04,000\n"


@pytest.mark.parametrize("hours", [
    "10:30 -> 11:30", "10:30 --> 11:30", "9:00 → 17:00", "10:30:00 -> 11:30:00", "10:30:00 --> 11:30:00 daily", "１０：３０ ―> 11:30".replace("―", "—"),
    "10 : 30 -> 11 : 30 Lunch",
])  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_hours_that_a_cue_names_are_no_times(hours: str, end: str, tmp_path: Path) -> None:
    bodies = [f"Open today:\n{hours}", f"{hours}\nopen today", f"One line\nand\n{hours}\nwords"]
    text = "".join(f"{at}\n0{at}:00:01,000 --> 0{at}:00:04,000\n{body}\n\n" for at, body in enumerate(bodies, 1))
    text = text.replace("\n", end)
    document = books.made(tmp_path / "a.srt", text)
    assert books.texts(document) == [" ".join(body.split()) for body in bodies]
    document.write(tmp_path / "b.srt", {})
    assert (tmp_path / "b.srt").read_bytes().decode() == text


@pytest.mark.parametrize("first, second, mended", [
    ("10:30 -> 11:30", "11:30 -> 12:30", True), ("10:30:00 --> 11:30:00", "11:30:00 --> 12:30:00", False),
])  # fmt: skip
@pytest.mark.parametrize("between", ["", "\n2\n", "\n", "2\n", "\n\n2\n\n"])
def test_hours_and_minutes_are_times_where_a_cue_begins_or_no_others_are(
    first: str, second: str, mended: bool, between: str, tmp_path: Path
) -> None:
    text = f"{'1' if '2' in between else ''}\n{first}\nOne\n{between}{second}\nTwo\n"
    written = books.capitals(tmp_path / "a.srt", text)
    assert books.texts(open_document(tmp_path / "a.srt")) == ["One", "Two"]
    assert written == (text.replace("->", "-->") if mended else text).upper()


@pytest.mark.parametrize("before", ["2\n", "\n", "\n2\n"])
def test_hours_and_minutes_may_begin_a_cue_beside_whole_times(before: str, tmp_path: Path) -> None:
    document = books.made(tmp_path / "a.srt", f"{_CUE}One\n{before}10:30 -> 11:30\nTwo\n")
    assert books.texts(document) == ["One", "Two"]
