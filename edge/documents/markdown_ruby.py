"""Ruby that a Markdown text has as HTML: its words are read as text, without their reading.

Owns: where a ruby begins and ends among nodes, what of it stays.
Does not know: tokens, blocks; how a node is written.
Units: nodes of one level, each tag of HTML a thing.

Of a reading links and the marks of notes stay, behind its words; an empty element stands for each id that is gone with
its tag.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from .inline import Leaf, Node, Pair

_TAG = re.compile(r"<(/?)(ruby|rbc?|rtc?|rp)\b[^<>]*>", re.IGNORECASE)
_LINK = re.compile(r"<a\s[^<>]*\bhref\b", re.IGNORECASE)
_ID = re.compile(r"""\s(?:id|name)\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+)""", re.IGNORECASE)


def words(nodes: Sequence[Node], targets: list[str]) -> Iterator[Node]:
    """The nodes with the words of each ruby in its place; what stands for ids that are gone is added to `targets`."""
    ends = _ends(nodes)
    at = 0
    while at < len(nodes):
        end = ends.get(at, at)
        if end > at:
            yield from _of_ruby(nodes[at : end + 1], targets)
        else:
            yield nodes[at]
        at = end + 1


def _ends(nodes: Sequence[Node]) -> dict[int, int]:
    """Where each ruby ends that does, by where it begins."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    for at, node in enumerate(nodes):
        tag = _TAG.fullmatch(_html(node))
        if tag is None or tag[2].lower() != "ruby":
            continue
        if not tag[1]:
            opened.append(at)
        elif opened:
            ends[opened.pop()] = at
    return ends


def _of_ruby(nodes: Sequence[Node], targets: list[str], *, reads: bool = False) -> Iterator[Node]:
    """What of a ruby stays, or of a part of its reading."""
    links = False  # whether it is in a link of a reading
    for node in nodes:
        html = _html(node)
        tag = _TAG.fullmatch(html)
        if tag:
            reads = not tag[1] and tag[2].lower() in ("rt", "rtc", "rp")
            links = False
            targets += _target(html)
        elif not reads or links or _LINK.match(html):
            links = reads and not html.lower().startswith("</a")
            yield node
        elif isinstance(node, Pair) and getattr(node.source, "name", "") in ("em", "strong", "s"):
            yield from _of_ruby(node.children, targets, reads=True)
        elif isinstance(node, Pair) or "footnote_ref" in _types(node):
            yield node
        else:
            targets += _target(html)


def _target(tag: str) -> list[str]:
    """What stands for the id of a tag."""
    found = _ID.search(tag)
    return [f"<i id={found[1]}></i>"] if found else []


def _html(node: Node) -> str:
    """A tag as it is written; nothing for other nodes."""
    return str(getattr(node.source, "text", "")) if isinstance(node, Leaf) and "html_inline" in _types(node) else ""


def _types(node: Node) -> tuple[str, ...]:
    types: tuple[str, ...] = getattr(getattr(node, "source", None), "types", ())
    return types
