"""What stands in a paragraph of HTML or XHTML, as an inline tree.

Owns: which elements are inline, which of them are things without text, what of a ruby is text.
Does not know: blocks, units, how a tree is written.
Units: characters.

The words of a ruby are read without marks, and without their reading: that is for readers of the source alone. What
a reading holds besides stays: a link goes around the words, or behind them where it is the mark of a note; for each id
that is gone with its element an empty one stands before the text.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

from lxml import etree

from . import inline as tree
from .inline import Inline, Leaf, Node, Pair, Text, names
from .xml import local_name, sibling_name

_VOID = names(
    "audio br button canvas code embed iframe img input kbd map math noscript object picture rp rt samp "
    "script select style svg template textarea tt var video wbr"
)
_INLINE = _VOID | names(
    "a abbr acronym b bdi bdo big cite data del dfn em font i ins label mark meter nobr output progress q "
    "rb rbc rtc ruby s small span strike strong sub sup time u"
)
_READINGS = names("rp rt rtc")
_BASES = names("rb rbc")
_PAGE_TYPES = names("pagebreak page-list doc-pagebreak doc-pagelist")  # numbers of a printed edition's pages
_EPUB_TYPE = "{http://www.idpf.org/2007/ops}type"


def is_inline(element: etree._Element) -> bool:
    """Whether an element and all in it may stand in a paragraph."""
    if not isinstance(element.tag, str):
        return True
    name = local_name(element)
    return name in _VOID or (name in _INLINE and all(is_inline(child) for child in element))


def is_untranslated(element: etree._Element) -> bool:
    """Whether an element is marked as none to translate, or holds the number of a printed page."""
    if element.attrib and _PAGE_TYPES.intersection(types(element)):
        return True
    return element.get("translate") == "no" or "notranslate" in (element.get("class") or "").split()


def types(element: etree._Element) -> list[str]:
    """What EPUB and ARIA call the element."""
    return f"{element.get(_EPUB_TYPE) or ''} {element.get('epub:type') or ''} {element.get('role') or ''}".split()


def is_pair(element: etree._Element) -> bool:
    """Whether an element of a paragraph is markup around its text."""
    name = local_name(element)
    return name not in _VOID and name not in ("", "ruby") and not is_untranslated(element)


def has_ruby(elements: Sequence[etree._Element]) -> bool:
    """Whether a ruby is among the elements or in one of them."""
    return any(next(element.iter("{*}ruby"), None) is not None for element in elements)


def encode(lead: str | None, elements: Sequence[etree._Element], *, keep_space: bool) -> Inline | None:
    """The text of a run, `lead` before its elements; None when it holds nothing to translate."""
    reader = _Reader(keep_space)
    return tree.encode(reader.nodes(lead, elements), reader.targets)


def bare_copy(element: etree._Element) -> etree._Element:
    """An element with the same attributes and nothing in it; without its id, which may be in a document only once."""
    clone = copy.copy(element)
    for child in list(clone):
        clone.remove(child)
    clone.text = clone.tail = None
    clone.attrib.pop("id", None)
    return clone


class _Reader:
    """Reads one run; its `targets` are what stands for the ids of elements that are not written."""

    def __init__(self, keep_space: bool) -> None:
        self.targets: list[Leaf] = []
        self._keep_space = keep_space

    def nodes(self, lead: str | None, elements: Sequence[etree._Element]) -> list[Node]:
        """The nodes of one level."""
        nodes = list(self._level(lead, elements))
        return nodes if self._keep_space else tree.folded(nodes)

    def _level(self, lead: str | None, elements: Sequence[etree._Element]) -> Iterator[Node]:
        if lead:
            yield Text(lead)
        for element in elements:
            if is_pair(element):
                yield Pair(element, tuple(self.nodes(element.text, list(element))))
            elif local_name(element) == "ruby" and not is_untranslated(element):
                yield from self._words(element)
            else:
                yield Leaf(element)
            if element.tail:
                yield Text(element.tail)

    def _words(self, ruby: etree._Element) -> list[Node]:
        """What of a ruby, or of an element for its words, stands in the paragraph."""
        self._target(ruby)
        words: list[Node] = [Text(ruby.text)] if ruby.text else []
        begin = 0  # of the words that the next reading is of
        for child in ruby:
            name = local_name(child)
            if name in _READINGS:
                if links := self._links(child, words):
                    words[begin:] = self._linked(words[begin:], links)
                begin = len(words)
            elif name in _BASES and not is_untranslated(child):
                words += self._words(child)
            else:
                words += self._level(None, [child])
                continue  # what follows it is there
            if child.tail:
                words.append(Text(child.tail))
        return words

    def _links(self, reading: etree._Element, words: list[Node]) -> list[etree._Element]:
        """The links of a reading; words that are in it, too, are added to `words`."""
        self._target(reading)
        links: list[etree._Element] = []
        for child in reading:
            if local_name(child) in _BASES:  # what HTML leaves unclosed holds for its parser what follows
                words += self._words(child)
            elif local_name(child) == "a" and child.get("href"):
                links.append(child)
            else:
                links += self._links(child, words)
        return links

    def _linked(self, words: list[Node], links: list[etree._Element]) -> list[Node]:
        """Words with the links of their reading: one with letters goes around them, others stand behind them."""
        named = (link for link in links if tree.has_letter("".join(link.itertext())))
        around = next(named, None) if _may_be_linked(words) else None
        behind = [Leaf(link) for link in links if link is not around]
        if around is None:
            return [*words, *behind]
        for element in around.iter():
            self._target(element)
        bare = bare_copy(around)
        bare.attrib.pop("name", None)
        return [Pair(bare, tuple(words)), *behind]

    def _target(self, element: etree._Element) -> None:
        value = element.get("id") or element.get("name") if isinstance(element.tag, str) else None
        if value and value.isprintable():  # a span without text may not stand in EPUB's tables of contents
            self.targets.append(Leaf(element.makeelement(sibling_name(element, "i"), {"id": value})))


def _may_be_linked(nodes: Sequence[Node]) -> bool:
    """Whether there are words among the nodes, and no link."""
    flat = list(_flat(nodes))
    is_linked = any(isinstance(node, Pair) and local_name(node.source) == "a" for node in flat)
    return not is_linked and any(isinstance(node, Text) and node.value.strip() for node in flat)


def _flat(nodes: Sequence[Node]) -> Iterator[Node]:
    for node in nodes:
        yield node
        if isinstance(node, Pair):
            yield from _flat(node.children)
