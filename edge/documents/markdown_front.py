"""Front matter of Markdown: settings before the text, in YAML, TOML or JSON.

Owns: where it ends; which of its values are words for readers; writing a value so that it is read as it was meant.
Does not know: what follows it.
Units: character offsets into the source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from . import inline as tree
from .inline import Inline, Leaf, Node, Text

_TOML = re.compile(r"\+\+\+[ \t]*\r?\n(?:.*\r?\n)*?\+\+\+[ \t]*(?:\r?\n|\Z)")
_JSON = re.compile(r"\{[ \t]*\r?\n(?:[^}].*\r?\n|\r?\n)*?\}[ \t]*(?:\r?\n|\Z)")
_KEYS = "(?:title|description|subtitle|summary|abstract)"
_VALUE = re.compile(
    rf"""^(?P<start>{_KEYS}[ \t]*[:=][ \t]*)"""
    r"""(?:"(?P<double>(?:[^"\\\r\n]|\\.)*)"|'(?P<single>(?:[^'\r\n]|'')*)'|(?P<bare>[^\s"'#>|&*!%@`{}\[\]][^\r\n]*?))"""
    r"""(?=[ \t]*(?:\r?\n(?![ \t]+[^\s#])|\Z)|[ \t]+#)""",  # not where a value continues below
    re.MULTILINE,
)
# a value of YAML that stands below its key: folded, so that a line end is a space, or line by line
_BLOCK = re.compile(
    rf"^{_KEYS}[ \t]*:[ \t]+(?P<style>[|>])[+-]?(?P<indent>[1-9]?)[+-]?(?:[ \t]+#[^\r\n]*|[ \t]*)\r?\n"
    r"(?P<body>(?:[ \t]*\r?\n|[ ][^\r\n]*(?:\r?\n|\Z))*+)",
    re.MULTILINE,
)
_LINE = re.compile(
    r"(?P<indent> *)(?P<mark>[ \t]*(?:(?:[-*+>]|#{1,6}|\d{1,9}[.)])[ \t]+)*)(?P<words>[^\r\n]*)(?:\r?\n|\Z)"
)
_PLAIN = re.compile(r"[^\W\d_][^:#\r\n\\\"']*[^\s:#\r\n\\\"']")  # needs no quotes in YAML, nor looks like a number
_BELOW = ("|", ">")
_KEYWORDS = frozenset(["true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"])


@dataclass(frozen=True)
class Value:
    """A value in words: source[start:end] with its quotes, which are `quote`; of a value below its key one paragraph,
    and `quote` is how the value is marked there.
    """

    start: int
    end: int
    quote: str
    inline: Inline

    def written(self, nodes: list[Node]) -> str:
        """The value of a translation, in the quotes that it had where they can hold it."""
        text = "".join(str(n.value if isinstance(n, Text) else n.source) for n in nodes if isinstance(n, Text | Leaf))
        if self.quote in _BELOW:
            return text
        bare = not self.quote and _PLAIN.fullmatch(text) is not None and text.casefold() not in _KEYWORDS
        if bare or (self.quote == "'" and "'" not in text):
            return f"{self.quote}{text}{self.quote}"
        return json.dumps(text, ensure_ascii=False)


def toml_or_json(text: str) -> str:
    """Front matter that CommonMark's readers do not know, or an empty string."""
    found = _TOML.match(text) or _JSON.match(text)
    if found is None:
        return ""
    if text.startswith("{"):
        try:
            json.loads(found[0])
        except (ValueError, RecursionError):
            return ""
    return found[0]


def values(front: str) -> list[Value]:
    """The values of `front` that readers see, in their order: titles and descriptions of the page itself.

    One that stands below its key gives a value for each of its paragraphs, and for each item of a list.
    """
    table = re.search(r"^\[", front, re.MULTILINE) if front.startswith("+++") else None
    found: list[Value] = []
    for match in _VALUE.finditer(front, 0, table.start() if table else len(front)):
        quote = '"' if match["double"] is not None else "'" if match["single"] is not None else ""
        text = match[{'"': "double", "'": "single", "": "bare"}[quote]]
        if quote == '"':
            try:
                text = json.loads(f'"{text}"')
            except ValueError:
                continue  # an escape of YAML's or TOML's own
        elif quote and match["start"].rstrip().endswith(":"):
            text = text.replace("''", "'")
        elif quote and "''" in text:
            continue  # TOML's literal over several lines
        elif not quote and not match["start"].rstrip().endswith(":"):
            continue  # TOML has no bare words
        inline = tree.encode([Text(text)])
        if inline is not None and (quote or text.casefold() not in _KEYWORDS):
            found.append(Value(match.end("start"), match.end(), quote, inline))
    if front.startswith("---"):
        found += _below(front)
    return sorted(found, key=attrgetter("start"))


def _below(front: str) -> Iterator[Value]:
    for block in _BLOCK.finditer(front):
        for start, end in _paragraphs(block):
            inline = tree.encode([Text(tree.fold(block["body"][start:end]))])
            if inline is not None:
                before = block.start("body")
                yield Value(before + start, before + end, block["style"], inline)


def _paragraphs(block: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Where the paragraphs of a value below its key begin and end, without the marks of Markdown that they begin with.

    Where line ends are kept, such a mark begins another one, and a hard line end ends one. Where they are folded, only
    a line that is indented further stays a line.
    """
    folded = block["style"] == ">"
    indent = int(block["indent"] or 0)
    start = end = -1  # of the paragraph so far
    ended = False
    for line in _LINE.finditer(block["body"]):
        blank = not line[0].strip()
        if not blank:
            indent = indent or len(line["indent"])
            if len(line["indent"]) < indent:
                break  # a comment below the value
        further = len(line["indent"]) > indent or line["mark"][:1] == "\t"
        if start >= 0 and (blank or ended or (further if folded else line["mark"].strip())):
            yield start, end
            start = -1
        if blank:
            continue
        start = line.start("words") if start < 0 else start
        ended = further if folded else line["words"].endswith(("  ", "\\"))
        words = line["words"].rstrip()
        end = line.start("words") + len(words.removesuffix("\\") if ended else words)
    if start >= 0:
        yield start, end
