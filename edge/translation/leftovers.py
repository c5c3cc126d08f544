"""What of a source may stand in its translation as it is written there: what is spoken of, signs, Latin names.

Owns: which runs of characters those are.
Does not know: which scripts a language is written in (`languages`), what is wrong with the others (`guards`).
Units: characters.
"""

from __future__ import annotations

import functools

import regex

from ..values import scripts
from . import copies

_SPOKEN_OF = (
    r"(?:[“\"‘「『'«„]{0}[”\"’」』'»“])|{0}(?:这个|這個|二|两个|兩個)?[字词詞]|[字词詞]{0}"
    r"|(?i:букв\p{{L}}*|γράμμα|글자|문자)\s{0}(?!\p{{L}})"
)
# where a text speaks of words; in others a quoted word is speech: “走”他说
_OF_WORDS = regex.compile(
    r"[字词詞]|文字|単語|単词|言葉|[단글]어|글자|낱말|이?라는|(?<!\p{L})(?:слов|букв|иероглиф|выражени)|كلمة|حرف|λέξη|γράμμα|מילה|אות",
    regex.IGNORECASE,
)
_LATIN_NAME = regex.compile(
    r"(?<![\p{Latin}\p{M}\d])[\p{Latin}\d][\p{Latin}\p{M}\d'’&+-]*+(?:\.[\p{Latin}\d]++)*+(?![\p{Latin}\p{M}\d])"
)
_CODE = regex.compile(
    r"`[^`\n]{1,200}`|(?<![A-Za-z\d])[A-Za-z][A-Za-z\d]*+(?:[._][A-Za-z\d]++)++"
)  # names of files and in programs
_GLOSS = regex.compile(r"[(（［\[]\s*\p{Han}[\p{Han}\p{Hangul}\s,、·]{0,60}[)）］\]]")
_LATIN_GLOSS = regex.compile(r"[(（［\[]\s*[\p{Latin}\p{M}\d][\p{Latin}\p{M}\d\s'’.,，、;；:&-]{0,80}[)）］\]]")
_GREEK = regex.compile(r"\p{Greek}")


@functools.lru_cache(128)
def is_spoken_of(run: str, source: str) -> bool:
    """Whether a source speaks of a run of characters that it has: the character 人; or uses it as a sign: π, 5 μm."""
    if regex.search(_SPOKEN_OF.format(regex.escape(run)), source):
        return True
    alone = rf"(?<!\p{{Greek}}){regex.escape(run)}(?!\p{{Greek}})"
    return len(run) == 1 and bool(_GREEK.match(run) and regex.search(alone, source))


def without_spoken_of(text: str, source: str, written: tuple[str, ...]) -> str:
    """A translation without the words of the scripts `written` that its source speaks of as words."""
    if not written:
        return text

    def dropped(found: regex.Match[str]) -> str:
        run = found[0]
        is_word = len(run) == 1 or _OF_WORDS.search(source)
        return " " if is_word and is_spoken_of(run, source) else run

    return str(runs(written).sub(dropped, text))


def without_names(text: str, source: str) -> str:
    """A translation without the Latin names that its source has too: Python, Wi-Fi, New York."""
    names = {word for word in _LATIN_NAME.findall(source) if _is_name(word)}
    text = _CODE.sub(lambda found: " " if found[0] in source else found[0], text)
    return str(_LATIN_NAME.sub(lambda found: " " if found[0] in names else found[0], text)) if names else str(text)


def without_glosses(text: str, written: tuple[str, ...]) -> str:
    """A translation without what stands in brackets beside its own words: Chinese characters in a Korean text, Latin
    words in one that is written otherwise.
    """
    if written == ("Hangul",):
        text = _GLOSS.sub(" ", text)
    return text if "Latin" in written else str(_LATIN_GLOSS.sub(" ", text))


def _is_name(word: str) -> bool:
    return word != word.lower() and not copies.is_common(word)


@functools.cache
def runs(written: tuple[str, ...]) -> regex.Pattern[str]:
    """Runs of characters of these scripts."""
    return regex.compile(f"{scripts.characters(written).pattern}+")
