"""Inline markup as a small tree, and the tree as a text with placeholders and back.

Owns: which parts of a paragraph need a placeholder, their numbering, what is kept outside the text altogether.
Does not know: formats; a node carries whatever object the format needs to write it again.
Units: characters.

Three things keep placeholders few, since each is a chance for a translation to fail: markup around a whole unit stays
outside its text, neighbours without text share one placeholder, and a pair without letters becomes one thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import InputError
from . import placeholders
from .placeholders import LEFT, RIGHT

_WIDE = re.compile("[\u2e80-\u9fff\uf900-\ufaff\uff00-\uff65\U00020000-\U0003ffff]")
_OTHERS = r"\t\r\n\f\x0b\x1c-\x1f\x85\u2028\u2029"  # white space besides the space
_SPACES = re.compile(rf" [ {_OTHERS}]+|[{_OTHERS}][ {_OTHERS}]*")  # what is one space already is passed over
_LINE_ENDS = re.compile(r"\s*[\r\n\x85\u2028\u2029]\s*")
_CONTROL = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff"
_ILLEGAL = re.compile(f"[{_CONTROL}]")  # no document format can hold these
_SEPARATORS = re.compile(r"\s*[\x0b\x0c\x1c-\x1f]\s*")  # of those, what stands between words
# blanks at the edges of a text, soft hyphens among them: units have none
_LEADING = re.compile(r"\A[\s\u00ad]+")
_TRAILING = re.compile(r"(?<![\s\u00ad])[\s\u00ad]+\Z")
_LITERAL = re.compile(rf"([{LEFT}{RIGHT}\r\n\x85\u2028\u2029{_CONTROL}]+)")  # goes behind a placeholder
_RUBY = re.compile(r"<ruby\b", re.IGNORECASE)
_SIGN = re.compile(r"(?:[^\w\s!-~]+ )?")  # no word, and nothing that any format takes for markup
MOST = 100_000  # placeholders of one paragraph; what follows them is kept as it is, behind one more
MOST_MARKUP = 100_000  # elements, runs or tags of one paragraph; each costs some 20 microseconds to read and write


@dataclass(frozen=True, eq=False, slots=True)
class Text:
    """Characters to translate."""

    value: str


@dataclass(frozen=True, eq=False, slots=True)
class Leaf:
    """A thing without text to translate; `source` is the format's own object, or a literal string."""

    source: object


@dataclass(frozen=True, eq=False, slots=True)
class Pair:
    """Markup around other nodes."""

    source: object
    children: tuple[Node, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Hole:
    """Where the translated text goes in a frame."""


@dataclass(frozen=True, eq=False, slots=True)
class _Group:
    """Nodes that share one placeholder."""

    nodes: tuple[Node, ...]


Node: TypeAlias = "Text | Leaf | Pair | Hole"
_Item: TypeAlias = "Text | _Group | Pair | Hole"


def names(text: str) -> frozenset[str]:
    """The words of a text: a set of names that reads well in code."""
    return frozenset(text.split())


def check_markup(count: int, name: str) -> None:
    """Refuses a document with a paragraph of more markup than can be read and written in seconds.

    Raises:
        InputError: `count` is more than `MOST_MARKUP`.
    """
    if count > MOST_MARKUP:
        raise InputError(
            f"{name} holds a paragraph with more than {MOST_MARKUP} pieces of markup", "fewer", "split the paragraph"
        )


def has_letter(text: str) -> bool:
    """Whether there is anything to translate in a text."""
    return text[:1].isalpha() or any(map(str.isalpha, text))


def is_wide(char: str) -> bool:
    """Whether a character belongs to a script that is written without spaces between words (Chinese, Japanese)."""
    return bool(_WIDE.match(char))


def columns(text: str) -> int:
    """How wide a text stands on a line: a wide character takes two columns."""
    return len(text) if text.isascii() else len(text) + len(_WIDE.findall(text))


def fold(text: str) -> str:
    """The text with each run of white space as one space; a line end between Chinese or Japanese is dropped."""

    return _SPACES.sub(_one_space, text)


def folded(nodes: Sequence[Node]) -> list[Node]:
    """The nodes of one level with neighbouring texts joined, then folded."""
    joined: list[Node] = []
    texts: list[str] = []  # of neighbours: joined once, since a paragraph may have very many
    for node in [*nodes, None]:
        if isinstance(node, Text):
            texts.append(node.value)
            continue
        if texts:
            joined.append(Text(fold("".join(texts))))
            texts = []
        if node is not None:
            joined.append(node)
    return joined


def _one_space(match: re.Match[str]) -> str:
    text = match.string
    start, end = match.span()
    inner = start > 0 and end < len(text) and "\n" in match[0]
    return "" if inner and is_wide(text[start - 1]) and is_wide(text[end]) else " "


def clean(text: str) -> str:
    """A translation on one line, without characters that no document format can hold."""
    return _LINE_ENDS.sub(_one_space, _ILLEGAL.sub("", _SEPARATORS.sub(" ", text))).strip()


def has_ruby(source: str) -> bool:
    """Whether a text with tags has words with a reading."""
    return _RUBY.search(source) is not None


def kept(text: str, translated: str) -> str | None:
    """What stands before the text of a source that was kept: a sign, or nothing; None where it is translated.

    Asked where the source has what its text has not, readings beside words: it is written as it is then.
    """
    before = translated.removesuffix(text)
    return before if len(before) < len(translated) and _SIGN.fullmatch(before) else None


@dataclass(frozen=True)
class Inline:
    """One unit's text and what its placeholders stand for.

    Attributes:
        text: the characters to translate, with placeholders; never a line end.
        table: number -> the pair, or the nodes that share a void placeholder.
        frame: what stands around the text, with one `Hole` in it.
    """

    text: str
    table: dict[int, Pair | tuple[Node, ...]] = field(repr=False)
    frame: tuple[Node, ...] = field(repr=False)

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The placeholders in the order of the text."""
        return tuple(placeholders.written(self.text))

    def fill(self, translated: str, keep: Callable[[Leaf], bool] | None = None) -> list[Node]:
        """The tree of a translation, with its frame around it.

        Args:
            translated: any text; placeholders that do not fit are repaired by `placeholders.restore`.
            keep: which things without text are repeated; without it all are. A frame's are left out when it is given.
        """
        text = placeholders.restore(self.text, clean(translated))
        body = self._tree(text, keep)
        return _fill(self.frame, body, whole=keep is None)

    def _tree(self, text: str, keep: Callable[[Leaf], bool] | None) -> list[Node]:
        levels: list[list[Node]] = [[]]
        for at, piece in enumerate(placeholders.parted(text)):
            if at % 2 == 0:
                if piece:
                    levels[-1].append(Text(piece))
                continue
            number, shape = placeholders.read(piece)
            entry = self.table[number]
            if shape == "open":
                levels.append([])
            elif isinstance(entry, Pair):
                children = tuple(levels.pop())
                levels[-1].append(Pair(entry.source, children))
            else:
                levels[-1] += entry if keep is None else _kept(entry, keep)
        return levels[0]


def encode(nodes: Sequence[Node], things: Sequence[Leaf] = ()) -> Inline | None:
    """The text, placeholders and frame of a paragraph; None when it holds nothing to translate.

    `things` stand before its text, in its frame.
    """
    if not _letters(nodes):
        return None
    if len(nodes) == 1 and isinstance(nodes[0], Text) and not _LITERAL.search(nodes[0].value):
        text = nodes[0].value  # most paragraphs: the same as below, at once
        bare = text.strip()
        at = text.find(bare)
        ends = [[Text(part)] if part else [] for part in (text[:at], text[at + len(bare) :])]
        return Inline(bare, {}, (*ends[0], *things, Hole(), *ends[1]))
    frame, core = _peel(_normal(nodes))
    table: dict[int, Pair | tuple[Node, ...]] = {}
    return Inline(_write(core, table), table, tuple(_fill(frame, [*things, Hole()], whole=True)))


def _letters(nodes: Sequence[Node]) -> bool:
    for node in nodes:
        if has_letter(node.value) if isinstance(node, Text) else isinstance(node, Pair) and _letters(node.children):
            return True
    return False


def _normal(nodes: Sequence[Node]) -> list[_Item]:
    """Texts joined, literal brackets and pairs without letters grouped, groups joined across blanks.

    Takes time linear in the nodes: what is joined is collected first.
    """
    flat: list[_Item] = []
    texts: list[str] = []
    group: list[Node] = []
    for item in _parted(nodes):
        if isinstance(item, Text):
            texts.append(item.value)
            continue
        text = "".join(texts)
        texts = []
        if group and (text.strip() or isinstance(item, Pair)):
            flat.append(_Group(tuple(group)))
            group = []
        if group and text:
            group.append(Text(text))  # blanks between things
        elif text:
            flat.append(Text(text))
        if isinstance(item, Pair):
            flat.append(item)
        elif isinstance(item, _Group):
            group += item.nodes
    if group:
        flat.append(_Group(tuple(group)))
    if texts:
        flat.append(Text("".join(texts)))
    return flat


def _parted(nodes: Sequence[Node]) -> Iterator[Text | _Group | Pair]:
    """The nodes with all that is no text to translate as groups."""
    literal: dict[str, _Group] = {}  # a paragraph may hold very many brackets
    for node in nodes:
        if isinstance(node, Text):
            for at, piece in enumerate(_LITERAL.split(node.value, MOST)):
                if at % 2:
                    if piece not in literal:
                        literal[piece] = _Group((Leaf(piece),))
                    yield literal[piece]
                elif at == 2 * MOST and _LITERAL.search(piece):
                    yield _Group((Text(piece),))
                elif piece:
                    yield Text(piece)
        elif isinstance(node, Pair) and _letters([node]):
            yield Pair(node.source, node.children)
        else:
            yield _Group((node,))


def _peel(items: list[_Item]) -> tuple[list[Node], list[_Item]]:
    """The frame of a unit and what is left inside it."""
    left: list[Node] = []
    right: list[Node] = []
    # neighbours are never of one kind, so that at most a blank and a group stand on each side
    while items and not isinstance(items[0], Pair):
        first = items[0]
        if isinstance(first, Text) and (bare := _LEADING.sub("", first.value)):
            if bare != first.value:
                left.append(Text(first.value[: -len(bare)]))
                items = [Text(bare), *items[1:]]
            break
        left += _ungroup(first)
        items = items[1:]
    while items and not isinstance(items[-1], Pair):
        last = items[-1]
        if isinstance(last, Text) and (bare := _TRAILING.sub("", last.value)):
            if bare != last.value:
                right.insert(0, Text(last.value[len(bare) :]))
                items = [*items[:-1], Text(bare)]
            break
        right = [*_ungroup(last), *right]
        items = items[:-1]
    if len(items) == 1 and isinstance(items[0], Pair):
        frame, core = _peel(_normal(items[0].children))
        return [*left, Pair(items[0].source, tuple(frame)), *right], core
    return [*left, Hole(), *right], items


def _ungroup(item: _Item) -> list[Node]:
    return list(item.nodes) if isinstance(item, _Group) else [item]


def _write(items: list[_Item], table: dict[int, Pair | tuple[Node, ...]]) -> str:
    parts: list[str] = []
    for at, item in enumerate(items):
        number = len(table) + 1
        if isinstance(item, Text):
            parts.append(item.value)
        elif number > MOST:
            table[number] = tuple(node for rest in items[at:] for node in _ungroup(rest))
            parts.append(placeholders.write(number, "void"))
            break
        elif isinstance(item, _Group):
            table[number] = item.nodes
            parts.append(placeholders.write(number, "void"))
        elif isinstance(item, Pair):
            table[number] = item
            inner = _write(_normal(item.children), table)
            parts += [placeholders.write(number, "open"), inner, placeholders.write(number, "close")]
    return "".join(parts)


def _fill(frame: Sequence[Node], body: list[Node], *, whole: bool) -> list[Node]:
    nodes: list[Node] = []
    for node in frame:
        if isinstance(node, Hole):
            nodes += body
        elif isinstance(node, Pair) and _has_hole(node):
            nodes.append(Pair(node.source, tuple(_fill(node.children, body, whole=whole))))
        elif whole:
            nodes.append(node)
    return nodes


def _has_hole(pair: Pair) -> bool:
    return any(isinstance(node, Hole) or (isinstance(node, Pair) and _has_hole(node)) for node in pair.children)


def _kept(nodes: Sequence[Node], keep: Callable[[Leaf], bool]) -> list[Node]:
    kept: list[Node] = []
    for node in nodes:
        if isinstance(node, Pair):
            children = _kept(node.children, keep)
            if children:
                kept.append(Pair(node.source, tuple(children)))
        elif not isinstance(node, Leaf) or isinstance(node.source, str) or keep(node):
            kept.append(node)
    return kept
