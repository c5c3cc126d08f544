"""Quotation marks: of a translation against those of its source.

Owns: which marks are pairs, speech without any mark of it, marks that stand alone; those that a draft lacks around all
of it, or has there and its source has not.
Does not know: what is done about them.
Units: characters.
"""

from __future__ import annotations

from collections.abc import Sequence

import regex

from ..documents import placeholders
from ..documents.inline import is_wide
from .languages import Language

# a title may be set in slanted letters instead of 『』; only in Swedish and Finnish ” begins a speech
_SPEECH = regex.compile(r"^\s*(?:[“„‟\"״«»「]|”[^“]*”)|[”“\"״»«」]\s*$")
# a word that is spoken of, at the beginning of a sentence that goes on: “人”字怎么写
_MENTION = regex.compile(
    r"^\s*(?:“\p{L}{1,4}”|「\p{L}{1,4}」|«\p{L}{1,12}»|\"\p{L}{1,12}\")(?:[这這那]?[个個]?[字词詞]|と?いう|[是和与與])"
)
_SPOKEN = regex.compile(r"[“”„‟\"״＂〝«»「」『』《》〈〉]|(?<!\p{L})[‘‚'‹›]|[’'](?!\p{L})|^\s*[-–—―]")
_QUOTED = regex.compile(r"[“”„‟\"״«»「」『』]")
_ENCLOSED = regex.compile(r"[\p{Pi}\p{Pf}\p{Ps}\p{Pe}\"״'`*_＂＇]|^\s*\p{Pd}")  # speech, titles in brackets, emphasis
# each group holds marks that are pairs in one language or another; single ones are apostrophes as well
_PAIRED = ('“”„"‟״', "«»", "「」", "『』")
_BOTH = ("“”", '""', "״״", "„“", "„”", "«»", "»«", "「」", "『』", "””", "»»")  # marks before and after speech
_GERSHAYIM = regex.compile(r"(?<=\p{Hebrew})[\"״”](?=\p{Hebrew})")  # of an abbreviation
# inches or the end of what is quoted; after a prefix a Hebrew abbreviation or the beginning
_EITHER = regex.compile(r"(?<=\p{N}|(?<!\p{L})[ושהמבלכ]{1,3}(?=.\p{Hebrew}))[\"״”]")
# how books are usually set where not as English ones are
_USUAL = {
    **dict.fromkeys(("de", "cs", "sk", "sl", "bg", "is", "lt", "et"), "„“"),
    **dict.fromkeys(("pl", "ro", "hu", "hr"), "„”"),
    **dict.fromkeys(("fr", "ru", "uk", "be", "it", "es", "el", "no", "nb", "nn"), "«»"),
    **dict.fromkeys(("sv", "fi"), "””"),
    "da": "»«",
    **dict.fromkeys(("ja", "zh-Hant"), "「」"),
}


def wrong(source: str, target: str) -> str:
    """Speech without any mark of it; or a mark that stands alone, where those of the source are pairs; else empty."""
    source = _told(placeholders.plain(source))
    target = _told(placeholders.plain(target))
    if _SPEECH.search(source) and not _MENTION.match(source) and not _SPOKEN.search(target):
        return "there are none in it"
    if not _QUOTED.search(source) or _unpaired(source):
        return ""
    odd = _unpaired(target)
    return f"{odd} stands alone" if odd else ""


def wrapped(source: str, target: str, language: Language, before: Sequence[tuple[str, str]] = ()) -> str:
    """A draft of a line of speech that has no mark of it, with those of its source; as it is, where it cannot be told.

    A model may leave the marks out, and is not brought to set them by being asked again. An opening mark is set where
    all of the source is behind one, a closing mark where all of it is before one.

    Args:
        language: of the draft.
        before: the (source, target) lines before, in their order: the marks that the last line of speech has there.
    """
    line = _told(source).strip()
    text = target.strip()
    if not line or not text or text[0] == "⟦" or text[-1] == "⟧":
        return target
    found = [match.start() for match in _QUOTED.finditer(line)]
    is_told = _is_speech(line)
    begins = is_told or found == [0]
    ends = is_told or (found == [len(line) - 1] and not begins)
    if begins != ends:  # a mark alone: of a speech of several lines
        is_open = _is_open([said for said, _ in before])
        opens = _opens(line, found[0])
        # where speech is open one that points both ways may end it as well
        is_told = opens and not (is_open and line[0] in "”»") if begins else is_open and not opens
    if not is_told:
        return target
    marks = next((_marks(done) for said, done in reversed(before) if _is_speech(said)), _usual(language))
    if not marks:
        return target
    gap = "\u00a0" if marks == "«»" and language.code == "fr" else ""
    return (marks[0] + gap if begins else "") + text + (gap + marks[1] if ends else "")


def _is_speech(source: str) -> bool:
    line = _told(source).strip()
    return len(line) > 1 and line[0] + line[-1] in _BOTH and len(_QUOTED.findall(line)) == 2


def _marks(target: str) -> str:
    """The marks around a line; none where it has others, a dash or single ones."""
    found = target.strip()[:1] + target.strip()[-1:]
    return found if found in _BOTH else ""


def _usual(language: Language) -> str:
    return next((_USUAL[tag] for tag in language.tags if tag in _USUAL), "“”")


def unwrapped(source: str, target: str, before: Sequence[tuple[str, str]] = ()) -> str:
    """A draft without the pair of marks around all of it, where nothing in its source is quoted or enclosed.

    A model may quote what it was asked for, and goes on so once it has begun.

    Args:
        before: the (source, target) lines before, in their order: where speech is still open, the marks stay.
    """
    text = target.strip()
    told = _told(text)
    if len(told) < 3 or told[-1] != text[-1] or not any(told[0] in marks and told[-1] in marks for marks in _PAIRED):
        return target
    if told[0] + told[-1] == "”“" or _QUOTED.search(told[1:-1]) or not any(map(str.isalnum, told)):
        return target
    if _ENCLOSED.search(_told(placeholders.plain(source))) or _is_open([said for said, _ in before]):
        return target
    return text[1:-1].strip()


def _is_open(lines: Sequence[str]) -> bool:
    """Whether the last line with quotation marks leaves speech open."""
    told = (_told(line) for line in reversed(lines))
    last = next((line for line in told if _QUOTED.search(line)), "")
    return bool(_unpaired(last)) and _opens(last, max(match.start() for match in _QUOTED.finditer(last)))


def _opens(text: str, at: int) -> bool:
    """Whether the mark at a place begins what is quoted: most do that in one language and end it in another.

    What stands beside it tells: white space or a colon before, white space or punctuation after. Where both do, or
    neither does, it is what it is in most languages.
    """
    if text[at] in "„‟「『」』":
        return text[at] in "„‟「『"
    before = text[:at][-1:]
    after = text[at + 1 :][:1]
    # a space says nothing where words do not stand apart
    begins = not before or (before.isspace() and not is_wide(after)) or before in "([:："
    ends = not after or after.isspace() or after in ".,;:!?)]…"
    return begins if begins != ends else text[at] in '“"״«'


def _told(text: str) -> str:
    """A text without what only looks like a quotation mark: inches, abbreviations in Hebrew.

    The last that may be either stays where another mark would stand alone without it.
    """
    either = [match.start() for match in _EITHER.finditer(text)]
    if not either or not _unpaired(_sure(text)):
        return _sure(text)
    at = either[-1]
    return _sure(text[:at]) + text[at] + _sure(text[at + 1 :])


def _sure(text: str) -> str:
    found: str = _GERSHAYIM.sub("", _EITHER.sub("", text))
    return found


def _unpaired(text: str) -> str:
    """A quotation mark without its other half; empty without one. Languages pair the same marks in many ways."""
    for marks in _PAIRED:
        found = [char for char in text if char in marks]
        if len(found) % 2:
            return found[-1]
    return ""
