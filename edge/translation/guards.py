"""Guards: what is wrong with a translation, found without a model.

Owns: the checks on one unit and their limits. Pure functions: texts in, problems out.
Does not know: how a translation was made, what is done about a problem.
Units: characters, letters, weights (a Han character or a kana carries what about three Latin letters do).

A problem is one line for people, its kind first: "loop: ...", "language: ...".
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from ..documents import placeholders
from . import languages, numerals
from .languages import Language

_LOOP = re.compile(r"(.{1,80}?)\1{2,}", re.DOTALL)
_BROKEN = regex.compile(r"[\p{Cc}\p{Cn}\p{Co}\p{Cs}\uFFFD]")
_SENTENCES = re.compile(r"[^.!?。！？…]+[.!?。！？…]*")
# what is the same in every language: addresses, mail, paths, numbers of books and articles
_ADDRESS = re.compile(
    r"(?:https?|ftp|file)://\S{1,2000}|\bwww\.\S{1,500}|\bmailto:\S{1,300}|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    r"|\b(?:ISBN|ISSN|DOI|EAN|ISMN|PMID|arXiv)(?:-1[03])?\s?:?\s?[\d/.–-][\dXx/.\w–-]{2,60}(?:[ –-][\dX]{1,7})*"
    r"|\b[\w-]{1,63}(?:\.[\w-]{1,63})*\.(?:com|org|net|edu|gov|info|io|de|fr|es|it|ru|cn|jp|uk|eu|example)(?:/\S{0,500})?\b",
    re.IGNORECASE,
)
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’.-][\p{L}\p{M}]+)*")
_SOUND = re.compile(
    r"(?:(\w{1,3})\1+\w?|[aouäöüh]{1,3}h*|[hm]+|p?s+t+|oh|ah|eh|uh|wow|hey|hi|ha|ho|he|la)", re.IGNORECASE
)
_NAME_PARTICLES = "de da di do dos del della der van von zu zur la le du den ten bin ibn al el y e af"
_PARTICLES = frozenset(_NAME_PARTICLES.split())
# words that no name is made of, in capitals as titles have them
_NO_NAME_WORDS = """
    the a an and or of to in on at by for with from into through until is are was were be he she it we they you i
    his her its my our your this that not no do what when where who why how all new old great little chapter part
    book volume section prologue epilogue contents preface introduction one two three four five six seven eight
    nine ten eleven twelve twenty der die das ein eine und oder im am mit von bis nicht kapitel teil buch band
    vorwort inhalt le les un une et ou dans avec pour pas chapitre partie livre los las una con por capítulo parte
    libro il lo gli capitolo глава часть и в на не
    """
_NO_NAME = frozenset(_NO_NAME_WORDS.split())


@dataclass(frozen=True)
class Limits:
    """Where the checks draw their lines.

    Attributes:
        loop: letters that a repeated piece must fill before it counts as a loop.
        ratio: how many times heavier or lighter than its source a translation may be.
        copy: letters from which a translation that is its source counts as a copy.
        foreign: the share of letters that may be neither Latin nor of the target language's scripts, beyond what the
            source itself quotes so.
        sure: the probability from which the identifier of languages is believed.
        off: kinds of problems that are not looked for.
    """

    loop: int = 24
    ratio: float = 3.5
    copy: int = 12
    foreign: float = 0.1
    sure: float = 0.95
    off: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """What is judged: one unit's source and translation, both with placeholders.

    Attributes:
        terms: (source, target) pairs of the glossary whose source occurs here.
        cut: the translation ended at its token limit.
        earlier: (source, target) pairs just before.
    """

    source: str
    target: str
    source_language: Language
    target_language: Language
    terms: Sequence[tuple[str, str]] = ()
    cut: bool = False
    earlier: Sequence[tuple[str, str]] = ()


def problems(case: Case, limits: Limits | None = None) -> list[str]:
    """All that is wrong with a translation; empty where nothing is."""
    limits = limits or Limits()
    checks: dict[str, Callable[[Case, Limits], str]] = {
        "empty": _empty,
        "cut": _cut,
        "noise": _noise,
        "loop": _loop,
        "copy": _copy,
        "again": _again,
        "language": _language,
        "length": _length,
        "placeholders": _placeholders,
        "numbers": _numbers,
        "terms": _terms,
    }
    found = ((kind, check(case, limits)) for kind, check in checks.items() if kind not in limits.off)
    return [f"{kind}: {what}" for kind, what in found if what]


def needs_no_translation(text: str) -> bool:
    """Whether a unit has no words at all (numbers, ornaments, an image, an address): it is kept as it is."""
    return not languages.letters(_ADDRESS.sub(" ", placeholders.plain(text)))


def loop(text: str, limit: int = Limits.loop) -> str:
    """The piece that a text repeats on end, or an empty string.

    Repeated without a gap at least three times and filling at least `limit` letters in all (twice that for a piece of
    one or two characters: laughter, dots).
    """
    for match in _LOOP.finditer(text):
        unit = match[1]
        whole = match[0]
        filled = languages.letters(whole) or len(whole) // 4
        if filled >= (limit if len(unit.strip()) > 2 else 2 * limit):
            return unit
    return ""


def weight(text: str) -> float:
    """How much a text says, roughly: letters and digits, those of Chinese and Japanese counted three times."""
    dense = len(regex.findall(r"[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}]", text))
    syllables = len(regex.findall(r"\p{Script=Hangul}", text))
    return len(regex.findall(r"[\p{L}\p{N}]", text)) + 2 * dense + syllables


def numbers(text: str) -> set[str]:
    """The numbers of two digits and more, without grouping marks, in ASCII digits. Smaller ones may become words."""
    return numerals.in_digits(text)


# --- the checks: what is wrong, or an empty string ---


def _empty(case: Case, limits: Limits) -> str:
    return "" if placeholders.plain(case.target).strip() else "nothing was given"


def _cut(case: Case, limits: Limits) -> str:
    return "it reached its token limit" if case.cut else ""


def _noise(case: Case, limits: Limits) -> str:
    found = set(_BROKEN.findall(case.target)) - set(case.source)
    return f"characters that are no text ({' '.join(f'U+{ord(c):04X}' for c in sorted(found)[:3])})" if found else ""


def _loop(case: Case, limits: Limits) -> str:
    target = placeholders.plain(case.target)
    if (unit := loop(target, limits.loop)) and not loop(placeholders.plain(case.source), limits.loop // 3):
        return f"'{_short(unit)}' over and over"
    spoken = Counter(s for part in _SENTENCES.findall(target) if languages.letters(s := part.strip().casefold()) > 8)
    sources = Counter(part.strip() for part in _SENTENCES.findall(case.source))
    often = max(sources.values(), default=1)
    repeated = [sentence for sentence, count in spoken.items() if count > 2 and count > often]
    return f"'{_short(repeated[0])}' said {spoken[repeated[0]]} times" if repeated else ""


def _copy(case: Case, limits: Limits) -> str:
    source = _bare(case.source)
    target = _bare(case.target)
    if source == target and _stays(case.source):
        return ""
    if (
        len(_bare(_ADDRESS.sub(" ", placeholders.plain(case.source)))) < limits.copy
        or case.source_language.code == case.target_language.code
    ):
        return ""
    if source == target:
        return "it is the source text"
    inside = len(source) >= 2 * limits.copy and (
        source in target or (target in source and 2 * len(target) > len(source))
    )
    return "the source text is in it" if inside else ""


def _stays(text: str) -> bool:
    """Whether a text is right as it is in any language: names, addresses, codes, sounds.

    A name is known by its capitals alone: at most five words, none of which makes up titles instead.
    """
    words = _WORD.findall(_ADDRESS.sub(" ", placeholders.plain(text)))
    if all(_SOUND.fullmatch(word) for word in words):
        return True
    names = [word for word in words if word.casefold() not in _PARTICLES]
    if not 1 <= len(names) <= 5 or any(word.casefold() in _NO_NAME for word in words):
        return False
    return all(word[0].isupper() and (not word.isupper() or len(word) <= 5) for word in names)


def _again(case: Case, limits: Limits) -> str:
    """The translation of another line, word for word: short answers may be the same, longer ones may not."""
    source = _bare(case.source)
    target = _bare(case.target)
    for other, translation in case.earlier if len(target) >= 20 else ():
        if _bare(translation) == target and difflib.SequenceMatcher(None, _bare(other), source).ratio() < 0.5:
            return f"it is the translation of '{_short(placeholders.plain(other))}'"
    return ""


def _language(case: Case, limits: Limits) -> str:
    """Wrong script first; where the scripts are shared, the identifier's word.
    Glossary targets and names are let be.
    """
    if _bare(case.source) == _bare(case.target) and _stays(case.source):
        return ""
    text = _ADDRESS.sub(" ", placeholders.plain(case.target))
    for _, target in case.terms:
        text = text.replace(target, " ")
    size = languages.letters(text)
    source = case.source_language
    wanted = case.target_language
    if size < 2 or source.code == wanted.code:
        return ""
    quoted = 1 - languages.share_in(placeholders.plain(case.source), source.scripts)
    left = 1 - languages.share_in(text, [*wanted.scripts, "Latin"])
    if left > limits.foreign + quoted and left * size >= 2:
        return f"{left:.0%} of its letters are not {wanted.name}"
    if "Latin" not in wanted.scripts and languages.share_in(text, wanted.scripts) < 0.5 and size >= limits.copy:
        return f"most of its letters are not {wanted.name}"
    if size < 20:
        return ""
    two = languages.likelihood(text, (source.code, wanted.code))
    if set(source.scripts) & set(wanted.scripts) and two.get(source.code, 0.0) > limits.sure and len(two) == 2:
        return f"it reads as {source.name}"
    ranked = languages.likelihood(text) if size >= 80 else {}
    best = next(iter(ranked), wanted.code)
    if best != wanted.code and ranked[best] > limits.sure and ranked.get(wanted.code, 1.0) < 0.001:
        return f"it reads as '{best}', not {wanted.name}"
    return ""


def _length(case: Case, limits: Limits) -> str:
    """Short texts may vary more: the allowance grows by a dozen letters on either side."""
    source = weight(placeholders.plain(case.source))
    target = weight(placeholders.plain(case.target))
    if target > limits.ratio * source + 12:
        return f"{target / max(source, 1):.1f} times as long as its source"
    if source > limits.ratio * target + 12:
        return f"{source / max(target, 1):.1f} times as short as its source"
    return ""


def _placeholders(case: Case, limits: Limits) -> str:
    found = placeholders.check(case.source, case.target)
    return ", ".join(found[:3])


def _numbers(case: Case, limits: Limits) -> str:
    lost = numerals.required(placeholders.plain(case.source)) - numerals.values(placeholders.plain(case.target))
    return f"{' '.join(sorted(lost))} not in it" if lost else ""


def _terms(case: Case, limits: Limits) -> str:
    target = placeholders.plain(case.target).casefold()
    lost = [wanted for _, wanted in case.terms if wanted.casefold() not in target]
    return f"'{_short(lost[0])}' is missing" if lost else ""


def _bare(text: str) -> str:
    """Letters and digits alone, in one case."""
    return "".join(regex.findall(r"[\p{L}\p{N}]", placeholders.plain(text).casefold()))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:39] + "…"
