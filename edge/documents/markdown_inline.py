"""Markdown's inline syntax as a tree, and a tree as Markdown that reads back as the same tree.

Owns: the source text behind each inline token, escaping, the check that what was written means what was meant.
Does not know: where in a document a paragraph stands.
Units: characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.admon import admon_plugin
from mdit_py_plugins.deflist import deflist_plugin
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.front_matter import front_matter_plugin

from . import inline as tree
from . import markdown_lines
from . import markdown_opaque as opaque
from . import markdown_ruby as ruby
from .inline import Leaf, Node, Pair, Text
from .markdown_blocks import by_mark

_TRACKED = ("link", "image", "footnote_ref", "footnote_inline", "autolink", "backticks", "html_inline")
_DEEPEST = 50  # markup in markup
_MOST = 100_000  # characters of markup in one paragraph; each costs the parser some 20 microseconds
_MARKUP = "\\`*_[]<&~!^"
_HTML_NAMES = {"em": "em", "strong": "strong", "s": "s"}
_BREAK = re.compile(r" *\n[ \t]*|\\\n[ \t]*")
_SPECIAL = re.compile(r"[\\`*\[\]<]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w{1,32};)|~(?=~)")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
# what begins a block: CommonMark's, then definitions, task lists and alerts, containers, admonitions, maths, front
# matter
_LINE_START = re.compile(
    r"(#{1,6}(?=\s|$)|>|[-+](?=\s|$)|[-=]+\s*$|\d{1,9}[.)](?=\s|$)"
    r"|[:~](?=\s)|\[(?:[ xX]\]|!)|:{3}|!!!|\?\?\?|\$\$|\+\+\+|%%|\*\[)",
    re.MULTILINE,
)
_BEGINS = re.compile(f"[\\\\`*_\\[<&~{opaque.MASK}]|  \n")  # what inline markup begins with, or a hard line end
_MASKS = re.compile(f"({opaque.MASK}+)")


@dataclass(frozen=True)
class _Source:
    """Source text of a thing that is not translated, and the tokens that it is read as."""

    text: str
    types: tuple[str, ...]


@dataclass(frozen=True)
class _Markup:
    """The two ends of markup around text."""

    name: str
    opened: str
    closed: str


def _is_words(masked: str) -> bool:
    """Whether no inline rule finds anything in a text: it is read as itself, without the parser."""
    return _BEGINS.search(masked) is None


def is_raw(nodes: Sequence[Node]) -> bool:
    """Whether a paragraph is one text with its markup as it stands."""
    return any(isinstance(node, Leaf) and getattr(node.source, "types", ()) == ("raw",) for node in nodes)


class _Misread(Exception):
    """The tokens do not line up with the source that they came from."""


class Parser:
    """One document's parser: it knows the document's link and footnote definitions."""

    def __init__(self, text: str) -> None:
        self._spans: dict[int, int] = {}
        self._tracked = ""
        self._md = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self._md.use(front_matter_plugin).use(footnote_plugin, inline=True, move_to_end=False)
        self._md.use(deflist_plugin).use(admon_plugin).use(opaque.block_plugin)
        self._md.use(markdown_lines.block_plugin)
        self._md.disable(["inline", "text_join"]).use(by_mark)
        self._env: dict[str, Any] = {}
        rules = {rule.name: rule.fn for rule in self._md.inline.ruler.__rules__}
        for name in _TRACKED:
            self._md.inline.ruler.at(name, self._tracking(rules[name]))
        self.blocks: list[Token] = self._md.parse(text, self._env)
        front = self.blocks[0] if self.blocks and self.blocks[0].type == "front_matter" else None
        self.front_matter_lines: int = front.map[1] if front and front.map else 0
        self._references = frozenset(name.casefold() for name in self._env.get("references", {}))

    def masked(self, content: str) -> str:
        """A paragraph's source with what is kept byte for byte hidden (`markdown_opaque`); of the same length."""
        return opaque.mask(content, self._references)

    def nodes(self, content: str) -> list[Node]:
        """A paragraph's tree; a paragraph that cannot be followed is one text with its markup as it stands."""
        try:
            masked = self.masked(content)
            if _is_words(masked):
                return [Text(tree.fold(content))] if content else []
            if sum(masked.count(character) for character in _MARKUP) > _MOST:
                raise _Misread
            tokens, spans = self._tokens(masked)
            reader = _Reader(self, content, masked, tokens, spans)
            nodes = reader.level()
            if reader.next < len(tokens) or content[reader.at :].strip():
                raise _Misread
        except (_Misread, RecursionError):
            return [Leaf(_Source("", ("raw",))), Text(tree.fold(content))]
        return [*(Leaf(_Source(target, ("html_inline",) * 2)) for target in reader.targets), *nodes]

    def write(self, nodes: Sequence[Node], *, cell: bool = False, heading: bool = False, literal: str = "") -> str:
        """Markdown for a tree: as plain as possible, but such that it is read as this tree again.

        `literal`: characters that the source has without escapes, so that its readers take them as they are.
        """
        if is_raw(nodes):
            return _string(nodes, lambda text: text, html=False)
        text = ""
        ways: list[tuple[bool, Callable[[str], str]]] = [(False, _escape), (True, _escape), (True, _escape_all)]
        if _SPECIAL.search(literal):
            ways.insert(0, (False, lambda text: _escape(text, literal)))
        for html, escape in ways:
            text = _string(nodes, escape, html=html).strip()
            if isinstance(_first(nodes), Text):
                text = _escape_start(text)
            text = "\n".join([text.split("\n")[0], *(_escape_start(line) for line in text.split("\n")[1:])])
            if self._reads_as(text, nodes, html=html):
                break
        if cell:
            text = re.sub(r"(?<!\\)((?:\\\\)*)\|", r"\1\\|", text)
        return re.sub(r"(^|\s)(#+)$", r"\1\\\2", text) if heading else text

    def _tracking(self, rule: Callable[[StateInline, bool], bool]) -> Callable[[StateInline, bool], bool]:
        def tracked(state: StateInline, silent: bool) -> bool:
            start = state.pos
            done = rule(state, silent)
            if done and not silent and state.src == self._tracked:
                self._spans[start] = state.pos
            return done

        return tracked

    def _tokens(self, masked: str) -> tuple[list[Token], dict[int, int]]:
        """The inline tokens of a masked source, and by their offsets where the tracked ones end."""
        self._tracked = masked
        self._spans = {}
        tokens: list[Token] = []
        self._md.inline.parse(masked, self._md, self._env, tokens)
        if opaque.MASK in masked:
            tokens = [part for token in tokens for part in _parted(token)]
        return tokens, self._spans

    def _reads_as(self, text: str, nodes: Sequence[Node], *, html: bool) -> bool:
        masked = self.masked(text)
        if "\n" not in text and _is_words(masked):
            return not _types(nodes, html=html) and text.split() == _words(nodes).split()
        try:
            tokens, _ = self._tokens(masked)
        except RecursionError:
            return False
        words = "".join(token.content for token in tokens if token.type in ("text", "text_special"))
        types = [token.type for token in tokens if token.type not in _WORDS]
        return _once(types) == _once(_types(nodes, html=html)) and " ".join(words.split()) == " ".join(
            _words(nodes).split()
        )


class _Reader:
    """Follows tokens through the source that they were read from."""

    def __init__(self, parser: Parser, content: str, masked: str, tokens: list[Token], spans: dict[int, int]) -> None:
        self.next = 0  # the next token
        self.at = 0  # where it begins
        self.targets: list[str] = []  # HTML for the ids of tags that are left out
        self._parser = parser
        self._content = content
        self._masked = masked
        self._tokens = tokens
        self._spans = spans

    def level(self) -> list[Node]:
        """The nodes up to the token that closes this level, which is then the next one."""
        nodes: list[Node] = []
        tokens = self._tokens
        if self.next < len(tokens) and tokens[self.next].level > _DEEPEST:
            raise _Misread
        while self.next < len(tokens) and tokens[self.next].nesting != -1:
            token = tokens[self.next]
            self.next += 1
            nodes.append(self._node(token))
        return tree.folded(list(ruby.words(nodes, self.targets)))

    def _node(self, token: Token) -> Node:
        if token.type == "text":
            self._pass(token.content)
            return Text(token.content)
        if token.type == "text_special":
            self._pass(token.markup)
            return Text(token.content)
        if token.type == "opaque":
            start = self.at
            self._pass(token.content)
            return Leaf(_Source(self._content[start : self.at], ("opaque",)))
        if token.type in ("softbreak", "hardbreak"):
            match = _BREAK.match(self._content, self.at)
            if not match:
                raise _Misread
            self.at = match.end()
            hard = Leaf(_Source(match[0].rstrip(" \t"), ("hardbreak",)))
            return hard if token.type == "hardbreak" else Text("\n")
        if token.type == "link_open" and token.markup != "autolink":
            return self._link()
        if token.nesting == 1 and token.type.removesuffix("_open") in _HTML_NAMES:
            return self._emphasis(token)
        return self._whole(token)

    def _link(self) -> Node:
        end = self._spans.get(self.at, -1)
        self._pass("[")
        start = self.at
        children = self.level()
        if self.next == len(self._tokens) or end <= self.at:
            raise _Misread
        closed = self._content[self.at : end]
        if closed in ("]", "][]"):  # the text names the link's definition: it must be named apart from it
            closed = f"][{self._content[start : self.at]}]"
        self.at = end
        self.next += 1
        return Pair(_Markup("link", "[", closed), tuple(children))

    def _emphasis(self, token: Token) -> Node:
        start = self.at
        self._pass(token.markup)
        children = self.level()
        if self.next == len(self._tokens):
            raise _Misread
        self._pass(self._tokens[self.next].markup)
        self.next += 1
        opened = self._content[start : start + len(token.markup)]
        return Pair(_Markup(token.type.removesuffix("_open"), opened, token.markup), tuple(children))

    def _whole(self, token: Token) -> Node:
        """A token whose source is kept: code, an image, an automatic link, HTML, a footnote mark."""
        end = self._spans.get(self.at, -1)
        if end <= self.at:
            raise _Misread
        source = self._content[self.at : end]
        self.at = end
        types = [token.type]
        if token.type == "link_open":
            while types[-1] != "link_close" and self.next < len(self._tokens):
                types.append(self._tokens[self.next].type)
                self.next += 1
        elif token.type == "footnote_ref" and source.startswith("^["):
            return Pair(_Markup("footnote", "^[", "]"), tuple(self._parser.nodes(source[2:-1])))
        return Leaf(_Source(source, tuple(kind for kind in types if kind not in _WORDS)))

    def _pass(self, piece: str) -> None:
        if not self._masked.startswith(piece, self.at):
            raise _Misread
        self.at += len(piece)


_WORDS = ("text", "text_special", "softbreak")


def _parted(token: Token) -> Iterator[Token]:
    """A token, with what is masked in a text as tokens of their own."""
    if token.type != "text" or opaque.MASK not in token.content:
        yield token
        return
    for at, piece in enumerate(_MASKS.split(token.content)):
        if piece:
            yield Token("opaque" if at % 2 else "text", "", 0, content=piece, level=token.level)


def _once(types: list[str]) -> list[str]:
    """Neighbours that are kept byte for byte are one thing."""
    return [kind for at, kind in enumerate(types) if kind != "opaque" or types[at - 1 : at] != ["opaque"]]


def _first(nodes: Sequence[Node]) -> Node | None:
    return next((node for node in nodes if not (isinstance(node, Text) and not node.value.strip())), None)


def _string(nodes: Sequence[Node], escape: Callable[[str], str], *, html: bool) -> str:
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Text):
            parts.append(escape(node.value))
        elif isinstance(node, Leaf):
            parts.append(node.source.text if isinstance(node.source, _Source) else escape(str(node.source)))
        elif isinstance(node, Pair) and isinstance(node.source, _Markup):
            inner = _string(node.children, escape, html=html)
            opened, closed = _ends(node.source, html)
            if node.source.name in _HTML_NAMES and inner.strip():
                bare = inner.strip(" ")
                before = inner[: len(inner) - len(inner.lstrip(" "))]
                after = inner[len(inner.rstrip(" ")) :]
                parts += [before, opened, bare, closed, after]
            else:
                parts += [opened, inner, closed]
    return "".join(parts)


def _ends(markup: _Markup, html: bool) -> tuple[str, str]:
    name = _HTML_NAMES.get(markup.name)
    return (f"<{name}>", f"</{name}>") if html and name else (markup.opened, markup.closed)


def _types(nodes: Sequence[Node], *, html: bool) -> list[str]:
    types: list[str] = []
    for node in nodes:
        if isinstance(node, Leaf) and isinstance(node.source, _Source):
            types += node.source.types
        elif isinstance(node, Pair) and isinstance(node.source, _Markup):
            name = node.source.name
            if name == "footnote":
                types.append("footnote_ref")
                continue
            is_html = html and name in _HTML_NAMES
            opened, closed = ("html_inline", "html_inline") if is_html else (f"{name}_open", f"{name}_close")
            types += [opened, *_types(node.children, html=html), closed]
    return types


def _words(nodes: Sequence[Node]) -> str:
    parts: list[str] = []
    for node in nodes:
        if isinstance(node, Text):
            parts.append(node.value)
        elif isinstance(node, Leaf) and isinstance(node.source, str):
            parts.append(node.source)
        elif isinstance(node, Leaf) and isinstance(node.source, _Source) and "link_open" in node.source.types:
            parts.append(node.source.text[1:-1])
        elif isinstance(node, Pair) and isinstance(node.source, _Markup) and node.source.name != "footnote":
            parts.append(_words(node.children))
    return "".join(parts)


def _escape(text: str, literal: str = "") -> str:
    return _SPECIAL.sub(lambda match: match[0] if match[0] in literal else "\\" + match[0], text)


def _escape_all(text: str) -> str:
    return _PUNCTUATION.sub(lambda match: "\\" + match[0], text)


def _escape_start(line: str) -> str:
    """A line that begins no heading, quotation or list."""
    match = _LINE_START.match(line)
    if not match:
        return line
    at = match.end() - 1 if match[0][0].isdigit() else 0
    return f"{line[:at]}\\{line[at:]}"
