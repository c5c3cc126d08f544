"""HTML and XHTML files.

Owns: their encoding, whether they are read as XML or as HTML, how they are written again.
Does not know: how units are cut (`markup.py`).
Units: bytes.
"""

from __future__ import annotations

import codecs
import re
import secrets
from pathlib import Path
from typing import BinaryIO

from lxml import etree

from ..errors import InputError
from . import files, markup, xml
from .document import Document, Edition, Numbering

_META_CHARSET = re.compile(rb"""<meta\s[^<>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_XML_CHARSET = re.compile(rb"""^\s*<\?xml\s[^<>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9_.:-]{1,40})["']""")
_WHOLE = re.compile(r"<(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_DOCTYPE = re.compile(r"<!doctype\b", re.IGNORECASE)
# labels that mean more than they say, as browsers read them (https://encoding.spec.whatwg.org/#names-and-labels)
_BROWSERS = {
    **dict.fromkeys(("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii", "iso8859-1", "l1", "cp819"), "cp1252"),
    **dict.fromkeys(("gb2312", "gb_2312-80", "x-gbk", "gbk", "chinese", "csgb2312"), "gb18030"),
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "ms_kanji"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987", "ksc5601", "korean"), "cp949"),
    **dict.fromkeys(("iso-8859-9", "latin5"), "cp1254"),
    **dict.fromkeys(("iso-8859-11", "tis-620"), "cp874"),
    "big5": "big5hkscs",
}
_ADDRESSES = ("href", "src", "action", "name")  # what libxml2 escapes again, templates and blanks in them too
_SAFE = re.compile(r"[A-Za-z0-9_.~!*'();:@=+$,/?#-]*")
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
        self._declares = bool(_bom(data)) or _META_CHARSET.search(data[:_HEAD]) is not None
        self._is_xml = self._text.lstrip().startswith("<?xml") or "http://www.w3.org/1999/xhtml" in self._text[:_HEAD]
        xml.check_amount(len(data), xml.count_paragraphs(data), self._name)
        root = self._tree()
        markup.check(root, self._name)
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
        whole = _WHOLE.search(self._text) is not None
        if whole and not self._declares:
            _declare(root)
        kept = _hidden_addresses(root)
        text = etree.tostring(
            root.getroottree() if _DOCTYPE.search(self._text) else root,
            method="html",
            encoding="unicode",
            with_tail=False,
        )
        if not whole:
            body = root.find("body")
            text = _inner(body) if body is not None else text
        text = _shown_addresses(text, kept)
        end = "\n" if self._text.endswith("\n") and not text.endswith("\n") else ""
        stream.write(_bom(self._data) + (text + end).encode(self._encoding, "xmlcharrefreplace"))


def _declare(root: etree._Element) -> None:
    """Names the encoding that is written, where the source had none and needed none."""
    head = root.find("head")
    if head is None:
        head = root.makeelement("head")
        root.insert(0, head)
    head.insert(0, head.makeelement("meta", {"charset": "utf-8"}))


def _hidden_addresses(root: etree._Element) -> dict[str, str]:
    """Puts a mark in the place of each address that a serialiser would change; mark -> address."""
    kept: dict[str, str] = {}
    prefix = f"templora{secrets.token_hex(8)}x"
    for element in root.iter(etree.Element):
        for name in _ADDRESSES:
            value = element.get(name)
            if value and not _SAFE.fullmatch(value):
                mark = f"{prefix}{len(kept)}x"
                kept[mark] = value
                element.set(name, mark)
    return kept


def _shown_addresses(text: str, kept: dict[str, str]) -> str:
    if not kept:
        return text
    prefix = next(iter(kept))[:-2]
    return re.sub(rf"{prefix}\d+x", lambda match: _escaped(kept[match[0]]), text)


def _escaped(value: str) -> str:
    """An attribute's value between double quotes."""
    return value.replace("&", "&amp;").replace('"', "&quot;")


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
        encoding = _BROWSERS.get(encoding, encoding)
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
        try:
            text = data[len(mark) :].decode(encoding)
        except UnicodeDecodeError:
            if encoding != "cp1252":
                raise
            encoding = "latin-1"  # five bytes are no characters in cp1252
            text = data.decode(encoding)
    except (LookupError, UnicodeError) as error:
        raise InputError(
            f"{name} is not in the encoding that it names, {encoding}", "text in that encoding", "convert it to UTF-8"
        ) from error
    if "\0" in text or not text.strip():
        raise InputError(f"{name} holds no text", "a page with text in it", "name another file")
    return text, encoding
