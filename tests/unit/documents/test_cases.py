"""Files that people met: each came out wrong once, and this is what is right."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import books
import pytest

from edge.documents import Document, open_document, placeholders
from edge.errors import InputError


def _made(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_document(path)


def _texts(document: Document) -> list[str]:
    return [unit.text for unit in document.units]


def _capitals(path: Path, content: str | bytes) -> str:
    """What becomes of a file of which each unit is written in capitals."""
    document = _made(path, content)
    out = path.with_name(f"out{path.suffix}")
    document.write(out, books.translated(document))
    return out.read_bytes().decode()


# --- plain text ---

_PROSE = (
    "The morning train was late again and the people on the platform looked at the clock over the door, which had not "
    "moved since the winter before. Nobody spoke about it. A boy sold apples from a box that was too large for him."
)


@pytest.mark.parametrize("width", [50, 66, 98])
@pytest.mark.parametrize("odd", ["This free text may be copied, given away or used again," + " at no cost" * 6, "https://example.org/" + "a" * 120])  # fmt: skip
def test_a_longer_line_leaves_wrapped_text_wrapped(tmp_path: Path, width: int, odd: str) -> None:
    paragraphs = [_PROSE, f"{_PROSE} {_PROSE}", f"Nobody spoke. {_PROSE}"] * 4
    wrapped = [textwrap.fill(text, width) for text in paragraphs]
    text = "\n\n".join(["A SMALL STORY", odd, *wrapped]) + "\n"
    assert _texts(_made(tmp_path / "a.txt", text)) == ["A SMALL STORY", odd, *paragraphs]
    assert _capitals(tmp_path / "b.txt", text) == text.upper()
    inside = f"{wrapped[0]}\n{odd}\n{wrapped[1]}\n\n" + text  # in a paragraph, too
    assert _texts(_made(tmp_path / "c.txt", inside))[-len(paragraphs) :] == paragraphs


def test_a_line_cut_early_ends_no_paragraph_in_mid_sentence(tmp_path: Path) -> None:
    lines = textwrap.wrap(_PROSE, 66) * 2
    lines[1] = lines[1].rsplit(" ", 3)[0] + ","
    assert len(_made(tmp_path / "a.txt", "\n".join(lines) + "\n").units) <= 2


def test_short_paragraphs_on_lines_stay_apart(tmp_path: Path) -> None:
    sentences = [s for s in re.split(r"(?<=[.,]) ", _PROSE * 3) if s]
    assert _texts(_made(tmp_path / "a.txt", "\n".join(sentences))) == sentences
    chinese = [
        "韩梅梅把门关上了。",
        "他没有说话，只是看着窗外的雨，想起很多年以前的一个晚上。",
        "“谁？”",
        "没有人回答她。",
    ] * 3
    assert _texts(_made(tmp_path / "b.txt", "\n".join(chinese))) == chinese


# --- subtitles ---


@pytest.mark.parametrize("odd, mended", [
    ("00: 00: 03, 000 --> 00: 00: 04, 500", "00:00:03,000 --> 00:00:04,500"),
    ("00 : 00 : 03,000 --> 00:00:04 ,500", "00:00:03,000 --> 00:00:04,500"),
    ("00：00：03，000 --> 00：00：04，500", "00:00:03,000 --> 00:00:04,500"),
    ("00:00:03 --> 00:00:04", "00:00:03 --> 00:00:04"),
    ("00:03.000 --> 00:04.500", "00:03.000 --> 00:04.500"),
    ("00:00:03;000 —> 00:00:04;500", "00:00:03,000 --> 00:00:04,500"),
    ("00:00:03,000 --> 00:00:04,500 X1:1 X2:2", "00:00:03,000 --> 00:00:04,500 X1:1 X2:2"),
])  # fmt: skip
def test_odd_times_are_times(tmp_path: Path, odd: str, mended: str) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,500\nGood evening.\n\n2\n{odd}\nWhere is the boat?\n\n3\n00:00:05,000  -->  00:00:06,000\nHere.\n"
    assert _capitals(tmp_path / "a.srt", text) == text.replace(odd, mended).upper()
    assert len(open_document(tmp_path / "a.srt").units) == 3


def test_a_line_that_should_be_times_is_refused_by_number(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,500\nGood evening.\n\n2\nO0:00:03,0x0 --> 00:00:04\nWhere?\n"
    with pytest.raises(InputError, match="line 6 is no time"):
        _made(tmp_path / "a.srt", text)
    spoken = text.replace("2\nO0:00:03,0x0 --> 00:00:04\n", "Press 1 -> 2\n")
    assert _texts(_made(tmp_path / "b.srt", spoken)) == ["Good evening. Press 1 -> 2 Where?"]


def test_blank_lines_around_a_number(tmp_path: Path) -> None:
    text = "1\n\n00:00:00,000 --> 00:00:00,760\nThis costs $5.\n\n2\n\n00:00:01,000 --> 00:00:02,000\n12\n\n3\n\n00:00:03,000 --> 00:00:04,000\nThat is cheap.\n"
    assert _capitals(tmp_path / "a.srt", text) == text.upper()
    assert _texts(open_document(tmp_path / "a.srt")) == ["This costs $5.", "That is cheap."]
    once = "1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\n\n00:00:03,000 --> 00:00:04,000\nTwo.\n\n3\n00:00:05,000 --> 00:00:06,000\nThree.\n"
    assert _texts(_made(tmp_path / "b.srt", once)) == ["One.", "Two.", "Three."]


def test_no_subtitle_line_begins_with_the_dash_of_a_sentence(tmp_path: Path) -> None:
    head = "1\n00:00:01,000 --> 00:00:04,000\n"
    written = _capitals(tmp_path / "a.srt", f"{head}They waited in the harbour all week – and nobody came to them.\n")
    assert written.split("\n")[2:4] == ["THEY WAITED IN THE HARBOUR ALL WEEK –", "AND NOBODY CAME TO THEM."]
    read = _made(tmp_path / "b.srt", f"{head}They waited in the harbour all week\n– and nobody came to them.\n")
    assert _texts(read) == ["They waited in the harbour all week – and nobody came to them."]
    speakers = _made(
        tmp_path / "c.srt", f"{head}- who is there?\n- only me.\n\n2\n{head[2:]}Who is there?\n- Only me.\n"
    )
    assert all("⟦1/⟧" in text for text in _texts(speakers))


def test_subtitle_markup_is_no_text(tmp_path: Path) -> None:
    head = "1\n00:00:01,000 --> 00:00:04,000\n"
    for body, text, written in (
        ("<v Anna>Come in\\hnow\\Nplease</v>", "Come in now please", "<v Anna>COME IN NOW PLEASE</v>"),
        ("<c.yellow>Bright</c> day {\\pos(10,20)}here", "⟦1⟧Bright⟦/1⟧ day ⟦2/⟧here", "<c.yellow>BRIGHT</c> DAY {\\pos(10,20)}HERE"),
        ("One {y:i}slanted<br/>word", "One ⟦1/⟧slanted⟦2/⟧word", "ONE {y:i}SLANTED<br/>WORD"),
        ("Tom &amp; Jerry&nbsp;&lt;now&gt;", "Tom & Jerry\u00a0<now>", "TOM &amp; JERRY\u00a0&lt;NOW&gt;"),
        ("Tom & Jerry {Note: sign}", "Tom & Jerry {Note: sign}", "TOM & JERRY {NOTE: SIGN}"),
        ("Slow <00:00:02.000>words", "Slow ⟦1/⟧words", "SLOW <00:00:02.000>WORDS"),
    ):  # fmt: skip
        assert _capitals(tmp_path / "a.srt", f"{head}{body}\n") == f"{head}{written}\n"
        assert _texts(open_document(tmp_path / "a.srt")) == [text]
        assert placeholders.plain(_texts(open_document(tmp_path / "out.srt"))[0]) == placeholders.plain(text).upper()
