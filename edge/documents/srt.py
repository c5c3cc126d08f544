"""SubRip subtitles: numbers and times are kept byte by byte, only the words change.

Owns: where cues begin and end, their tags, how a translation is laid on lines.
Does not know: when a cue is shown.
Units: a unit is one cue; line lengths in characters, a Chinese one counting two.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from . import inline as tree
from .document import Document, Edition, Numbering
from .inline import Inline, Leaf, Node, Pair, Text

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_STAMP = r"\d{1,4}[:,.]\d{1,3}[:,.]\d{1,3}[:,.]?\d{0,9}"
_TIMES = re.compile(rf"[ \t]*{_STAMP}[ \t]*-[ -]?>[ \t]*{_STAMP}(?:[ \t].*)?", re.ASCII)
_INDEX = re.compile(r"[ \t]*-?\d{1,12}(?:\.\d{1,9})?[ \t]*", re.ASCII)
_TAG = re.compile(r"<(/?)(i|b|u|s|font|em|strong)(\s[^<>]{0,200})?>|\{\\[^{}]{0,200}\}", re.IGNORECASE)
_DASHES = ("-", "–", "—", "‐", "−")
_DEEPEST = 50  # tags in tags
_WIDTH = 42  # a subtitle line; longer ones are cut by players


@dataclass(frozen=True)
class _Tags:
    """The two ends of a tag."""

    opened: str
    closed: str


class Srt(Document):
    """A subtitle file; each cue with words is a unit."""

    format = "srt"

    def __init__(self, path: Path, text: str, mark: bytes = b"") -> None:
        """Finds the cues.

        Raises:
            InputError: there is no cue, or none has words.
        """
        self._mark = mark
        self._newline = "\r\n" if "\r\n" in text else "\r" if "\n" not in text and "\r" in text else "\n"
        self._pieces: list[str | tuple[str, Inline]] = []
        numbering = Numbering()
        lines = [match[0] for match in _LINE.finditer(text) if match[0]]
        cues = _cues(lines)
        if not cues:
            raise InputError(
                f"{path} holds no subtitle", "lines like 00:00:01,000 --> 00:00:02,000", "name an SRT file"
            )
        at = 0
        for start, end in cues:
            content = "".join(lines[start:end])
            body = content.rstrip("\r\n")
            inline = tree.encode(_nodes(body))
            if inline is None:
                continue
            numbering.add(inline, "cue")
            self._pieces += ["".join(lines[at:start]), (body, inline), content[len(body) :]]
            at = end
        self._pieces.append("".join(lines[at:]))
        if not numbering.units:
            raise InputError(f"{path} holds no words", "subtitles with text", "name another file")
        super().__init__(path, numbering.units)

    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        stream.write(self._mark)
        units = iter(self.units)
        for piece in self._pieces:
            if isinstance(piece, str):
                stream.write(piece.encode("utf-8"))
                continue
            source, inline = piece
            translated = edition.get(next(units))
            text = source
            if translated is not None:
                text = self._laid_out(source, inline, translated, edition)
            stream.write(text.encode("utf-8"))

    def _laid_out(self, source: str, inline: Inline, translated: str, edition: Edition) -> str:
        if edition.bilingual:
            text = _string(inline.fill(translated, keep=_is_repeated))
            return source + self._newline + " ".join(text.split())
        text = _string(inline.fill(translated))
        return text if "\n" in text or "\r" in text else self._newline.join(_balanced(text))


def _cues(lines: list[str]) -> list[tuple[int, int]]:
    """Where each cue's words begin and end, as line indices; blank lines at their end are left out."""
    bare = [line.rstrip("\r\n") for line in lines]
    times = [at for at, line in enumerate(bare) if "-" in line and _TIMES.fullmatch(line)]
    cues: list[tuple[int, int]] = []
    for at, following in zip(times, [*times, len(lines) + 1][1:], strict=True):
        end = min(following, len(lines))
        if following <= len(lines) and end - 1 > at and _INDEX.fullmatch(bare[end - 1]):
            end -= 1
        while end > at + 1 and not bare[end - 1].strip():
            end -= 1
        cues.append((at + 1, end))
    return cues


def _nodes(body: str) -> list[Node]:
    """A cue's words: tags as pairs, a line break before a speaker's dash kept, other line breaks dropped."""
    stack: list[tuple[re.Match[str] | None, list[Node]]] = [(None, [])]
    at = 0
    for tag in _TAG.finditer(body):
        stack[-1][1].extend(_lines(body[at : tag.start()]))
        at = tag.end()
        opens = tag[2] is not None and not tag[1]
        level = None if opens or tag[2] is None else _level(stack, tag[2])
        if opens and len(stack) < _DEEPEST:
            stack.append((tag, []))
        elif level is None:
            stack[-1][1].append(Leaf(tag[0]))
        else:
            opened = stack[level][0]
            nodes = _flat(stack[level:])[1:]
            del stack[level:]
            stack[-1][1].append(Pair(_Tags(opened[0] if opened else "", tag[0]), tuple(nodes)))
    stack[-1][1].extend(_lines(body[at:]))
    return tree.folded(_flat(stack))


def _level(stack: list[tuple[re.Match[str] | None, list[Node]]], name: str) -> int | None:
    """Where in the stack the innermost open tag of a name is."""
    for level in range(len(stack) - 1, 0, -1):
        opened = stack[level][0]
        if opened is not None and opened[2].lower() == name.lower():
            return level
    return None


def _flat(stack: list[tuple[re.Match[str] | None, list[Node]]]) -> list[Node]:
    """The nodes of open tags one after the other, each tag as a thing of its own."""
    nodes: list[Node] = []
    for opened, inner in stack:
        nodes += [*([Leaf(opened[0])] if opened else []), *inner]
    return nodes


def _lines(text: str) -> list[Node]:
    nodes: list[Node] = []
    pieces = re.split(r"(\r\n|\r|\n)", text)
    for at, piece in enumerate(pieces):
        if at % 2 == 0:
            nodes.append(Text(piece))
        else:
            speaks = pieces[at + 1].lstrip().startswith(_DASHES)
            nodes.append(Leaf(piece) if speaks else Text("\n"))
    return tree.folded(nodes)


def _string(nodes: list[Node] | tuple[Node, ...]) -> str:
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Text):
            parts.append(node.value)
        elif isinstance(node, Pair) and isinstance(node.source, _Tags):
            parts += [node.source.opened, _string(node.children), node.source.closed]
        elif isinstance(node, Leaf):
            parts.append(str(node.source))
    return "".join(parts)


def _is_repeated(leaf: Leaf) -> bool:
    return not str(leaf.source).startswith("{")


def _balanced(text: str) -> list[str]:
    """A cue's text on as few lines of at most 42 as it needs, of about equal length, cut at spaces outside tags."""
    words = re.findall(r"(?:<[^<>]*>|[^ ])+", text)
    sizes = [sum(1 + tree.is_wide(char) for char in _TAG.sub("", word)) for word in words]
    total = sum(sizes) + len(sizes) - 1
    count = math.ceil(total / _WIDTH)
    lines: list[str] = []
    used = 0
    target = math.ceil(total / max(count, 1))
    for word, size in zip(words, sizes, strict=True):
        if lines and used < target and used + 1 + size <= _WIDTH:
            lines[-1] += f" {word}"
            used += 1 + size
        else:
            lines.append(word)
            used = size
    return lines or [text]
