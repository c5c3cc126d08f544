"""Markdown (CommonMark with tables, footnotes, strikethrough and front matter): only words change in the source.

Owns: finding each paragraph's place in the source, writing a translation there so that it reads as the same markup.
Does not know: inline syntax (`markdown_inline.py`).
Units: character offsets into the source.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from markdown_it.token import Token

from ..errors import InputError
from . import inline as tree
from .document import Document, Edition, Kind, Numbering
from .inline import Inline
from .markdown_inline import Parser

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FRONT_LANGUAGE = re.compile(r"^(lang(?:uage)?:[ \t]*)([^\s#]+)", re.MULTILINE)
_DEEPEST = 100  # blocks in blocks


@dataclass(frozen=True)
class _Place:
    """Where one unit stands: source[start:end], and what begins its further lines."""

    start: int
    end: int
    prefix: str
    inline: Inline
    kind: Kind
    level: int = 0
    tight: bool = False


class Markdown(Document):
    """A Markdown text. Code and HTML blocks are not translated."""

    format = "md"

    def __init__(self, path: Path, text: str, mark: bytes = b"") -> None:
        """Finds the units.

        Raises:
            InputError: there is no text in it.
        """
        self._mark = mark
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        try:
            self._parser = Parser(text)
            self._places = _places(self._parser, text)
        except RecursionError as error:
            raise InputError(f"{path} is nested too deeply", "a sound document", "repair it in an editor") from error
        self._front = self._parser.front_matter_lines
        numbering = Numbering()
        for place in self._places:
            numbering.add(place.inline, place.kind, opens_chapter=place.kind == "heading" and place.level <= 2)
        if not numbering.units:
            raise InputError(f"{path} holds no text", "a document with text in it", "name another file")
        found = _FRONT_LANGUAGE.search(self._front_matter())
        super().__init__(path, numbering.units, found[2].strip("\"'") if found else None)

    def _front_matter(self) -> str:
        lines = _LINE.findall(self._text)
        return "".join(lines[: self._front])

    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        front = self._front_matter()
        at = len(front)
        if edition.language is not None and not edition.bilingual:
            language = edition.language
            front = _FRONT_LANGUAGE.sub(lambda match: match[1] + language, front, count=1)
        parts = [front]
        for place, unit in zip(self._places, self.units, strict=True):
            translated = edition.get(unit)
            if translated is None:
                continue
            source = self._text[place.start : place.end]
            text = self._written(place, translated, edition.bilingual)
            if edition.bilingual:
                text = source + self._between(place) + text
            parts += [self._text[at : place.start], text]
            at = place.end
        parts.append(self._text[at:])
        stream.write(self._mark + "".join(parts).encode("utf-8"))

    def _written(self, place: _Place, translated: str, bilingual: bool) -> str:
        keep = _is_repeated if bilingual else None
        nodes = place.inline.fill(translated, keep=keep)
        text = self._parser.write(nodes, cell=place.kind == "cell", heading=place.kind == "heading")
        return text.replace("\n", self._newline + place.prefix)

    def _between(self, place: _Place) -> str:
        """What stands between a source text and its translation."""
        line = self._newline + place.prefix
        if place.kind == "cell":
            return "<br>"
        if place.kind == "heading":
            return " / "
        if place.tight or place.kind == "footnote":
            return "\\" + line
        return self._newline + place.prefix.rstrip() + line


def _is_repeated(leaf: tree.Leaf) -> bool:
    return "image" not in getattr(leaf.source, "types", ())


def _places(parser: Parser, text: str) -> list[_Place]:
    lines = [match[0] for match in _LINE.finditer(text) if match[0]]
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    places: list[_Place] = []
    opened: list[Token] = []
    row = -1
    cursor = 0
    for token in parser.blocks:
        if token.nesting == 1:
            opened.append(token)
            if len(opened) > _DEEPEST:
                raise RecursionError
        elif token.nesting == -1:
            opened.pop()
        elif token.type == "inline" and token.map and opened:
            first, last = token.map[0], min(token.map[1], len(lines))
            if opened[-1].type in ("td_open", "th_open"):
                cursor = cursor if row == first else 0
                row = first
                span = _cell_span(lines[first], token.content, cursor)
                cursor = span[1] if span else cursor
            else:
                span = _span(lines[first:last], token.content, opened[-1].type == "heading_open")
            inline = tree.encode(parser.nodes(token.content)) if span else None
            if span is None or inline is None:
                continue
            start, end = starts[first] + span[0], starts[first] + span[1]
            prefix = re.sub(r"[^>\s]", " ", lines[first][: span[0]])
            kind, level = _kind(opened)
            places.append(_Place(start, end, prefix, inline, kind, level, opened[-1].hidden))
    return sorted(places, key=lambda place: place.start)


def _span(lines: list[str], content: str, heading: bool) -> tuple[int, int] | None:
    """Where a paragraph's or heading's content stands in its source lines, from their beginning."""
    wanted = content.split("\n")
    bare = [line.rstrip("\r\n") for line in lines]
    if heading and len(wanted) == 1:
        hashes = re.search(r"#{1,6}(?=[ \t])", bare[0])
        at = bare[0].find(content, hashes.end()) if hashes else -1
        if at >= 0:
            return at, at + len(content)
    if not content or len(wanted) > len(bare):
        return None
    for line, part in zip(bare, wanted, strict=False):
        if not line.rstrip().endswith(part.strip()):
            return None
    begin = len(bare[0].rstrip()) - len(wanted[0].rstrip())
    before = sum(len(line) for line in lines[: len(wanted) - 1])
    return begin, before + len(bare[len(wanted) - 1].rstrip())


def _cell_span(line: str, content: str, cursor: int) -> tuple[int, int] | None:
    raw = content.replace("|", "\\|")
    at = line.find(raw, cursor) if content else -1
    return (at, at + len(raw)) if at >= 0 else None


def _kind(opened: list[Token]) -> tuple[Kind, int]:
    types = [token.type for token in opened]
    if types[-1] == "heading_open":
        return "heading", int(opened[-1].tag[1:])
    if types[-1] in ("td_open", "th_open"):
        return "cell", 0
    if "footnote_reference_open" in types:
        return "footnote", 0
    return ("item" if "list_item_open" in types else "paragraph"), 0
