"""Whether a translation is in the language that is wanted: by its script, its letters, the identifier's word.

Owns: those three, in that order.
Does not know: glossaries, addresses, what may be copied (`guards`).
Units: letters; shares of letters; probabilities.
"""

from __future__ import annotations

import regex

from . import languages, leftovers
from .languages import Language

FEW = 12  # letters up to which the share of a script says nothing
_HAN = regex.compile(r"\p{Han}")
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_SMALL = regex.compile(r"(?<![\p{L}\p{M}])\p{Ll}+")
# words that are Chinese where a line has no kana
_CHINESE = regex.compile("[的了是我你他她们們这這那吗嗎呢吧没沒]")
# letters that one of two near languages has and the other has not
_OWN_LETTERS = {"ru": "іїєґ", "uk": "ыэъё", "be": "щъ", "bg": "ыэё", "ar": "پچژگیک"}
# the same characters in the two forms of Chinese, none of them used in the other one
_SIMPLIFIED = (
    "们这来时为说国对发会没过还进样从现开关见长门问间东车马书学写听买"
    "卖话让认识谁请读爱头气无与点实应动两边经给难亲觉声脸风飞妈爷师战"
)
_TRADITIONAL = (
    "們這來時為說國對發會沒過還進樣從現開關見長門問間東車馬書學寫聽買"
    "賣話讓認識誰請讀愛頭氣無與點實應動兩邊經給難親覺聲臉風飛媽爺師戰"
)


def wrong(text: str, original: str, source: Language, wanted: Language, foreign: float, sure: float, told: int) -> str:
    """What tells that a text is not in the language wanted; empty where nothing does.

    Args:
        original: its source.
        foreign: the share of letters that may be neither Latin nor of the language's scripts, beyond what the source
            itself has of others.
        sure: the probability from which the identifier is believed.
        told: letters from which it is asked about all languages.
    """
    size = languages.letters(text)
    if size < 2 or source.code == wanted.code:
        return ""
    found = _script(text, original, source, wanted, foreign) or _letters(text, original, wanted)
    if found or size < 20:
        return found
    two = languages.likelihood(text, (source.code, wanted.code))
    if set(source.scripts) & set(wanted.scripts) and two.get(source.code, 0.0) > sure and len(two) == 2:
        return f"it reads as {source.name}"
    if _is_english(text, original, source, wanted, sure):
        return "it reads as English"
    if size < told:
        return ""
    ranked = languages.likelihood(text)
    best = next(iter(ranked), wanted.code)
    if best == wanted.code or ranked.get(wanted.code, 1.0) >= 0.001:
        return ""
    # the nearer two languages are, the more text it takes to tell them apart
    is_told = ranked[best] > sure if languages.related(best, wanted.code) else ranked[best] > 0.8
    if not is_told or (size < 80 and languages.related(best, wanted.code)):
        return ""
    if next(iter(languages.likelihood(original))) == best:  # a line in that language stays
        return ""
    return f"it reads as '{best}', not {wanted.name}"


def variant(text: str, wanted: Language) -> str:
    """What tells that a Chinese text is not in the characters wanted, Simplified or Traditional; else empty."""
    simplified, traditional = (sum(map(text.count, chars)) for chars in (_SIMPLIFIED, _TRADITIONAL))
    if "zh-Hant" in wanted.tags and simplified > max(1, traditional):
        return "its characters are Simplified ones"
    if "zh-Hans" in wanted.tags and traditional > max(1, simplified):
        return "its characters are Traditional ones"
    return ""


def _script(text: str, original: str, source: Language, wanted: Language, foreign: float) -> str:
    """Letters of other scripts."""
    written = languages.written_in(wanted)
    text = leftovers.without_glosses(text, written)
    rest = leftovers.without_spoken_of(text, original, languages.left_behind(source, wanted))
    rest = rest if languages.letters(rest) > 1 else text
    size = languages.letters(rest)
    quoted = 1 - languages.share_in(original, source.scripts)
    left = 1 - languages.share_in(rest, [*written, "Latin"])
    if left > foreign + quoted and left * size >= 2:
        return f"{left:.0%} of its letters are not {wanted.name}"
    if "Latin" in written or languages.share_in(rest, written) >= 0.5:
        return ""
    own = leftovers.without_names(rest, original)
    there = languages.letters(own) * languages.share_in(own, written)
    if there < 1:
        return f"nothing in it is {wanted.name}" if _SMALL.search(own) and languages.letters(own) > 3 else ""
    # a Han character carries what three Latin letters do
    is_own = (3 if _HAN.search(own) else 1) * there >= languages.letters(own) - there
    return "" if is_own or size < FEW else f"most of its letters are not {wanted.name}"


def _letters(text: str, original: str, wanted: Language) -> str:
    """Letters that a near language has and the one that is wanted has not."""
    if wanted.code == "ja" and not _KANA.search(text):
        han = len(_HAN.findall(text))
        if han >= 24 or (han >= 8 and len(_CHINESE.findall(text)) >= 2):
            return "it reads as Chinese: there is no kana in it"
    own = _OWN_LETTERS.get(wanted.code, "")
    strange = [char for char in text.lower() if char in own and char not in original.lower()]
    return f"'{strange[0]}' is no letter of {wanted.name}" if len(strange) > 1 else ""


def _is_english(text: str, original: str, source: Language, wanted: Language, sure: float) -> bool:
    """Whether a translation between two other languages is in English, which models fall into."""
    if "en" in (source.code, wanted.code) or "Latin" not in wanted.scripts or len(_SMALL.findall(text)) < 4:
        return False
    two = languages.likelihood(text, ("en", wanted.code))
    quoted = languages.likelihood(original, ("en", source.code))
    return len(two) == 2 and two["en"] > sure and quoted.get("en", 0.0) <= 0.5
