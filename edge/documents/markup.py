"""Units in HTML and XHTML trees, and translations put back into them.

Owns: which elements are blocks, which are never translated; where a unit begins and ends.
Does not know: files and archives; which elements are inline, and how they become a text (`markup_inline.py`).
Units: a run is a stretch of text and inline elements between two blocks; each run with letters is one unit.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lxml import etree

from . import inline as tree
from . import markup_inline as runs
from . import placeholders
from .document import Edition, Kind
from .inline import Inline, Leaf, Node, Pair, Text, names
from .xml import local_name, sibling_name

_SKIPPED = names("head script style svg math template object")
_MEDIA = names("audio canvas embed iframe img input map object picture svg video")
_HEADINGS = frozenset(f"h{level}" for level in range(1, 7))
_CLONED = _HEADINGS | {"p", "div", "blockquote"}
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_HEADINGS, "heading"),
    **dict.fromkeys(("td", "th"), "cell"),
    **dict.fromkeys(("caption", "figcaption"), "caption"),
    **dict.fromkeys(("li", "dt", "dd"), "item"),
    "title": "title",
}
_NOTE_TYPES = names("footnote footnotes endnote endnotes rearnote rearnotes doc-footnote doc-endnote")
_LINE_END = "templora-line-end"  # stands before each further line of a <pre>, until the tree is written
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass(frozen=True, eq=False)
class Piece:
    """One unit's place: the inline content of `parent` after its child `before` (None: from its beginning)."""

    parent: etree._Element
    before: etree._Element | None
    elements: tuple[etree._Element, ...]
    inline: Inline
    kind: Kind

    @property
    def opens_chapter(self) -> bool:
        """Whether a chapter begins here."""
        return self.kind == "heading" and local_name(self.parent) in ("h1", "h2")


# --- reading ---


def check(root: etree._Element, name: str) -> None:
    """Refuses a tree with a paragraph of too many elements.

    Raises:
        InputError: see `inline.check_markup`.
    """
    if sum(1 for _ in root.iter()) <= tree.MOST_MARKUP:
        return
    for parent in root.iter(etree.Element):
        count = 0
        for child in () if runs.is_inline(parent) else parent:
            inner = runs.is_inline(child) and not _is_paragraph_break(child)
            count = count + sum(1 for _ in child.iter()) if inner else 0
            tree.check_markup(count, name)


def pieces(root: etree._Element, *, title: bool) -> list[Piece]:
    """The units of a tree in reading order; with `title`, the document's title comes first."""
    found: list[Piece] = []
    for element in list(root.iter("pre", "{*}pre")):
        if not _is_skipped(element):
            _split_lines(element)
    if title:
        for element in root.iter("title", "{*}title"):
            parent = element.getparent()
            if parent is not None and local_name(parent) == "head":
                found += _piece(element, None, [], _Around(kind="title"))
                break
    found += _walk(root, _Around())
    return found


@dataclass(frozen=True)
class _Around:
    """What the elements around a run say of its kind; handed down, since a run asks for all of them."""

    special: Kind | None = None  # 'toc' or 'footnote': the nearest such element decides
    kind: Kind | None = None

    def within(self, element: etree._Element) -> _Around:
        """The same inside `element`."""
        name = local_name(element)
        special = self.special
        kind = _KINDS.get(name, self.kind)
        if name == "nav":
            special = "toc"
        elif element.attrib and _NOTE_TYPES.intersection(runs.types(element)):
            special = "footnote"
        return self if (special, kind) == (self.special, self.kind) else _Around(special, kind)

    @property
    def of_run(self) -> Kind:
        """The kind of a run."""
        return self.special or self.kind or "paragraph"


def _walk(parent: etree._Element, outer: _Around) -> Iterator[Piece]:
    around = outer.within(parent)
    before: etree._Element | None = None
    run: list[etree._Element] = []
    for child in parent:
        if runs.is_inline(child) and not _is_paragraph_break(child):
            run.append(child)
            continue
        yield from _piece(parent, before, run, around)
        if not _is_skipped(child) and not runs.is_inline(child):
            yield from _walk(child, around)
        before = child
        run = []
    yield from _piece(parent, before, run, around)


def _piece(
    parent: etree._Element, before: etree._Element | None, run: list[etree._Element], around: _Around
) -> Iterator[Piece]:
    lead = parent.text if before is None else before.tail
    if not run and not (lead and tree.has_letter(lead)):
        return
    inline = runs.encode(lead, run, keep_space=_keeps_space(parent))
    if inline is not None:
        yield Piece(parent, before, tuple(run), inline, around.of_run)


def _split_lines(pre: etree._Element) -> None:
    """Makes each line of preformatted text a run of its own."""
    for before in [None, *pre]:
        text = (pre.text if before is None else before.tail) or ""
        first, *others = re.split(r"(?<=\S)(?=[ \t]*\n)", text)
        if not others:
            continue
        _set_text(pre, before, first)
        last = before
        for line in others:
            mark = pre.makeelement(_LINE_END)
            _insert(pre, last, mark)
            mark.tail = line
            last = mark


def _is_paragraph_break(element: etree._Element) -> bool:
    """One of two line breaks with nothing between them, which many texts use for paragraphs."""
    if local_name(element) != "br":
        return False
    after = element.getnext()
    previous = element.getprevious()
    if after is not None and local_name(after) == "br" and not (element.tail or "").strip():
        return True
    return previous is not None and local_name(previous) == "br" and not (previous.tail or "").strip()


def _is_skipped(element: etree._Element) -> bool:
    if local_name(element) in _SKIPPED or runs.is_untranslated(element):
        return True
    return local_name(element) == "pre" and any(local_name(child) in ("code", "samp", "kbd") for child in element)


def _keeps_space(element: etree._Element) -> bool:
    space = "{http://www.w3.org/XML/1998/namespace}space"
    return local_name(element) == "pre" or element.get(space) == "preserve"


# --- writing ---


def apply(found: Sequence[tuple[Piece, str | None]], edition: Edition) -> bool:
    """Puts translations into the tree that `found` was read from; whether anything was changed.

    Pieces are written from the last to the first, so that what is inserted never shifts what is still to come.
    """
    changed = False
    for piece, translated in reversed(found):
        if translated is None:
            continue
        changed = True
        has_ruby = runs.has_ruby(piece.elements)
        kept = tree.kept(piece.inline.text, translated) if has_ruby else None
        if not edition.bilingual and kept is not None:
            _write_around(piece, before=kept)
        elif not edition.bilingual:
            _place(piece.parent, piece.before, piece.elements, piece.inline.fill(translated))
            _mark(piece.parent, edition, only_if_there=True)
        elif piece.kind in ("toc", "title") and has_ruby:
            _write_around(piece, after=f" / {placeholders.plain(translated)}")
        elif piece.kind in ("toc", "title"):
            both = f"{piece.inline.text} / {placeholders.plain(translated)}"
            _place(piece.parent, piece.before, piece.elements, piece.inline.fill(both))
        else:
            _add_below(piece, translated, edition)
    if found:
        etree.strip_tags(found[0][0].parent.getroottree(), _LINE_END)
    return changed


def set_language(root: etree._Element, edition: Edition) -> None:
    """Changes the language and the direction of a whole document; a bilingual one keeps its own."""
    if edition.language is None or edition.bilingual:
        return
    is_html = root.tag == "html"
    if is_html or root.get("lang") is not None or root.get(_XML_LANG) is None:
        root.set("lang", edition.language)
    if not is_html:
        root.set(_XML_LANG, edition.language)
    for element in [root, *(child for child in root if local_name(child) == "body")]:
        if element.get("dir") is not None or (element is root and edition.right_to_left):
            element.set("dir", "rtl" if edition.right_to_left else "ltr")


def language(root: etree._Element) -> str | None:
    """The language that a document's root names."""
    return root.get(_XML_LANG) or root.get("lang")


def _place(
    parent: etree._Element,
    before: etree._Element | None,
    elements: Sequence[etree._Element],
    nodes: Sequence[Node],
) -> None:
    """Replaces a run by the written nodes, moving the source's own elements to their new places."""
    for element in elements:
        parent.remove(element)
    last = before
    texts: list[str] = []  # what follows `last`: joined once, as it may be in as many pieces as it has characters
    for node in nodes:
        if isinstance(node, Text):
            texts.append(node.value)
            continue
        if isinstance(node, Leaf) and isinstance(node.source, str):
            texts.append(node.source)
            continue
        assert isinstance(node, (Leaf, Pair)) and isinstance(node.source, etree._Element)
        element = node.source
        element.tail = None
        if isinstance(node, Pair):
            _place(element, None, list(element), node.children)
        _set_text(parent, last, "".join(texts) or None)
        texts.clear()
        _insert(parent, last, element)
        last = element
    _set_text(parent, last, "".join(texts) or None)


def _write_around(piece: Piece, *, before: str = "", after: str = "") -> None:
    """Leaves the source as it is, with texts around its words: inside the markup that is around all of them."""
    parent = piece.parent
    last = piece.before
    elements: Sequence[etree._Element] = piece.elements
    lead = parent.text if last is None else last.tail
    while len(elements) == 1 and not f"{lead or ''}{elements[0].tail or ''}".strip() and runs.is_pair(elements[0]):
        parent = elements[0]
        last = None
        elements = list(parent)
        lead = parent.text
    _set_text(parent, last, before + (lead or ""))
    end = elements[-1] if elements else last
    _set_text(parent, end, ((parent.text if end is None else end.tail) or "") + after)


def _insert(parent: etree._Element, last: etree._Element | None, element: etree._Element) -> None:
    """Puts `element` after `last` and after the text that follows `last`."""
    if last is None:
        parent.insert(0, element)
    else:
        text = last.tail
        last.addnext(element)
        last.tail = text
        element.tail = None


def _set_text(parent: etree._Element, last: etree._Element | None, text: str | None) -> None:
    if last is None:
        parent.text = text
    else:
        last.tail = text


def _add_below(piece: Piece, translated: str, edition: Edition) -> None:
    """The translation as a paragraph after its source, or on a new line where the source is part of a larger block."""
    parent = piece.parent
    nodes = _copied(piece.inline.fill(translated, keep=_is_repeated))
    is_all = piece.before is None and len(piece.elements) == len(parent)  # no block besides
    if local_name(parent) in _CLONED and is_all and parent.getparent() is not None:
        clone = runs.bare_copy(parent)
        tail = parent.tail
        parent.addnext(clone)
        clone.tail = tail
        parent.tail = tail if not (tail or "").strip() else None
        _place(clone, None, (), nodes)
        _mark(clone, edition)
        return
    line_break = parent.makeelement(sibling_name(parent, "br"))
    span = parent.makeelement(sibling_name(parent, "span"))
    _mark(span, edition)
    last = piece.elements[-1] if piece.elements else piece.before
    _insert(parent, last, line_break) if last is not None else _insert_after_text(parent, line_break)
    _insert(parent, line_break, span)
    _place(span, None, (), nodes)


def _insert_after_text(parent: etree._Element, element: etree._Element) -> None:
    text = parent.text
    parent.insert(0, element)
    parent.text = text
    element.tail = None


def _copied(nodes: Sequence[Node]) -> list[Node]:
    """The nodes with copies of their elements, without ids, which may be in a document only once."""
    result: list[Node] = []
    for node in nodes:
        if isinstance(node, Pair) and isinstance(node.source, etree._Element):
            result.append(Pair(runs.bare_copy(node.source), tuple(_copied(node.children))))
        elif isinstance(node, Leaf) and isinstance(node.source, etree._Element):
            element = copy.deepcopy(node.source)
            for inner in element.iter(etree.Element):
                inner.attrib.pop("id", None)
            result.append(Leaf(element))
        else:
            result.append(node)
    return result


def _is_repeated(leaf: Leaf) -> bool:
    element = leaf.source
    return isinstance(element, etree._Element) and local_name(element) not in _MEDIA and isinstance(element.tag, str)


def _mark(element: etree._Element, edition: Edition, *, only_if_there: bool = False) -> None:
    """Language and direction of a translated element, in the attributes that its kind of document uses."""
    if edition.language is None:
        return
    names = ["lang"] if "}" not in str(element.tag) else ["lang", _XML_LANG]
    for name in names:
        if not only_if_there or element.get(name) is not None:
            element.set(name, edition.language)
    if element.get("dir") is not None or (edition.right_to_left and not only_if_there):
        element.set("dir", "rtl" if edition.right_to_left else "ltr")
