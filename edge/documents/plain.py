"""Plain text: a line is a paragraph, unless the text is wrapped at a fixed width.

Owns: where paragraphs begin and end in plain text, what looks like a heading.
Does not know: markup.
Units: characters; display width for wrapping (a Chinese character is two wide).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from . import inline as tree
from .document import Document, Edition, Numbering
from .inline import Inline, Leaf, Node, Text

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
# numbers as headings write them after the word, in the languages of these words
_WORDS = (
    "one two three four five six seven eight nine ten eleven twelve (?:thir|four|fif|six|seven|eigh|nine)teen twenty "
    "first second third (?:four|fif|six|seven|eigh|nin|ten|eleven|twelf)th eins zwei drei vier fünf sechs sieben acht "
    "neun zehn elf zwölf un deux trois quatre cinq sept huit neuf dix onze douze premi[eè]re? premier deuxième seconde "
    "troisième quatrième cinquième uno due tre quattro cinque sei sette otto nove dieci dos tres cuatro cinco seis "
    "siete ocho nueve diez um dois três quatro sete oito dez primer[oa]? prim[oa] primeir[oa] segund[oa] second[oa] "
    "tercer[oa] terceir[oa] terz[oa] [cq]uart[oa] quint[oa] перв(?:ая|ый) втор(?:ая|ой) третья третий "
    "четв[её]рт(?:ая|ый) пят(?:ая|ый) шест(?:ая|ой) седьм(?:ая|ой) восьм(?:ая|ой) девят(?:ая|ый) десят(?:ая|ый)"
)
_NUMBER = "(?:" + "|".join(_WORDS.split()) + ")"
_ROMAN = "(?=[CXLVI])C{0,3}(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_HEADING = re.compile(
    r"(?:chapter|part|book|chapitre|kapitel|teil|cap[ií]tulo|parte|capitolo|глава|часть|(?P<alone>prologue|epilogue))\b"
    rf"(?P<number>[\s.:#№–—-]{{1,3}}(?:the\s)?(?:\d{{1,4}}|(?-i:{_ROMAN})|{_ROMAN}(?=\s?[.:]|\Z)|{_NUMBER}(?:[\s-]{_NUMBER})?)"
    r"(?![\w'’]))?(?P<rest>.{0,60})",
    re.IGNORECASE,
)
_CHINESE_HEADING = re.compile(r"第[0-9〇零一二三四五六七八九十百千两０-９]{1,9}[章回节節卷部集話话].{0,40}")
_TITLE = 40  # characters of a heading without a number
_NARROWEST = 40
_WIDEST = 100  # widths at which texts are wrapped
_LONGER = 2  # lines that may be longer than the width, and one in twenty besides
_SAME = 0.1  # the greatest width is taken whose share of full lines lies less than this below the best
_SURE = 0.9  # the share of full lines in Chinese or Japanese, where paragraphs may happen to be of one length
_ENDS = frozenset('.!?:;…。！？：；"”’»」』)')


class Plain(Document):
    """A UTF-8 text. Lines are units; where the text is wrapped, its paragraphs are."""

    format = "txt"

    def __init__(self, path: Path, text: str, mark: bytes = b"") -> None:
        """Cuts the text.

        Raises:
            InputError: there is no letter in it.
        """
        self._mark = mark
        lines = [match[0] for match in _LINE.finditer(text) if match[0]]
        self._newline = next((ending for ending in ("\r\n", "\n", "\r") if ending in text), "\n")
        self._width = _wrap_width(lines)
        self._pieces: list[str | tuple[str, Inline]] = []  # text as it is, or a unit's source and content
        numbering = Numbering()
        for group in _grouped(lines, self._width):
            body = "".join(group)
            source = body.rstrip("\r\n")
            inline = tree.encode([Text(_folded(source) if len(group) > 1 else source)])
            if inline is None:
                self._pieces.append(body)
                continue
            heading = _is_heading(inline.text)
            numbering.add(inline, "heading" if heading else "paragraph", opens_chapter=heading)
            self._pieces += [(source, inline), body[len(source) :]]
        if not numbering.units:
            raise InputError(f"{path} holds no letter", "a text", "name a file with text in it")
        super().__init__(path, numbering.units)

    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        stream.write(self._mark)
        units = iter(self.units)
        for index, piece in enumerate(self._pieces):
            text = piece if isinstance(piece, str) else piece[0]
            translated = None if isinstance(piece, str) else edition.get(next(units))
            if translated is not None and not isinstance(piece, str):
                source = text
                text = _string(piece[1].fill(translated))
                if "\n" in source or "\r" in source:
                    text = wrap(text, self._width, self._newline)
                if edition.bilingual:
                    text = source + self._newline * (2 if self._is_spaced(index) else 1) + text
            stream.write(text.encode("utf-8"))

    def _is_spaced(self, index: int) -> bool:
        """Whether an empty line follows a unit, so that one belongs before its translation too."""
        following = self._pieces[index + 2] if index + 2 < len(self._pieces) else ""
        return isinstance(following, str) and not following.strip()


def _is_heading(text: str) -> bool:
    """Whether a paragraph opens a chapter: it says which one, or is a short line that begins and ends as titles do."""
    found = _HEADING.fullmatch(text)
    if found is None:
        return _CHINESE_HEADING.fullmatch(text) is not None
    after = found["rest"].lstrip()
    goes_on = after[:1].islower() or after[:1] == ","  # as a sentence does: Part two of the plan was simple.
    ended = text.endswith((*_ENDS, ","))
    if found["number"] or (found["alone"] and not goes_on):
        return not (goes_on and ended)
    return not ended and text[0].isupper() and len(text) <= _TITLE and found["rest"][:1] in ("", " ", "\t", ".", ":")


def _folded(source: str) -> str:
    """A paragraph of several lines on one; its first line keeps its indent."""
    bare = source.lstrip()
    return source[: len(source) - len(bare)] + tree.fold(bare)


def wrap(text: str, width: int, newline: str) -> str:
    """A paragraph on lines of at most `width`, where it has spaces to break at."""
    lines: list[str] = []
    used = 0
    for word in text.split(" "):
        size = tree.columns(word)
        if lines and used + 1 + size <= width:
            lines[-1] += f" {word}"
            used += 1 + size
        else:
            lines.append(word)
            used = size
    return newline.join(lines)


def _wrap_width(lines: list[str]) -> int:
    """The width that a text is wrapped at; 0 where each line is its own paragraph.

    A text is wrapped when most line ends inside its paragraphs stand where the next word would not have fitted. The
    width is that of its paragraphs: a line that stands alone says nothing about it, and a few lines may be longer
    (an address, a word that cannot be cut).
    """
    inner = [(a, b) for a, b in zip(lines, lines[1:], strict=False) if a.strip() and b.strip()]
    if len(inner) < 3:
        return 0
    room = [
        (tree.columns(a.rstrip()), _first_size(a, b)) for a, b in inner
    ]  # of a line, and of the word that follows it
    sizes = sorted((size for size, _ in room), reverse=True)
    widths = [size for size in dict.fromkeys(sizes[: 1 + _LONGER + len(sizes) // 20]) if _NARROWEST <= size <= _WIDEST]
    shares = [_share_full(room, width) for width in widths]
    best = max(shares, default=0.0)
    if best <= (_SURE if _is_wide_text(inner) else 0.5):
        return 0
    return next(width for width, share in zip(widths, shares, strict=True) if share > best - _SAME)


def _share_full(room: list[tuple[int, int]], width: int) -> float:
    return sum(word > 0 and size + 1 + word > width for size, word in room) / len(room)


def _is_wide_text(inner: list[tuple[str, str]]) -> bool:
    return 2 * sum(tree.is_wide(line.strip()[0]) for line, _ in inner) > len(inner)


def _first_size(line: str, following: str) -> int:
    """The size of the word that `following` begins with; 0 where it begins a paragraph.

    Chinese and Japanese lines end at any character, but for a mark that may not begin the next one.
    """
    word = following.split(maxsplit=1)[0] if following.strip() else ""
    if following[:1].isspace() or not line.strip() or not word:
        return 0
    return 3 if tree.is_wide(word[0]) else tree.columns(word)


def _continues(line: str, following: str, width: int) -> bool:
    word = _first_size(line, following)
    size = tree.columns(line.rstrip())
    if not word:
        return False
    # a line that was cut a little early, in mid-sentence
    flows = following[0].islower() and line.rstrip()[-1] not in _ENDS and 3 * size > 2 * width
    return size + 1 + word > width or flows


def _grouped(lines: list[str], width: int) -> list[list[str]]:
    groups: list[list[str]] = []
    for line in lines:
        if width and groups and _continues(groups[-1][-1], line, width):
            groups[-1].append(line)
        else:
            groups.append([line])
    return groups


def _string(nodes: list[Node]) -> str:
    parts = [node.value if isinstance(node, Text) else node.source for node in nodes if isinstance(node, (Text, Leaf))]
    return "".join(str(part) for part in parts)
