"""SubRip subtitles: numbers and times are kept byte by byte, only the words change.

Owns: where cues begin and end, how a translation is laid on lines.
Does not know: when a cue is shown, whose words a line is (`srt_speakers.py`).
Units: a unit is one cue; line lengths in characters, a Chinese one counting two.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from . import inline as tree
from . import srt_speakers
from .document import Document, Edition, Numbering
from .inline import Inline, Leaf, Node, Pair, Text
from .srt_speakers import DASHES, TAG

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")
_STAMP = r"\d{1,4}[:,.]\d{1,3}[:,.]\d{1,3}[:,.]?\d{0,9}"
_TIMES = re.compile(rf"[ \t]*{_STAMP}[ \t]*-[ -]?>[ \t]*{_STAMP}(?:[ \t].*)?", re.ASCII)
# what people's tools make of a time: blanks inside, no hours, no thousandths, full-width characters, other arrows
_ODD_STAMP = r"-?\d{1,4}(?:\s{0,3}[:;]\s{0,3}\d{1,3}){1,2}(?:\s{0,3}[,.:;]\s{0,3}\d{1,9})?"
_ODD_TIMES = re.compile(rf"\s*({_ODD_STAMP})\s*(?:-[ -]?-?>|[–—=]>|→)\s*({_ODD_STAMP})(\s.*)?", re.ASCII)
_ARROW = re.compile(r"->|[–—=]>|→")
# hours and minutes, which words name, too: from 10:30 -> 11:30
_CLOCK = r"\d{1,4}(?:\s{0,3}[:;]\s{0,3}\d{1,3}){1,2}"
_CLOCKS = re.compile(rf"\s*{_CLOCK}\s*(?:-[ -]?-?>|[–—=]>|→)\s*{_CLOCK}(?:\s.*)?", re.ASCII)
_INDEX = re.compile(r"[ \t]*-?\d{1,12}(?:\.\d{1,9})?[ \t]*", re.ASCII)
_ENTITY = re.compile(r"&(?:amp|lt|gt|quot|apos|nbsp|lrm|rlm|#\d{1,7}|#x[0-9a-f]{1,6});", re.IGNORECASE)
_ASS_SPACE = re.compile(r"(?<!:)\\[hNn]")  # a hard space and line breaks; C:\notes is none
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
        cues = _cues(lines, _mend_times(lines, str(path)))
        if not cues:
            raise InputError(
                f"{path} holds no subtitle", "lines like 00:00:01,000 --> 00:00:02,000", "name an SRT file"
            )
        at = 0
        for start, end in cues:
            content = "".join(lines[start:end])
            body = content.rstrip("\r\n")
            if end - start + body.count("<") + body.count("{") > tree.MOST_MARKUP:
                tree.check_markup(end - start + sum(1 for _ in TAG.finditer(body)), f"{path} line {start + 1}")
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
        kept = tree.kept(inline.text, translated) if tree.has_ruby(source) else None
        if kept is not None and not edition.bilingual:
            return kept + source
        escape = _escape if _ENTITY.search(source) else str
        if edition.bilingual:
            text = _string(inline.fill(translated, keep=_is_repeated), escape)
            lines = [" ".join(line.split()) for line in re.split(r"\r\n|\r|\n", text)]  # one a speaker
            return self._newline.join([source, *filter(None, lines)])
        text = _string(inline.fill(translated), escape)
        return text if "\n" in text or "\r" in text else self._newline.join(_balanced(text))


def _mend_times(lines: list[str], name: str) -> list[int]:
    """Writes odd times as players read them; gives the indices of the lines that hold times.

    Raises:
        InputError: a line looks like times, stands where they stand, and is none.
    """
    found: dict[int, re.Match[str] | None] = {}  # the times of each line that are to be written anew
    clocks: set[int] = set()
    for at, line in enumerate(lines):
        bare = line.rstrip("\r\n")
        arrow = _ARROW.search(bare)
        if ">" in bare and _TIMES.fullmatch(bare):
            found[at] = None
        elif not arrow:
            continue
        elif odd := _ODD_TIMES.fullmatch(unicodedata.normalize("NFKC", bare)):
            found[at] = odd
        elif _has_digit(bare[: arrow.start()]) and _has_digit(bare[arrow.end() :]) and _begins_cue(lines, at):
            raise InputError(
                f"{name} line {at + 1} is no time of a subtitle ({bare.strip()[:60]!r})",
                "two times like 00:00:01,000 --> 00:00:02,000",
                "correct the line",
            )
        if at in found and _CLOCKS.fullmatch(unicodedata.normalize("NFKC", bare)):
            clocks.add(at)
    if len(clocks) < len(found):  # the others say what times look like in this file
        found = {at: odd for at, odd in found.items() if at not in clocks or _may_begin_cue(lines, at)}
    for at, odd in found.items():
        if odd:
            ending = lines[at][len(lines[at].rstrip("\r\n")) :]
            lines[at] = f"{_stamp(odd[1])} --> {_stamp(odd[2])}{odd[3] or ''}{ending}"
    return list(found)


def _stamp(odd: str) -> str:
    """A time without blanks; one of semicolons with colons, and a comma before its thousandths."""
    stamp = "".join(odd.split())
    parts = stamp.split(";") if ";" in stamp else []
    if len(parts) == 2:
        return ",".join(parts)
    return ":".join(parts[:3]) + "".join(f",{part}" for part in parts[3:]) if parts else stamp


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)


def _begins_cue(lines: list[str], at: int) -> bool:
    """Whether a line follows a number that stands alone, as times do."""
    return (
        at > 0
        and _INDEX.fullmatch(lines[at - 1].rstrip("\r\n")) is not None
        and not "".join(lines[at - 2 : at - 1]).strip()
    )


def _may_begin_cue(lines: list[str], at: int) -> bool:
    """Whether a line is the first one, or follows a blank one or a number."""
    before = lines[at - 1].strip() if at else ""
    return not before or _INDEX.fullmatch(before) is not None


def _cues(lines: list[str], times: list[int]) -> list[tuple[int, int]]:
    """Where each cue's words begin and end, as line indices; blank lines at their end are left out.

    `times`: the lines that hold times.
    """
    bare = [line.rstrip("\r\n") for line in lines]
    numbers = [_number_line(bare, at) for at in times]
    spaced = bool(times) and numbers[0] is not None and numbers[0] < times[0] - 1
    cues: list[tuple[int, int]] = []
    for index, at in enumerate(times):
        end = len(lines)
        if index + 1 < len(times):
            end = times[index + 1]
            number = numbers[index + 1]
            if (
                number is not None
                and number > at
                and (number == end - 1 or spaced or _follows(bare, numbers[index], number))
            ):
                end = number
        while end > at + 1 and not bare[end - 1].strip():
            end -= 1
        cues.append((at + 1, end))
    return cues


def _number_line(bare: list[str], time: int) -> int | None:
    """The line with the number of the cue at `time`: just before it, or with blank lines between on both sides."""
    at = time - 1
    while at >= 0 and not bare[at].strip():
        at -= 1
    if at < 0 or not _INDEX.fullmatch(bare[at]):
        return None
    alone = at == 0 or not bare[at - 1].strip() or ">" in bare[at - 1]
    return at if at == time - 1 or alone else None


def _follows(bare: list[str], before: int | None, number: int) -> bool:
    """Whether a number is one more than that of the cue before."""
    return before is not None and float(bare[before]) + 1 == float(bare[number])


def _nodes(body: str) -> list[Node]:
    """A cue's words: tags as pairs, a line break between speakers kept, other line breaks dropped."""
    stack: list[tuple[re.Match[str] | None, list[Node]]] = [(None, [])]
    at = 0
    breaks = srt_speakers.starts(body)
    for tag in TAG.finditer(body):
        stack[-1][1].extend(_words(body, at, tag.start(), breaks))
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
            if tag[2].lower() == "ruby":
                stack[-1][1].extend(_words_of_ruby(nodes))
            else:
                stack[-1][1].append(Pair(_Tags(opened[0] if opened else "", tag[0]), tuple(nodes)))
    stack[-1][1].extend(_words(body, at, len(body), breaks))
    return tree.folded(_flat(stack))


def _words_of_ruby(nodes: Sequence[Node]) -> list[Node]:
    """The words of a ruby without their readings, which are for readers of the source alone."""
    words: list[Node] = []
    for node in nodes:
        source = node.source if isinstance(node, Leaf | Pair) else None
        tag = TAG.match(source.opened if isinstance(source, _Tags) else str(source))
        name = (tag[2] or "").lower() if tag else ""
        if tag and not tag[1] and name in ("rt", "rp") and isinstance(node, Leaf):
            break  # it is not closed: all that follows is read with it
        if name in ("rt", "rp", "rb"):
            words += _words_of_ruby(node.children) if isinstance(node, Pair) and name == "rb" else []
        elif isinstance(node, Pair):
            words.append(Pair(node.source, tuple(_words_of_ruby(node.children))))
        else:
            words.append(node)
    return words


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


def _words(body: str, start: int, end: int, breaks: set[int]) -> list[Node]:
    """The text between two tags as players show it; a line break stays where another speaker begins."""
    nodes: list[Node] = []
    at = start
    for number, piece in enumerate(re.split(r"(\r\n|\r|\n)", body[start:end])):
        at += len(piece)
        if number % 2 == 0:
            nodes.append(Text(_shown(piece)))
        else:
            nodes.append(Leaf(piece) if at in breaks else Text("\n"))
    return tree.folded(nodes)


def _shown(text: str) -> str:
    """Text as players show it: entities as characters, ASS's hard spaces and line breaks as spaces."""
    text = _ASS_SPACE.sub(" ", text)
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text)


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _string(nodes: list[Node] | tuple[Node, ...], escape: Callable[[str], str] = str) -> str:
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Text):
            parts.append(escape(node.value))
        elif isinstance(node, Pair) and isinstance(node.source, _Tags):
            parts += [node.source.opened, _string(node.children, escape), node.source.closed]
        elif isinstance(node, Leaf):
            parts.append(str(node.source))
    return "".join(parts)


def _is_repeated(leaf: Leaf) -> bool:
    return not str(leaf.source).startswith("{")


def _balanced(text: str) -> list[str]:
    """A cue's text on as few lines of at most 42 as it needs, of about equal length, cut at spaces outside tags."""
    groups = list[list[str]]()
    for word in re.findall(r"(?:<[^<>]*>|[^ ])+", text):
        if groups and TAG.sub("", word).startswith(DASHES):
            groups[-1].append(word)  # a line that begins with a dash is another speaker's
        else:
            groups.append([word])
    words = [" ".join(group) for group in groups]
    sizes = [tree.columns(TAG.sub("", word)) for word in words]
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
