"""HTML and XHTML files.

Owns: their encoding, whether they are read as XML or as HTML, how they are written again.
Does not know: how units are cut (`markup.py`).
Units: bytes.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import BinaryIO

from lxml import etree

from ..errors import InputError
from . import files, markup, xml
from .document import Document, Edition, Numbering

_META_CHARSET = re.compile(rb"""<meta\s[^<>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_XML_CHARSET = re.compile(rb"""^\s*<\?xml\s[^<>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:-]{1,40})["']""")
_WHOLE = re.compile(r"<(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_HEAD = 4096  # bytes in which a charset is looked for


class Html(Document):
    """One HTML file. Its title is its first unit; h1 and h2 open chapters."""

    format = "html"

    def __init__(self, path: Path, data: bytes) -> None:
        """Reads the file.

        Raises:
            InputError: its encoding is not what it says, it cannot be parsed, or it holds no text.
        """
        self._data = data
        self._name = str(path)
        self._text, self._encoding = _decode(data, self._name)
        self._is_xml = self._text.lstrip().startswith("<?xml") or "http://www.w3.org/1999/xhtml" in self._text[:_HEAD]
        xml.check_amount(len(data), xml.count_paragraphs(data), self._name)
        root = self._tree()
        numbering = Numbering()
        for piece in markup.pieces(root, title=True):
            numbering.add(piece.inline, piece.kind, opens_chapter=piece.opens_chapter)
        if not numbering.units:
            raise InputError(f"{path} holds no text", "a page with text in it", "name another file")
        super().__init__(path, numbering.units, markup.language(root))

    def _tree(self) -> etree._Element:
        """The file's tree; XHTML that is not well-formed is read as HTML, as browsers do with .html files."""
        if self._is_xml:
            try:
                return xml.parse(self._data, self._name, named_entities=True)
            except InputError:
                self._is_xml = False
        return xml.parse_html(self._text, self._name)

    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        root = self._tree()
        found = [
            (piece, edition.get(unit)) for piece, unit in zip(markup.pieces(root, title=True), self.units, strict=True)
        ]
        markup.apply(found, edition)
        markup.set_language(root, edition)
        if self._is_xml:
            stream.write(xml.serialise(root, declaration=self._text.lstrip().startswith("<?xml")))
            return
        text = etree.tostring(root.getroottree(), method="html", encoding="unicode")
        if not _WHOLE.search(self._text):
            body = root.find("body")
            text = _inner(body) if body is not None else text
        end = "\n" if self._text.endswith("\n") and not text.endswith("\n") else ""
        stream.write(_bom(self._data) + (text + end).encode(self._encoding, "xmlcharrefreplace"))


def _inner(body: etree._Element) -> str:
    """A fragment's own content, without the elements that the parser put around it."""
    parts = [body.text or ""]
    parts += [etree.tostring(child, method="html", encoding="unicode") for child in body]
    parts[0] = parts[0].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(parts)


def _bom(data: bytes) -> bytes:
    for mark in (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        if data.startswith(mark):
            return mark
    return b""


def _decode(data: bytes, name: str) -> tuple[str, str]:
    """The text and the encoding: by byte order mark, then as declared, then UTF-8."""
    mark = _bom(data)
    declared = _XML_CHARSET.search(data[:_HEAD]) or _META_CHARSET.search(data[:_HEAD])
    if mark and mark != codecs.BOM_UTF8:
        encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    elif mark or declared is None:
        encoding = "utf-8"
    else:
        encoding = declared[1].decode("ascii").lower()
    try:
        if encoding in ("utf-8", "utf8"):
            return files.decode(data, name), "utf-8"
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
        text = data[len(mark) :].decode(encoding)
    except (LookupError, UnicodeError) as error:
        raise InputError(
            f"{name} is not in the encoding that it names, {encoding}", "text in that encoding", "convert it to UTF-8"
        ) from error
    if "\0" in text or not text.strip():
        raise InputError(f"{name} holds no text", "a page with text in it", "name another file")
    return text, encoding
