"""Markdown's inline syntax as a tree, and a tree as Markdown that reads back as the same tree.

Owns: the source text behind each inline token, escaping, the check that what was written means what was meant.
Does not know: where in a document a paragraph stands.
Units: characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.footnote import footnote_plugin
from mdit_py_plugins.front_matter import front_matter_plugin

from . import inline as tree
from .inline import Leaf, Node, Pair, Text

_TRACKED = ("link", "image", "footnote_ref", "footnote_inline", "autolink", "backticks", "html_inline")
_DEEPEST = 50  # markup in markup
_HTML_NAMES = {"em": "em", "strong": "strong", "s": "s"}
_BREAK = re.compile(r" *\n[ \t]*|\\\n[ \t]*")
_SPECIAL = re.compile(r"[\\`*\[\]<]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w{1,32};)|~(?=~)")
_PUNCTUATION = re.compile(r"[!-/:-@\[-`{-~]")
_LINE_START = re.compile(r"(#{1,6}(?=\s|$)|>|[-+](?=\s|$)|[-=]+\s*$|\d{1,9}[.)](?=\s|$))", re.MULTILINE)


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


class _Misread(Exception):
    """The tokens do not line up with the source that they came from."""


class Parser:
    """One document's parser: it knows the document's link and footnote definitions."""

    def __init__(self, text: str) -> None:
        self._spans: dict[int, int] = {}
        self._tracked = ""
        self._md = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
        self._md.use(front_matter_plugin).use(footnote_plugin, inline=True, move_to_end=False)
        self._md.disable(["inline", "text_join"])
        self._env: dict[str, Any] = {}
        rules = {rule.name: rule.fn for rule in self._md.inline.ruler.__rules__}
        for name in _TRACKED:
            self._md.inline.ruler.at(name, self._tracking(rules[name]))
        self.blocks: list[Token] = self._md.parse(text, self._env)
        front = self.blocks[0] if self.blocks and self.blocks[0].type == "front_matter" else None
        self.front_matter_lines: int = front.map[1] if front and front.map else 0

    def nodes(self, content: str) -> list[Node]:
        """A paragraph's tree; a paragraph that cannot be followed is one text with its markup as it stands."""
        try:
            tokens, spans = self._tokens(content)
            nodes, at, rest = self._level(content, tokens, spans, 0)
            if rest or content[at:].strip():
                raise _Misread
        except (_Misread, RecursionError):
            return [Leaf(_Source("", ("raw",))), Text(tree.fold(content))]
        return nodes

    def write(self, nodes: Sequence[Node], *, cell: bool = False, heading: bool = False) -> str:
        """Markdown for a tree: as plain as possible, but such that it is read as this tree again."""
        if any(isinstance(node, Leaf) and getattr(node.source, "types", ()) == ("raw",) for node in nodes):
            return _string(nodes, lambda text: text, html=False)
        text = ""
        for html, escape in ((False, _escape), (True, _escape), (True, _escape_all)):
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

    def _tokens(self, content: str) -> tuple[list[Token], dict[int, int]]:
        self._tracked, self._spans = content, {}
        tokens: list[Token] = []
        self._md.inline.parse(content, self._md, self._env, tokens)
        return tokens, self._spans

    def _level(
        self, content: str, tokens: list[Token], spans: dict[int, int], at: int
    ) -> tuple[list[Node], int, list[Token]]:
        """The nodes up to the token that closes this level, the offset there, and that token with all after it."""
        nodes: list[Node] = []
        if tokens and tokens[0].level > _DEEPEST:
            raise _Misread
        while tokens and tokens[0].nesting != -1:
            token, tokens = tokens[0], tokens[1:]
            if token.type == "text":
                at = _expect(content, at, token.content)
                nodes.append(Text(token.content))
            elif token.type == "text_special":
                at = _expect(content, at, token.markup)
                nodes.append(Text(token.content))
            elif token.type in ("softbreak", "hardbreak"):
                match = _BREAK.match(content, at)
                if not match:
                    raise _Misread
                at = match.end()
                hard = Leaf(_Source(match[0].rstrip(" \t"), ("hardbreak",)))
                nodes.append(hard if token.type == "hardbreak" else Text("\n"))
            elif token.type == "link_open" and token.markup != "autolink":
                end = spans.get(at, -1)
                _expect(content, at, "[")
                start = at + 1
                children, at, tokens = self._level(content, tokens, spans, start)
                if not tokens or end <= at:
                    raise _Misread
                closed = content[at:end]
                if closed in ("]", "][]"):  # the text names the link's definition: it must be named apart from it
                    closed = f"][{content[start:at]}]"
                nodes.append(Pair(_Markup("link", "[", closed), tuple(children)))
                at, tokens = end, tokens[1:]
            elif token.nesting == 1 and token.type.removesuffix("_open") in _HTML_NAMES:
                start = at
                at = _expect(content, at, token.markup)
                children, at, tokens = self._level(content, tokens, spans, at)
                if not tokens:
                    raise _Misread
                at = _expect(content, at, tokens[0].markup)
                source = _Markup(
                    token.type.removesuffix("_open"), content[start : start + len(token.markup)], token.markup
                )
                nodes.append(Pair(source, tuple(children)))
                tokens = tokens[1:]
            else:
                node, at, tokens = self._whole(content, token, tokens, spans, at)
                nodes.append(node)
        return tree.folded(nodes), at, tokens

    def _whole(
        self, content: str, token: Token, tokens: list[Token], spans: dict[int, int], at: int
    ) -> tuple[Node, int, list[Token]]:
        """A token whose source is kept: code, an image, an automatic link, HTML, a footnote mark."""
        end = spans.get(at, -1)
        if end <= at:
            raise _Misread
        source = content[at:end]
        types = [token.type]
        if token.type == "link_open":
            while types[-1] != "link_close" and tokens:
                types.append(tokens[0].type)
                tokens = tokens[1:]
        elif token.type == "footnote_ref" and source.startswith("^["):
            return Pair(_Markup("footnote", "^[", "]"), tuple(self.nodes(source[2:-1]))), end, tokens
        return Leaf(_Source(source, tuple(kind for kind in types if kind not in _WORDS))), end, tokens

    def _reads_as(self, text: str, nodes: Sequence[Node], *, html: bool) -> bool:
        try:
            tokens, _ = self._tokens(text)
        except RecursionError:
            return False
        words = "".join(token.content for token in tokens if token.type in ("text", "text_special"))
        types = [token.type for token in tokens if token.type not in _WORDS]
        return types == _types(nodes, html=html) and " ".join(words.split()) == " ".join(_words(nodes).split())


_WORDS = ("text", "text_special", "softbreak")


def _expect(content: str, at: int, piece: str) -> int:
    if not content.startswith(piece, at):
        raise _Misread
    return at + len(piece)


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
                before, after = inner[: len(inner) - len(inner.lstrip(" "))], inner[len(inner.rstrip(" ")) :]
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


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def _escape_all(text: str) -> str:
    return _PUNCTUATION.sub(lambda match: "\\" + match[0], text)


def _escape_start(line: str) -> str:
    """A line that begins no heading, quotation or list."""
    match = _LINE_START.match(line)
    if not match:
        return line
    at = match.end() - 1 if match[0][0].isdigit() else 0
    return f"{line[:at]}\\{line[at:]}"
