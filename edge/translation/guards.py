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
from . import copies, echoes, folding, inlanguage, languages, leftovers, numerals, quotes, spelling
from .echoes import SENTENCES, bare, weight
from .languages import Language

_LOOP = re.compile(r"(.{1,80}?)\1{2,}", re.DOTALL)
_BROKEN = regex.compile(r"[\p{Cc}\p{Cn}\p{Co}\p{Cs}\uFFFD]")
_WORD = regex.compile(r"[\p{L}\p{M}]+(?:['’.-][\p{L}\p{M}]+)*")
_TALK = regex.compile(
    r"^\s*(?:(?:sure|certainly|of course|okay|ok)\b.{0,40}\btranslat|here(?:'s| is| are)\b.{0,40}\btranslat"
    r"|(?:the )?(?:english |german |french )?translat(?:ion|ed text)\s*(?:of .{0,40})?:"
    r"|(?:english|german|french|spanish)\s*:"
    r"|以下是.{0,20}(?:翻译|译文)|(?:翻译|译文)\s*[:：]|hier ist die übersetzung|übersetzung\s*:|voici la traduction)"
    r"|\((?:translator['’]s )?note\s*:|\bas an ai\b|\bi (?:cannot|can't|am unable to) (?:translate|assist)",
    regex.IGNORECASE,
)
_HAN = regex.compile(r"\p{Han}")
_SMALL_WORD = regex.compile(r"(?<![\p{Latin}\p{M}\d_.@/'’-])\p{Ll}{4,}(?!\.?[\p{Latin}\p{M}\d_@/-])")
_SMALL_WORDS = regex.compile(r"(?<![\p{Latin}\p{M}\d_.@/'’-])\p{Ll}{2,}(?: \p{Ll}{2,})+(?!\.?[\p{Latin}\p{M}\d_@/-])")
_QUOTED = regex.compile(r"[“\"«„「『《][^“”\"«»„「」『』《》]{1,200}[”\"»“」』》]|`[^`]{1,200}`")
_ENDED = regex.compile(r"[.!?。！？…؟۔।։።။។][\"”’»)）」』】\]]*\s*$")
LEFT_WORDS = 5  # small words in a row that no two languages have in common
_BRACKETED = regex.compile(r"[(（\[［【]")
_OF_MACHINES = regex.compile(
    r"(?<![\p{Latin}\p{Cyrillic}])(?:AI|KI|IA|ИИ)(?![\p{Latin}\p{Cyrillic}])|人工[智知][能慧]|인공|искусственн|künstlich",
    regex.IGNORECASE,
)
# a text with these problems is better than none
SOFT = ("numbers", "terms", "names", "quotes", "end", "words", "echo", "variant")


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
        told: letters from which it is asked about all languages.
        off: kinds of problems that are not looked for.
    """

    loop: int = 24
    ratio: float = 3.5
    copy: int = 12
    foreign: float = 0.1
    sure: float = 0.95
    told: int = 30
    off: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Case:
    """What is judged: one unit's source and translation, both with placeholders.

    Attributes:
        terms: (source, target) pairs of the glossary whose source occurs here.
        names: the same of names, with the spelling that they had so far.
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
    names: Sequence[tuple[str, str]] = ()


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
        "echo": _echo,
        "talk": _talk,
        "language": _language,
        "script": _script,
        "words": _words,
        "variant": _variant,
        "length": _length,
        "end": _end,
        "placeholders": _placeholders,
        "quotes": _quotes,
        "numbers": _numbers,
        "terms": _terms,
        "names": _names,
    }
    found = ((kind, check(case, limits)) for kind, check in checks.items() if kind not in limits.off)
    return [f"{kind}: {what}" for kind, what in found if what]


def needs_no_translation(text: str) -> bool:
    """Whether a unit has no words at all (numbers, ornaments, an image, an address): it is kept as it is."""
    return not languages.letters(copies.ADDRESS.sub(" ", placeholders.plain(text)))


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
    spoken = Counter(s for part in SENTENCES.findall(target) if languages.letters(s := part.strip().casefold()) > 8)
    sources = Counter(part.strip() for part in SENTENCES.findall(case.source))
    often = max(sources.values(), default=1)
    repeated = [sentence for sentence, count in spoken.items() if count > 2 and count > often]
    return f"'{_short(repeated[0])}' said {spoken[repeated[0]]} times" if repeated else ""


def _copy(case: Case, limits: Limits) -> str:
    source = bare(case.source)
    target = bare(case.target)
    if source == target and copies.stays(case.source):
        return ""
    letters = bare(copies.ADDRESS.sub(" ", placeholders.plain(case.source)))
    is_sentence = bool(_ENDED.search(placeholders.plain(case.source))) and not letters.isascii()
    if (weight(letters) if is_sentence and _HAN.search(letters) else len(letters)) < limits.copy:
        return ""
    if case.source_language.code == case.target_language.code:
        return ""
    if source == target:
        return "it is the source text"
    inside = len(source) >= 2 * limits.copy and (
        source in target or (target in source and 2 * len(target) > len(source))
    )
    return "the source text is in it" if inside else _kept_words(case, limits)


def _kept_words(case: Case, limits: Limits) -> str:
    """Half a sentence that was not translated, between two languages of one script."""
    ours, theirs = (_WORD.findall(placeholders.plain(text))[:1000] for text in (case.source, case.target))
    at = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
    words = ours[at.a : at.a + at.size]
    if sum(word.islower() for word in words) < LEFT_WORDS:
        return ""
    pair = (case.source_language.code, case.target_language.code)
    likely = languages.likelihood(" ".join(words), pair)
    if len(likely) < 2 or likely[pair[0]] < limits.sure or _is_foreign(words, case.source_language):
        return ""
    return f"'{_short(' '.join(words))}' is left in it"


def _is_foreign(words: Sequence[str], language: Language) -> bool:
    """Whether words are of a third language, which a source quotes and a translation keeps."""
    ranked = languages.likelihood(" ".join(words))
    return next(iter(ranked), language.code) != language.code


def _again(case: Case, limits: Limits) -> str:
    """The translation of another line, word for word: short answers may be the same, longer ones may not."""
    other = echoes.whole(case.source, case.target, case.earlier)
    return f"it is the translation of '{_short(placeholders.plain(other))}'" if other else ""


def _echo(case: Case, limits: Limits) -> str:
    """Sentences of other lines' translations, word for word."""
    known = [target for _, target in (*case.terms, *case.names)]
    found = echoes.sentences(case.source, case.target, case.earlier, known)
    if not found:
        return ""
    sentence, other = found
    return f"'{_short(sentence)}' is of the translation of '{_short(placeholders.plain(other))}'"


def _language(case: Case, limits: Limits) -> str:
    """Another language, or another script; glossary targets and names are left aside."""
    if bare(case.source) == bare(case.target) and copies.stays(case.source):
        return ""
    text = copies.ADDRESS.sub(" ", placeholders.plain(case.target))
    for _, target in case.terms:
        text = text.replace(target, " ")
    return inlanguage.wrong(
        text, placeholders.plain(case.source), case.source_language, case.target_language, limits.foreign, limits.sure,
        limits.told,
    )  # fmt: skip


def _talk(case: Case, limits: Limits) -> str:
    """What chat models say around a translation."""
    match = _TALK.search(placeholders.plain(case.target))
    if not match or _TALK.search(case.source):
        return ""
    said = match[0].lower()
    of_source = {"note": _BRACKETED, "as an ai": _OF_MACHINES}  # the author's own words
    if any(word in said and pattern.search(case.source) for word, pattern in of_source.items()):
        return ""
    if regex.fullmatch(r"\s*\p{L}+\s*:", match[0]) and regex.search("[:：]", case.source):  # 英语：很难
        return ""
    return f"'{_short(match[0])}' is not of the text"


def _script(case: Case, limits: Limits) -> str:
    """Characters of the source's script that the target language is not written in, Latin ones aside."""
    left = left_in(case)
    return f"'{_short(left[0])}' is left in it" if left else ""


def left_in(case: Case) -> list[str]:
    """Runs of the source's script in a translation into a language that is not written in it. A character that is
    spoken of stays: the character 人.
    """
    left_behind = languages.left_behind(case.source_language, case.target_language)
    text = leftovers.without_glosses(_bare_text(case), languages.written_in(case.target_language))
    return [
        run
        for run in dict.fromkeys(leftovers.runs(left_behind).findall(text))
        if not leftovers.is_spoken_of(run, case.source)
    ]


def may_stay(case: Case) -> bool:
    """Whether a translation has a place for characters of the source's script: in an address, a term, where one is
    spoken of.
    """
    pattern = leftovers.runs(languages.left_behind(case.source_language, case.target_language))
    addresses = (found[0] for found in copies.ADDRESS.finditer(placeholders.plain(case.source)))
    terms = (target for _, target in (*case.terms, *case.names))
    spoken_of = (leftovers.is_spoken_of(run, case.source) for run in pattern.findall(case.target))
    return any(pattern.search(text) for text in (*addresses, *terms)) or any(spoken_of)


def _words(case: Case, limits: Limits) -> str:
    """Words in small Latin letters that the source has too, where the target language is written otherwise."""
    if "Latin" not in case.source_language.scripts or "Latin" in case.target_language.scripts:
        return ""
    text = leftovers.without_glosses(_bare_text(case), case.target_language.scripts)
    source = placeholders.plain(case.source)
    runs = _SMALL_WORDS.findall(text)
    there = {*_SMALL_WORD.findall(source), *(run for run in runs if run in source)}
    ours, theirs = (_QUOTED.findall(of) for of in (source, text))
    kept = (
        word
        for word in dict.fromkeys((*_SMALL_WORD.findall(text), *runs))
        if word in there and not all(any(word in quoted for quoted in side) for side in (ours, theirs))
    )
    left = next((word for word in kept if not leftovers.is_spoken_of(word, case.source)), "")
    return f"'{_short(left)}' is left in it" if left else ""


def _bare_text(case: Case) -> str:
    """The translation without marks, addresses and the glossary's own words."""
    text = copies.ADDRESS.sub(" ", placeholders.plain(case.target))
    for _, target in (*case.terms, *case.names):
        text = text.replace(target, " ")
    return text


def _variant(case: Case, limits: Limits) -> str:
    """Simplified characters where Traditional ones are wanted, and the other way round."""
    return inlanguage.variant(placeholders.plain(case.target), case.target_language)


def _length(case: Case, limits: Limits) -> str:
    """Short texts may vary more: the allowance grows by a dozen letters on either side."""
    source = weight(placeholders.plain(case.source))
    target = weight(placeholders.plain(case.target))
    if target > limits.ratio * source + 12:
        return f"{target / max(source, 1):.1f} times as long as its source"
    if source > limits.ratio * target + 12:
        return f"{source / max(target, 1):.1f} times as short as its source"
    return ""


def _end(case: Case, limits: Limits) -> str:
    """A source that ends as sentences do, and a translation that stops in the middle of one."""
    source = placeholders.plain(case.source)
    asks = case.source_language.code == "el" and source.rstrip().endswith(";")
    if case.cut or not (_ENDED.search(source) or asks):
        return ""
    target = placeholders.plain(case.target).rstrip()
    last = target[-1:]
    words = len(_WORD.findall(target))
    wanted = case.target_language
    stops = wanted.spaced and not {"Thai", "Lao"} & set(wanted.scripts)  # full stops end its sentences
    mid = ",，、;；،؛" if wanted.code != "el" else ",·"  # a Greek question ends in ;
    open_end = (last and last in mid) or (last.isalpha() and stops and words >= 6 and ":" not in target)
    return f"its last sentence does not end ('{_short(target[-20:])}')" if open_end else ""


def _placeholders(case: Case, limits: Limits) -> str:
    found = placeholders.check(case.source, case.target)
    return ", ".join(found[:3])


def _quotes(case: Case, limits: Limits) -> str:
    return quotes.wrong(case.source, case.target)


def _numbers(case: Case, limits: Limits) -> str:
    source = placeholders.plain(case.source)
    target = placeholders.plain(case.target)
    found = numerals.differences(source, target, case.source_language, case.target_language)
    return ", ".join(_short(difference) for difference in found[:3])


def _terms(case: Case, limits: Limits) -> str:
    lost = [wanted for _, wanted in case.terms if not folding.stands(wanted, case.target)]
    return f"'{_short(lost[0])}' is missing" if lost else ""


def _names(case: Case, limits: Limits) -> str:
    target = placeholders.plain(case.target)
    known = [name for _, name in (*case.names, *case.terms)]
    for _, name in case.names:
        if other := spelling.misspelt(target, name, case.target_language, known):
            return f"'{_short(other)}' for '{_short(name)}'"
    return ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 40 else text[:39] + "…"
