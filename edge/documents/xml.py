"""XML and HTML trees without the dangers of their parsers.

Owns: parser settings (no entities, no network, no huge trees), depth and size limits, serialising.
Does not know: what the elements mean.
Units: bytes; depth in elements.
"""

from __future__ import annotations

import functools
import html.entities
import re
from typing import Any, cast

from lxml import etree

from ..errors import InputError
from ..values.amounts import format_bytes
from .files import MARKUP_LIMIT
from .inline import names

XHTML = "http://www.w3.org/1999/xhtml"
MAX_DEPTH = 128
MAX_PARAGRAPHS = 200_000  # of one marked-up document: ten times a long novel's, and seconds to read
_PARAGRAPH = re.compile(rb"</(?:[\w.-]{1,20}:)?(?:p|li|td|th|dt|dd|div|h[1-6]|text|tr)\s*>|<p\s*/>|<br", re.IGNORECASE)
_ENTITY = re.compile(rb"&([A-Za-z][A-Za-z0-9]{1,31});")
_ILLEGAL = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")
_XML_ENTITIES = (b"amp", b"lt", b"gt", b"quot", b"apos")
_EMPTY_TAGS = names("area base br col embed hr img input link meta param source track wbr")


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        recover=False,
        strip_cdata=False,
    )


def count_paragraphs(data: bytes) -> int:
    """About how many paragraphs a document will have, without reading it."""
    return sum(1 for _ in _PARAGRAPH.finditer(data))


def check_amount(size: int, paragraphs: int, name: str) -> None:
    """Refuses a document that would take minutes to read: its texts together, and its paragraphs.

    Raises:
        InputError: more than `MARKUP_LIMIT` bytes or `MAX_PARAGRAPHS` paragraphs.
    """
    if size > MARKUP_LIMIT:
        got = f"{name} holds {format_bytes(size)} of marked-up text"
        expected = f"at most {format_bytes(MARKUP_LIMIT)}"
    elif paragraphs > MAX_PARAGRAPHS:
        got = f"{name} holds about {paragraphs} paragraphs"
        expected = f"at most {MAX_PARAGRAPHS} in one document"
    else:
        return
    raise InputError(got, expected, "split it into smaller files")


def parse(data: bytes, name: str, *, named_entities: bool = False) -> etree._Element:
    """The root element of an XML document.

    Args:
        data: the document.
        name: its name, for errors.
        named_entities: read HTML's entities (&nbsp;) as their characters, as reading systems do.

    Raises:
        InputError: it is too large, nested too deeply, or not well-formed.
    """
    _check_size(data, name)
    if named_entities:
        data = _ENTITY.sub(_numeric, data)
    try:
        root = etree.fromstring(data, _parser())
    except (etree.LxmlError, ValueError, LookupError) as error:
        raise InputError(
            f"{name} is not well-formed XML ({_first_line(error)})", "a sound document", "repair it in an editor"
        ) from error
    if root is None:
        raise InputError(f"{name} holds no XML element", "a sound document", "repair it in an editor")
    _check_depth(root, name)
    return root


def parse_html(text: str, name: str) -> etree._Element:
    """The root element of an HTML document, read as browsers read it: what is missing is added.

    Raises:
        InputError: it is too large, nested too deeply, or holds no element at all.
    """
    data = text.encode("utf-8", "replace")
    _check_size(data, name)
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, huge_tree=False, recover=True, remove_blank_text=False)
    try:
        root = etree.fromstring(data, parser)
    except (etree.LxmlError, ValueError) as error:
        raise InputError(
            f"{name} is not readable HTML ({_first_line(error)})", "a sound document", "repair it in an editor"
        ) from error
    if root is None:
        raise InputError(f"{name} holds no HTML element", "a sound document", "repair it in an editor")
    for entry in parser.error_log:
        if entry.level_name == "FATAL":
            raise InputError(
                f"{name} is not readable HTML to its end (line {entry.line}: {entry.message.strip()})",
                "a sound document",
                "repair it in an editor",
            )
    _check_depth(root, name)
    for element in root.iter():  # this parser lets through what no tree may be given again
        if element.text and _ILLEGAL.search(element.text):
            element.text = _ILLEGAL.sub("", element.text)
        if element.tail and _ILLEGAL.search(element.tail):
            element.tail = _ILLEGAL.sub("", element.tail)
    return root


def serialise(root: etree._Element, *, declaration: bool = True) -> bytes:
    """The document of `root` as UTF-8 XML, with its document type; empty XHTML elements keep their end tags."""
    for element in root.iter(f"{{{XHTML}}}*"):
        if not len(element) and element.text is None and local_name(element) not in _EMPTY_TAGS:
            element.text = ""  # <a id="x"></a>: some reading systems take <a/> for an unclosed tag
    tree = root.getroottree()
    options: dict[str, Any] = {"standalone": True} if declaration and tree.docinfo.standalone else {}
    return cast(bytes, etree.tostring(tree, encoding="UTF-8", xml_declaration=declaration, **options))


def local_name(element: etree._Element) -> str:
    """An element's name without its namespace, in lower case; '' for comments, instructions and entities."""
    tag = element.tag
    return _bare(tag) if isinstance(tag, str) else ""


@functools.lru_cache(1000)
def _bare(tag: str) -> str:
    return tag.rpartition("}")[2].lower()


def sibling_name(element: etree._Element, name: str) -> str:
    """`name` in the namespace of `element`."""
    space, brace, _ = str(element.tag).rpartition("}")
    return f"{space}{brace}{name}"


def _numeric(match: re.Match[bytes]) -> bytes:
    characters = html.entities.html5.get(match[1].decode("ascii") + ";")
    if match[1] in _XML_ENTITIES or characters is None:
        return match[0]
    return "".join(f"&#{ord(char)};" for char in characters).encode("ascii")


def _check_size(data: bytes, name: str) -> None:
    if len(data) > MARKUP_LIMIT:
        raise InputError(
            f"{name} is larger than {format_bytes(MARKUP_LIMIT)}",
            f"at most {format_bytes(MARKUP_LIMIT)} in one marked-up text",
            "split it into smaller files",
        )


def _check_depth(root: etree._Element, name: str) -> None:
    depth = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > MAX_DEPTH:
            raise InputError(
                f"{name} is nested deeper than {MAX_DEPTH} elements", "a sound document", "repair it in an editor"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
