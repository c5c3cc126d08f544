"""What is right as it is in any language: names, addresses, codes, sounds.

Owns: which texts may be their own translation.
Does not know: whether a translation is one (`guards`).
Units: words.
"""

from __future__ import annotations

import re

import regex

from ..documents import placeholders

# what is the same in every language: addresses, mail, paths, numbers of books and articles
ADDRESS = re.compile(
    r"(?:https?|ftp|file)://\S{1,2000}|\bwww\.\S{1,500}|\b(?:mailto|tel):\S{1,300}|(?<![\w.])@[a-z0-9_]{2,30}\b"
    r"|(?<![\w/.])(?:~|\.\.?)?/(?:[a-z0-9_.-]{1,60}/){1,20}[a-z0-9_.-]{0,60}|\b[a-z]:\\[^\s<>|?*]{1,300}|[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+"
    r"|\b(?:ISBN|ISSN|DOI|EAN|ISMN|PMID|arXiv)(?:-1[03])?\s?:?\s?[\d/.–-][\dXx/.\w–-]{2,60}(?:[ –-][\dX]{1,7})*"
    r"|(?<![a-z0-9_-])[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,8}"
    r"\.(?:com|org|net|edu|gov|info|io|de|fr|es|it|ru|cn|jp|uk|eu|example)(?:/\S{0,500})?(?![a-z0-9])",
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


def stays(text: str) -> bool:
    """Whether a text is right as it is in any language: names, addresses, codes, sounds.

    A name is known by its capitals alone: at most five words, none of which makes up titles instead.
    """
    words = _WORD.findall(ADDRESS.sub(" ", placeholders.plain(text)))
    if all(_SOUND.fullmatch(word) for word in words):
        return True
    names = [word for word in words if word.casefold() not in _PARTICLES]
    if not 1 <= len(names) <= 5 or any(map(is_common, words)):
        return False
    return all(word[0].isupper() and (not word.isupper() or len(word) <= 5) for word in names)


def is_common(word: str) -> bool:
    """Whether a word is one of those that no name is made of, however it is written."""
    return word.casefold() in _NO_NAME
