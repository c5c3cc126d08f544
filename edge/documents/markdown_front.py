"""Front matter of Markdown: settings before the text, in YAML, TOML or JSON.

Owns: where it ends; which of its values are words for readers; writing a value so that it is read as it was meant.
Does not know: what follows it.
Units: character offsets into the source.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from . import inline as tree
from .inline import Inline, Leaf, Node, Text

_TOML = re.compile(r"\+\+\+[ \t]*\r?\n(?:.*\r?\n)*?\+\+\+[ \t]*(?:\r?\n|\Z)")
_JSON = re.compile(r"\{[ \t]*\r?\n(?:[^}].*\r?\n|\r?\n)*?\}[ \t]*(?:\r?\n|\Z)")
_VALUE = re.compile(
    r"""^(?P<start>(?:title|description|subtitle|summary)[ \t]*[:=][ \t]*)"""
    r"""(?:"(?P<double>(?:[^"\\\r\n]|\\.)*)"|'(?P<single>(?:[^'\r\n]|'')*)'|(?P<bare>[^\s"'#>|&*!%@`{}\[\]][^\r\n]*?))"""
    r"""(?=[ \t]*(?:\r?\n(?![ \t]+[^\s#])|\Z)|[ \t]+#)""",  # not where a value continues below
    re.MULTILINE,
)
_PLAIN = re.compile(r"[^\W\d_][^:#\r\n\\\"']*[^\s:#\r\n\\\"']")  # needs no quotes in YAML, nor looks like a number
_KEYWORDS = frozenset(["true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"])


@dataclass(frozen=True)
class Value:
    """A value in words: source[start:end] with its quotes, which are `quote`."""

    start: int
    end: int
    quote: str
    inline: Inline

    def written(self, nodes: list[Node]) -> str:
        """The value of a translation, in the quotes that it had where they can hold it."""
        text = "".join(str(n.value if isinstance(n, Text) else n.source) for n in nodes if isinstance(n, Text | Leaf))
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
    """The values of `front` that readers see: titles and descriptions of the page itself, on one line."""
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
    return found
