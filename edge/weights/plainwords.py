"""A text -> token ids in plain words: slow, short, and independent of any tokenizer library.

Owns: the two algorithms as they are defined, the texts that a tokenizer is tried on, what its ids on them are.
Does not know: files, the tokenizer that is used (`words.py`).
Units: token ids.

Kind `llama` is SentencePiece's BPE (Kudo and Richardson, arXiv 1808.06226): characters, of which the neighbours
with the highest score merge, the left ones first, until none do; what is then no token becomes its bytes. Kind
`gpt2` is byte-level BPE (Radford et al. 2019, section 2.2): pieces that a pattern cuts, bytes, and merges in the
order of their rank.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator

import regex

from .vocabulary import SPACE, Vocabulary

# Own sentences, in twelve scripts and more; then what tokenizers are known to differ in: spaces, lines, digits, case,
# words that look like bytes or like the sign for a space, what is in no vocabulary.
TEXTS = (
    "The lighthouse keeper's daughter couldn't sleep, so she counted 1,024 waves and 37 gulls.",
    "Größe, façade, naïveté, Łódź, İstanbul, Đà Nẵng: all of them are written with marks.",
    "Το παλιό πλοίο έφυγε το πρωί από το λιμάνι της Χίου με δώδεκα ναύτες.",
    "Старый капитан долго смотрел на замёрзшую реку и ничего не говорил.",
    "كتبت المعلمة رسالة طويلة إلى أختها في القاهرة قبل غروب الشمس.",
    "הזקן ישב ליד הנהר וסיפר לילדים על העיר שנעלמה מתחת לחול.",
    "नदी के किनारे एक छोटा सा गाँव था, जहाँ हर सुबह घंटी बजती थी।",
    "বৃষ্টির পরে ছোট ছেলেটি নৌকা বানিয়ে পুকুরে ভাসিয়ে দিল।",
    "மழை நின்றதும் குழந்தைகள் வயலில் ஓடி விளையாடினார்கள்.",
    "คุณยายปลูกต้นมะม่วงไว้หลังบ้านตั้งแต่ปีที่ฝนตกหนัก",
    "老船长站在甲板上，看着远处的灯塔慢慢消失在雾里。",
    "雨が止んだあと、少女は小さな橋を渡って図書館へ向かった。",
    "할머니는 겨울마다 창가에 앉아 오래된 편지를 읽으셨다.",
    "მოხუცი მეზღვაური ყოველ საღამოს ზღვას უყურებდა. Ծերունին լուռ էր։",
    "two  spaces,   three,    four\tone tab\t\ttwo\n one line\n\n two\n\n\n  three \r\n and a carriage return ",
    " a space before and two after  ",
    "\n",
    "   ",
    "12345678 3.14159 1/2 2nd x86_64 0xFF ١٢٣ १२३ Ⅳ ½",
    "it's IT'S we'll WE'LL you're I'd 'twas rock'n'roll O'Neil",
    "camelCaseWord HTTPServer snake_case kebab-case def f(x): return {'a': [1, -2]} != None;",
    "!!! ??? ... ---- ==== **bold** <b>html</b> </b> #tag @name $5 %d & ~ ^ | \\ / https://a.example/b?c=d&e=f",
    "a▁b ▁▁ <0x0A> <0xE2> [UNK] ĠĊ",
    "😀👩‍👩‍👧 🇫🇷 ☃ e\u0301 \u00a0 \u200b \u2028 \ue000 \U0001f9ff \U00013000 ꙮ ᚠᛇᚻ ሰላም ཀ",
    f"spaces:{' ' * 37}tabs:{chr(9) * 35}lines:{chr(10) * 34}.",
    "hahahaha banananana aaaaaaaaaaa abababab ------ ======= ......... 哈哈哈哈哈",
    "",
)  # fmt: skip


def encoder(vocabulary: Vocabulary) -> Callable[[str], list[int]]:
    """The tokenizer: from a text to its token ids, with BOS and EOS at its ends where the vocabulary says so.

    Tokens that are set apart, control tokens among them, are found where they are written out in the text.
    """
    index = {token: i for i, token in enumerate(vocabulary.tokens)}
    apart = {vocabulary.tokens[i]: i for i in vocabulary.set_apart()}
    found = re.compile("|".join(map(re.escape, sorted(apart, key=len, reverse=True)))) if apart else None
    if vocabulary.kind == "llama":
        pieces = functools.partial(_by_score, vocabulary, index)
    else:
        ranks = {pair: rank for rank, pair in enumerate(vocabulary.merges)}
        pieces = functools.partial(_by_rank, vocabulary, index, ranks)

    def encode(text: str) -> list[int]:
        ids = [vocabulary.bos] if vocabulary.add_bos and vocabulary.bos is not None else []
        for part in _parts(found, text, vocabulary.trims):
            ids += [apart[part]] if part in apart else pieces(part)
        return [*ids, vocabulary.eos] if vocabulary.add_eos and vocabulary.eos is not None else ids

    return encode


def expected(vocabulary: Vocabulary) -> list[list[int]]:
    """The ids of each of `TEXTS`."""
    return list(map(encoder(vocabulary), TEXTS))


def _parts(apart: re.Pattern[str] | None, text: str, trims: bool) -> Iterator[str]:
    """The tokens that are set apart, the longest of those that begin at a place, and what is between them."""
    at = 0
    for found in [] if apart is None else apart.finditer(text):
        before = text[at : found.start()]
        before = before.lstrip() if at and trims else before
        if before:
            yield before
        yield found.group()
        at = found.end()
    rest = text[at:].lstrip() if at and trims else text[at:]
    if rest:
        yield rest


def _by_score(vocabulary: Vocabulary, index: dict[str, int], text: str) -> list[int]:
    parts = list((" " * vocabulary.prefix + text).replace(" ", SPACE))
    while True:
        best = -float("inf")
        where = -1
        for at in range(len(parts) - 1):
            token = index.get(parts[at] + parts[at + 1])
            if token is not None and vocabulary.mergeable(token) and vocabulary.scores[token] > best:
                best = vocabulary.scores[token]
                where = at
        if where < 0:
            break
        parts[where : where + 2] = [parts[where] + parts[where + 1]]
    ids: list[int] = []
    for part in parts:
        if part in index and vocabulary.mergeable(index[part]):
            ids.append(index[part])
            continue
        whole = [index.get(f"<0x{byte:02X}>") for byte in part.encode("utf-8")]
        if None not in whole:
            ids += [token for token in whole if token is not None]
        elif vocabulary.unk is not None and ids[-1:] != [vocabulary.unk]:  # in a row they are one
            ids.append(vocabulary.unk)
    return ids


def _by_rank(vocabulary: Vocabulary, index: dict[str, int], ranks: dict[tuple[str, str], int], text: str) -> list[int]:
    pieces = [text]
    for pattern in vocabulary.patterns:
        pieces = [part for piece in pieces for part in _cut(pattern, piece)]
    ids: list[int] = []
    for piece in pieces:
        parts = [alphabet()[byte] for byte in piece.encode("utf-8")]
        if vocabulary.whole_words and "".join(parts) in index:
            parts = ["".join(parts)]
        while True:
            pairs = [ranks.get(pair, len(ranks)) for pair in zip(parts, parts[1:], strict=False)]
            best = min(pairs, default=len(ranks))
            if best == len(ranks):
                break
            where = pairs.index(best)
            parts[where : where + 2] = [parts[where] + parts[where + 1]]
        ids += [index[part] for part in parts if part in index]
    return ids


def _cut(pattern: str, text: str) -> Iterator[str]:
    """What the pattern matches, and what is between."""
    at = 0
    for found in regex.finditer(pattern, text):
        if found.start() > at:
            yield text[at : found.start()]
        if found.end() > found.start():
            yield found.group()
        at = found.end()
    if at < len(text):
        yield text[at:]


@functools.cache
def alphabet() -> list[str]:
    """The character that stands for each byte: itself where it can be seen, else the next one from 256 on."""
    seen = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return [chr(byte) if byte in seen else chr(256 + hidden.index(byte)) for byte in range(256)]
