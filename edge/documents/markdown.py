"""Markdown (CommonMark with tables, footnotes, definitions, line blocks, admonitions, strikethrough): only words
change in the source.

Owns: finding each paragraph's place in the source, writing a translation there so that it reads as the same markup.
Does not know: inline syntax (`markdown_inline.py`), what is kept byte for byte (`markdown_opaque.py`), front matter.
Units: character offsets into the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import BinaryIO

from markdown_it.token import Token

from ..errors import InputError
from . import inline as tree
from . import markdown_front as front_matter
from . import markdown_opaque as opaque
from . import placeholders
from .document import Document, Edition, Kind, Numbering
from .inline import Inline
from .markdown_inline import Parser, is_raw

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_FILLED = re.compile(r"\S[^\r\n]*")  # a line that is not blank
_FRONT_LANGUAGE = re.compile(r"^(lang(?:uage)?:[ \t]*)([^\s#]+)", re.MULTILINE)
_DEEPEST = 100  # blocks in blocks
_TASK = re.compile(r"\[[ xX]\](?=[ \t])[ \t]+")
_ALERT = re.compile(r"\[![\w/-]{1,40}\][+-]?[ \t]*")  # of GitHub and Obsidian, in a quotation
_ESCAPE = re.compile(r"\\[!-/:-@\[-`{-~]|&#?\w{1,32};")


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
    one_line: bool = False


MAX_LINES = 100_000  # that are not blank: three long novels, and seconds to read


class Markdown(Document):
    """A Markdown text. Code and HTML blocks are not translated."""

    format = "md"

    def __init__(self, path: Path, text: str, mark: bytes = b"") -> None:
        """Finds the units.

        Raises:
            InputError: there is no text in it, or more lines than can be read in seconds.
        """
        _check_lines(path, text)
        self._mark = mark
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"
        self._front = front_matter.toml_or_json(text)
        try:
            self._parser = Parser(re.sub(r"[^\r\n]", "", self._front) + text[len(self._front) :])
            self._places = _places(self._parser, text)
        except RecursionError as error:
            raise InputError(f"{path} is nested too deeply", "a sound document", "repair it in an editor") from error
        self._front = self._front or "".join(islice(_lines(text), self._parser.front_matter_lines))
        self._values = front_matter.values(self._front)
        tables = sum(token.info == opaque.GRID for token in self._parser.blocks)
        if tables:
            self.notes = (f"{path} holds {tables} table(s) drawn with + and |: what is in them stays as it is",)
        numbering = Numbering()
        for value in self._values:
            numbering.add(value.inline, "title")
        for place in self._places:
            numbering.add(place.inline, place.kind, opens_chapter=place.kind == "heading" and place.level <= 2)
        if not numbering.units:
            raise InputError(f"{path} holds no text", "a document with text in it", "name another file")
        found = _FRONT_LANGUAGE.search(self._front)
        super().__init__(path, numbering.units, found[2].strip("\"'") if found else None)

    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        units = self.units[len(self._values) :]
        parts = [self._written_front(edition)]
        at = len(self._front)
        for place, unit in zip(self._places, units, strict=True):
            translated = edition.get(unit)
            if translated is None:
                continue
            source = self._text[place.start : place.end]
            text = self._written(place, translated, edition.bilingual)
            if edition.bilingual:
                # a heading's attributes stay its end
                at_end = opaque.attributes_at_end(source) if place.kind == "heading" else len(source)
                text = source[:at_end] + self._between(place) + text + source[at_end:]
            parts += [self._text[at : place.start], text]
            at = place.end
        parts.append(self._text[at:])
        stream.write(self._mark + "".join(parts).encode("utf-8"))

    def _written_front(self, edition: Edition) -> str:
        parts: list[str] = []
        at = 0
        for value, unit in zip(self._values, self.units, strict=False):
            translated = edition.get(unit)
            if translated is not None:
                shown = f"{value.inline.text} / {translated}" if edition.bilingual else translated
                parts += [self._front[at : value.start], value.written(value.inline.fill(shown))]
                at = value.end
        front = "".join([*parts, self._front[at:]])
        if edition.language is None or edition.bilingual:
            return front
        language = edition.language
        return _FRONT_LANGUAGE.sub(lambda match: match[1] + language, front, count=1)

    def _written(self, place: _Place, translated: str, bilingual: bool) -> str:
        source = self._text[place.start : place.end]
        kept = tree.kept(place.inline.text, translated) if tree.has_ruby(source) else None
        if kept is not None and not bilingual:
            return kept + source
        keep = _is_repeated if bilingual and not is_raw(place.inline.frame) else None
        nodes = place.inline.fill(translated, keep=keep)
        escaped = _ESCAPE.search(self._text, place.start, place.end) is not None
        literal = "" if escaped else placeholders.plain(place.inline.text)
        is_cell = place.kind == "cell"
        is_heading = place.kind == "heading"
        text = self._parser.write(nodes, cell=is_cell, heading=is_heading, literal=literal)
        return text.replace("\n", self._newline + place.prefix)

    def _between(self, place: _Place) -> str:
        """What stands between a source text and its translation."""
        line = self._newline + place.prefix
        if place.kind == "cell":
            return "<br>"
        if place.kind == "heading" or place.one_line:
            return " / "
        if place.tight or place.kind == "footnote":
            return "\\" + line
        return self._newline + place.prefix.rstrip() + line


def _check_lines(path: Path, text: str) -> None:
    count = sum(1 for _ in _FILLED.finditer(text))
    if count > MAX_LINES:
        raise InputError(
            f"{path} holds {count} lines", f"at most {MAX_LINES} in one document", "split it into smaller files"
        )


def _is_repeated(leaf: tree.Leaf) -> bool:
    return "image" not in getattr(leaf.source, "types", ())


def _lines(text: str) -> Iterator[str]:
    return (match[0] for match in _LINE.finditer(text) if match[0])


def _places(parser: Parser, text: str) -> list[_Place]:
    lines = list(_lines(text))
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
            first = token.map[0]
            last = min(max(token.map[1], token.map[0] + 1), len(lines))
            if opened[-1].type in ("td_open", "th_open"):
                cursor = cursor if row == first else 0
                row = first
                span = _cell_span(lines[first], token.content, cursor)
                cursor = span[1] if span else cursor
            elif opened[-1].type == "admonition_title_open":
                at = lines[first].find(f'"{token.content}"')
                span = (at + 1, at + 1 + len(token.content)) if at >= 0 else None
            else:
                span = _span(lines[first:last], token.content, opened[-1].type == "heading_open")
            if span is None:
                continue
            prefix = re.sub(r"[^>\s]", " ", lines[first][: span[0]])
            kind, level = _kind(opened)
            one_line = opened[-1].type in ("dt_open", "line_open", "admonition_title_open")
            for start, end, content, is_title in _pieces(parser, opened, token.content, lines[first:last], span):
                inline = tree.encode(parser.nodes(content))
                if inline is not None:
                    start = starts[first] + start
                    end = starts[first] + end
                    places.append(
                        _Place(start, end, prefix, inline, kind, level, opened[-1].hidden, one_line or is_title)
                    )
    return sorted(places, key=lambda place: place.start)


def _pieces(
    parser: Parser, opened: list[Token], content: str, lines: list[str], span: tuple[int, int]
) -> Iterator[tuple[int, int, str, bool]]:
    """The parts of a paragraph that are text: where each begins and ends in its lines, its content, is it a title.

    The mark of a task or an alert is no text, and a line of shortcodes or attributes alone stays a line.
    """
    wanted = content.split("\n")
    task = (
        _TASK.match(content)
        if opened[-1].type == "paragraph_open" and "list_item_open" in _types(opened[-2:])
        else None
    )
    alert = _ALERT.match(content) if "blockquote_open" in _types(opened[-2:]) else None
    masked = parser.masked(content)
    kept: list[bool] = []
    at = 0
    for line in wanted:
        bare = masked[at : at + len(line)].strip()
        kept.append(opaque.MASK not in bare or bare.strip(f"{opaque.MASK} \t\n") != "")
        at += len(line) + 1
    mark = task or alert
    if mark is None and all(kept):
        yield (*span, content, False)
        return
    skipped = mark.end() if mark else 0
    kept[0] = kept[0] and skipped < len(wanted[0])
    before = list(accumulate((len(line) for line in lines), initial=0))
    ends = [before[index] + len(line.rstrip()) for index, line in enumerate(lines[: len(wanted)])]
    first = 0
    while first < len(wanted):
        last = first + 1
        while last < len(wanted) and kept[last] and kept[first] and not (alert and first == 0):
            last += 1
        if kept[first]:
            part = "\n".join(wanted[first:last])
            start = span[0] if first == 0 else ends[first] - len(wanted[first].strip())
            shift = skipped if first == 0 else len(part) - len(part.lstrip())
            yield start + (shift if first == 0 else 0), ends[last - 1], part[shift:], alert is not None and first == 0
        first = last


def _types(opened: list[Token]) -> list[str]:
    return [token.type for token in opened]


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
