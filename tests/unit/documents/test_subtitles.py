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


@pytest.mark.parametrize("body", [
    "JOHN: Hello\nMARY: Hi", "John: Hello\nDr. Smith: hi\nMary: Hi", "Hello there.\nMARY: Hi", "MAN #1: Yes\nMAN #2: No",
    "JOHN: I have seen it all\nMARY: So have I", "玛丽：你好\n约翰：好", "Мария: Да\nИван: Нет",
    "(MAN) Hi.\n(WOMAN) Bye.", "(MAN) Hi\n(WOMAN) Bye", "[man] hi\n[woman] bye", "Hello.\n(WOMAN) Bye.",
    "[door opens]\nHello.", "(door opens)\nhello", "Hello.\n(sighs)", "Hello\n[door opens]", "Hello\n(SIGHS)", "[door opens]\n[dog barks]",
    "Hello\n[dog barks]\nwho is there", "【开门】\n你好",
    "♪ a ♪\n♪ b ♪", "♪ a line of\n♪ this song", "♪ a ♪\nHello", "Hello\n♪ a ♪", "# a #\n# b #", "<i>♪ a ♪</i>\n<i>♪ b ♪</i>", "♪♪\nHello",
    '<font color="yellow">Who?</font>\n<font color="cyan">Me</font>', "<font color=#ff0>who</font>\n<font color=#0ff>me</font>",
    'Who?\n<font color="cyan">Me</font>', "<c.yellow>Who</c>\n<c.cyan>Me</c>", "<v Anna>who</v>\n<v Bob>me</v>",
    '<i><font face="a" color="yellow">Who?</font></i>\n{\\an8}<font color="cyan">Me</font>',
    ">> hello\n>> hi", "Hello\n&gt;&gt; Hi", "- hello\n- hi", "Hello\n- Hi", "Yes?\n\nMARY: Hi",
])  # fmt: skip
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_several_speakers_keep_their_breaks(body: str, end: str, tmp_path: Path) -> None:
    text = f"{_CUE}{body}\n".replace("\n", end)
    document = books.made(tmp_path / "a.srt", text)
    document.write(tmp_path / "b.srt", {unit.id: unit.text for unit in document.units})
    assert (tmp_path / "b.srt").read_bytes().decode() == text
    assert len(document.units) == 1 and "⟧" in document.units[0].text


@pytest.mark.parametrize("body", [
    "Hello there,\nMary", "I told the\nFBI: go away", "He said this:\nNobody came", "This is the\nProblem: nobody came.", "MARY: hello\nthere",
    "Three things: one,\ntwo and three: four", "At 10:30\nwe left", "MAN:\nHello there",
    "They met Bob\n(his brother)", "They met Bob\n(his brother)\nand left", "I saw him (the man\nfrom the shop)", "(MAN) I saw\nthe man",
    "(MAN) I saw the\n(red) car and\nleft", "We are\n# 1",
    "♪ a line of\nthis song ♪", "♪\nLa la la\n♪", "# a line of\nthis song #",
    '<font color="yellow">Who\nare you?</font>', '<font color="yellow">Who</font>\n<font color="yellow">are you</font>',
    'Who is\n<font color="cyan">this</font>', '<font color="yellow">Who</font> is\n<font color="cyan">this</font> man',
    "<i>One\ntwo</i>", "<i>One.</i>\nTwo", "They waited\n– and nobody came", "It was late.\nHe went home.",
])  # fmt: skip
def test_lines_of_one_sentence_are_joined(body: str, tmp_path: Path) -> None:
    document = books.made(tmp_path / "a.srt", f"{_CUE}{body}\n")
    document.write(tmp_path / "b.srt", {unit.id: unit.text for unit in document.units})
    assert (tmp_path / "b.srt").read_text("utf-8") == f"{_CUE}{body.replace(chr(10), ' ')}\n"


def test_a_speech_of_two_lines_stays_one_between_others(tmp_path: Path) -> None:
    body = "JOHN: I have seen\nit all.\nMARY: So\nhave I."
    assert books.texts(books.made(tmp_path / "a.srt", _CUE + body)) == ["JOHN: I have seen it all.⟦1/⟧MARY: So have I."]
    body = '<font color="red">I have\nseen it.</font>\n<font color="lime">So have I.</font>'
    assert books.texts(books.made(tmp_path / "b.srt", _CUE + body)) == ["⟦1⟧I have seen it.⟦/1⟧⟦2/⟧⟦3⟧So have I.⟦/3⟧"]
