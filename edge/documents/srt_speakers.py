"""Whose words a line of a subtitle is: which line breaks part speakers, and which only wrap a sentence.

Owns: the tags of subtitles; dashes, chevrons, names, sounds in brackets, notes of songs and colours that lines begin
with.
Does not know: times, how a translation is written.
Units: characters of a cue's words.

    - Yes?     JOHN: Hello     (MAN) Hi.        [door opens]    ♪ A line ♪          <font color="cyan">Who?</font>
    - No.      MARY: Hi        (WOMAN) Bye.     Hello.          ♪ Another line ♪    <font color="lime">Me.</font>

Where one of these is missing on a line the line may belong to the one before, and the break is taken for a space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

# tags as players know them: HTML's, WebVTT's voices, classes and times, overrides of ASS and of MicroDVD
TAG = re.compile(
    r"<(/?)(i|b|u|s|font|em|strong|v|c|lang|ruby|rt|rp|rb|span|tt|small|big|sub|sup)((?:\.[\w.-]{1,100})?(?:\s[^<>]{0,200})?)>"
    r"|<br\s{0,3}/?>|<\d[\d:.]{3,15}>|\{\\[^{}]{0,200}\}|\{[CcFfoPSsYy]:[^{}]{0,200}\}",
    re.IGNORECASE,
)
DASHES = ("-", "–", "—", "‐", "−")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_ENDS = (".", "!", "?", "…", '"', "”", "»", "。", "！", "？", "」", "♪")
_CHEVRONS = (">>", "&gt;&gt;", "＞＞")
_ROUND = "(（"  # what words are in that a sentence holds, too
_NOTES = ("♪", "♫", "♬", "♩")
_HASH = re.compile(r"^#(?=\s)|(?<=\s)#$")  # a note where the first line begins with one
_COLOUR = re.compile(r"""\bcolou?r\s{0,3}=\s{0,3}["']?([^"'\s>]{1,40})""", re.IGNORECASE)
# up to three words and a number: Dr. Smith, MAN #2, 玛丽
_NAME = re.compile(r"((?:[^\W\d_][\w.'’-]{0,30}\s){0,2}[^\W\d_][\w.'’-]{0,30}(?:\s#?\d{1,3})?)\s?(?::(?=\s|$)|：)")
_BRACKET = r"(?:\[[^\[\]]*+\]|\([^()]*+\)|（[^（）]*+）|［[^［］]*+］|【[^【】]*+】)"
_OPENED = re.compile(_BRACKET)
_SOUND = re.compile(rf"(?:{_BRACKET}\s*+[.!]?\s*+)++")


@dataclass(frozen=True)
class _Line:
    """One line as it is shown.

    Attributes:
        start: where it begins in the cue's words.
        text: without tags and white space around it.
        voice: the colour, class or name that its tags give all of it; empty without such tags, None where parts differ.
    """

    start: int
    text: str
    voice: str | None

    @property
    def name(self) -> str:
        """The name of a speaker that it begins with: each of its words begins with a capital, where there are such."""
        found = _NAME.match(self.text)
        return found[1] if found and not any(word[0].islower() for word in found[1].split()) else ""

    @property
    def is_sound(self) -> bool:
        """Whether it is in brackets as a whole."""
        return _SOUND.fullmatch(self.text) is not None


def starts(body: str) -> set[int]:
    """Where lines of a cue begin that are another speaker's than the line before them; blank ones before it, too."""
    found: set[int] = set()
    if "\n" not in body and "\r" not in body:
        return found
    blank: list[int] = []  # where the lines begin that are part of this break
    shown: list[_Line] = []
    breaks: list[list[int]] = []
    for line in _lines(body):
        blank.append(line.start)
        if line.text:
            shown.append(line)
            breaks.append(blank)
            blank = []
    every = all(line.name for line in shown) or all(_OPENED.match(line.text) for line in shown)
    notes = 0  # of songs, before a line
    for at, line in enumerate(shown):
        if at == 0:
            is_other = line.text.startswith(DASHES)
        else:
            following = shown[at + 1].text if at + 1 < len(shown) else ""
            is_other = every or _is_other(shown[0], shown[at - 1], line, following, sung=notes % 2 == 0)
        found.update(breaks[at] if is_other else ())
        notes += sum(map(line.text.count, _NOTES))
    return found


def _lines(body: str) -> Iterator[_Line]:
    voices = [("", "")]  # of the tags that are open: what they are called, and whose words are in them
    sung = False
    for number, match in enumerate(_LINE.finditer(body)):
        parts: list[str] = []
        seen: set[str] = set()
        at = match.start()
        for tag in [*TAG.finditer(body, match.start(), match.end()), None]:
            part = body[at : tag.start() if tag else match.end()]
            parts.append(part)
            if part.strip():
                seen.add(voices[-1][1])
            if tag:
                at = tag.end()
                _turn(voices, tag)
        text = "".join(parts).strip()
        sung = sung or (number == 0 and text.startswith("# "))
        text = _HASH.sub("♪", text) if sung else text
        yield _Line(match.start(), text, seen.pop() if len(seen) == 1 else None)


def _turn(voices: list[tuple[str, str]], tag: re.Match[str]) -> None:
    """Opens or closes a tag of a colour, a class or a name."""
    name = (tag[2] or "").lower()
    if name not in ("font", "c", "v"):
        return
    if not tag[1]:
        colour = _COLOUR.search(tag[3]) if name == "font" else None
        said = (colour[1] if colour else "") if name == "font" else tag[3].strip()
        voices.append((name, said.lower() or voices[-1][1]))
    elif len(voices) > 1 and voices[-1][0] == name:
        voices.pop()


def _is_other(first: _Line, before: _Line, line: _Line, following: str, *, sung: bool) -> bool:
    """Whether a line is another speaker's than the one before it; `sung`: no song is open at its beginning."""
    ended = before.text.endswith(_ENDS)
    if line.text.startswith(DASHES):
        # a dash in the middle of a sentence is none: the sentence continues with a small letter, and no line began so
        words = f"{line.text} {following}".lstrip("-–—‐− \u00a0\t")
        return first.text.startswith(DASHES) or ended or not words[:1].islower()
    if line.text.startswith(_CHEVRONS):
        return True
    if line.text.strip("".join(_NOTES) + " ") and (
        line.text.startswith(_NOTES) or (before.text.endswith(_NOTES) and sung)
    ):
        return True
    voices = (before.voice, line.voice)
    if None not in voices and before.voice != line.voice and (ended or all(voices)):
        return True
    if line.name.isupper():
        return ended or first.name.isupper()
    if line.is_sound:
        return ended or before.is_sound or line.text[0] not in _ROUND or line.text.isupper()
    if before.is_sound:
        return before is first or before.text[0] not in _ROUND or not line.text[0].islower()
    return ended and _OPENED.match(line.text) is not None
