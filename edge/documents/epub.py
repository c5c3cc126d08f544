"""EPUB 2 and 3: the zip is kept as it is, and only what is translated is rewritten.

Owns: finding package, spine and tables of contents; what counts as digital rights management; the language tag.
Does not know: how units are cut from XHTML (`markup.py`) or archives are checked (`archive.py`).
Units: entries of the archive, by their path in it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from lxml import etree

from ..errors import InputError
from . import inline as tree
from . import markup, xml
from .archive import Archive
from .document import Document, Edition, Numbering, Unit
from .inline import Text
from .markup import Piece

_CONTAINER = "META-INF/container.xml"
_XHTML_TYPES = ("application/xhtml+xml", "text/html", "text/x-oeb1-document")
_NCX_TYPE = "application/x-dtbncx+xml"
# fonts may be obscured by these; anything else is encrypted content
_OBFUSCATION = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_VOID = re.compile(rb"<(br|hr|img|wbr|input|meta|link|col|area)\b([^<>]*)(?<!/)>", re.IGNORECASE)
_LOOSE = re.compile(rb"&(?!#?\w{1,32};)")
_LINK = re.compile(rb"""\bhref\s{0,9}=\s{0,9}(?:"([^"<>]{1,2000})"|'([^'<>]{1,2000})')""")
_HTML = re.compile(rb"<html[\s>]", re.IGNORECASE)
_LANGUAGE = re.compile(rb"(<(?:[A-Za-z_][\w.-]*:)?language(?:\s[^<>]*)?>)[^<>]*(</(?:[A-Za-z_][\w.-]*:)?language\s*>)")
_XML_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
_DC_LANGUAGE = "{http://purl.org/dc/elements/1.1/}language"


class Epub(Document):
    """An EPUB book. Its chapters are the files of its spine; tables of contents come after them."""

    format = "epub"
    first_chapter = 1

    def __init__(self, path: Path, archive: Archive) -> None:
        """Reads the book.

        Raises:
            InputError: it is damaged, protected, or not an EPUB.
        """
        self._archive = archive
        _refuse_protection(archive)
        self._package, package = _package(archive)
        self._ranges: dict[str, tuple[int, int]] = {}
        numbering = Numbering()
        self._mended: dict[str, None] = {}
        spine, tables, missing = _content(archive, self._package, package)
        _check_amount(archive, spine + tables)
        for chapter, name in enumerate(spine + tables):
            numbering.chapter = min(chapter, len(spine))
            start = len(numbering.units)
            root = self._tree(name)
            markup.check(root, f"{archive.name}: {name}")
            for piece in self._pieces(root):
                numbering.add(piece.inline, piece.kind)
            self._ranges[name] = (start, len(numbering.units))
        if not numbering.units:
            raise InputError(f"{path} holds no text", "a book with text in it", "name another book")
        found = package.find(f".//{_DC_LANGUAGE}")
        tag = (found.text or "").strip() if found is not None else ""
        super().__init__(path, numbering.units, tag)
        self.notes = (
            *(f"{archive.name} lists '{name}' in its spine, which is not there: it is left out" for name in missing),
            *(
                f"{archive.name}: {name} is no well-formed XML: loose & and unclosed tags are mended"
                for name in self._mended
            ),
        )

    def _tree(self, name: str) -> etree._Element:
        data = self._archive.read(name)
        called = f"{self._archive.name}: {name}"
        try:
            return xml.parse(data, called, named_entities=True)
        except InputError:
            mended = _VOID.sub(rb"<\1\2/>", _LOOSE.sub(b"&amp;", data))
            if mended == data:
                raise
            root = xml.parse(mended, called, named_entities=True)
            self._mended[name] = None
            return root

    def _pieces(self, root: etree._Element) -> list[Piece]:
        return list(_ncx_pieces(root)) if xml.local_name(root) == "ncx" else markup.pieces(root, title=False)

    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        changed: dict[str, bytes] = {}
        for name, (start, end) in self._ranges.items():
            units = self.units[start:end]
            if any(edition.get(unit) is not None for unit in units):
                changed[name] = self._translated(name, units, edition)
        if edition.language is not None:
            data = self._archive.read(self._package)
            changed[self._package] = _with_language(data, self._package, edition.language)
        self._archive.write(stream, changed)

    def _translated(self, name: str, units: tuple[Unit, ...], edition: Edition) -> bytes:
        data = self._archive.read(name)
        root = self._tree(name)
        found = [(piece, edition.get(unit)) for piece, unit in zip(self._pieces(root), units, strict=True)]
        markup.apply(found, edition)
        if xml.local_name(root) != "ncx":
            markup.set_language(root, edition)
        elif edition.language is not None and not edition.bilingual and root.get(_XML_LANG) is not None:
            root.set(_XML_LANG, edition.language)
        return xml.serialise(
            root, declaration=data.lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t").startswith((b"<?xml", b"<\0?"))
        )


# --- what is in the archive ---


def _check_amount(archive: Archive, names: list[str]) -> None:
    """Sizes first, from the directory, then paragraphs: an archive of a few kilobytes may hold millions."""
    size = sum(archive.size(name) for name in names)
    xml.check_amount(size, 0, archive.name)
    paragraphs = 0
    for name in names:
        paragraphs += xml.count_paragraphs(archive.read(name))
        xml.check_amount(size, paragraphs, archive.name)


def _refuse_protection(archive: Archive) -> None:
    remedy = "use a copy without copy protection"
    for name, scheme in (
        ("META-INF/rights.xml", "Adobe"),
        ("META-INF/sinf.xml", "Apple"),
        ("META-INF/license.lcpl", "LCP"),
    ):
        if name in archive.names:
            raise InputError(f"{archive.name} is protected by {scheme} DRM ({name})", "a book without DRM", remedy)
    name = "META-INF/encryption.xml"
    if name not in archive.names:
        return
    root = xml.parse(archive.read(name), f"{archive.name}: {name}")
    for data in root.iter("{*}EncryptedData"):
        method = data.find("{*}EncryptionMethod")
        algorithm = method.get("Algorithm") if method is not None else None
        if algorithm not in _OBFUSCATION:
            reference = data.find(".//{*}CipherReference")
            what = reference.get("URI") if reference is not None else "its content"
            raise InputError(
                f"{archive.name} is encrypted by DRM ({what}, {algorithm or 'unnamed algorithm'})",
                "a book without DRM",
                remedy,
            )


def _package(archive: Archive) -> tuple[str, etree._Element]:
    container = xml.parse(archive.read(_CONTAINER), f"{archive.name}: {_CONTAINER}")
    rootfile = container.find(".//{*}rootfile")
    name = _resolve("", rootfile.get("full-path") or "") if rootfile is not None else None
    if name is None or name not in archive.names:
        raise InputError(
            f"{archive.name} names no package file that is there ({_CONTAINER})",
            "a sound EPUB",
            "repair it in an EPUB editor",
        )
    return name, xml.parse(archive.read(name), f"{archive.name}: {name}")


def _content(archive: Archive, base: str, package: etree._Element) -> tuple[list[str], list[str], list[str]]:
    """Paths: the spine's texts in reading order and what they link to, the other tables of contents;
    and what is missing.
    """
    manifest: dict[str, tuple[str, str, str]] = {}
    for item in package.iterfind(".//{*}manifest/{*}item"):
        entry = (item.get("href") or "", item.get("media-type") or "", item.get("properties") or "")
        manifest[item.get("id") or ""] = entry
    spine: list[str] = []
    missing: list[str] = []
    for reference in package.iterfind(".//{*}spine/{*}itemref"):
        identifier = reference.get("idref") or ""
        href, media, _ = manifest.get(identifier, ("", "", ""))
        name = _find(archive, base, href)
        if name is None and (identifier not in manifest or _resolve(base, href) is None):
            raise InputError(
                f"{archive.name} is damaged (its spine lists '{identifier or href}', which is not there)",
                "a sound EPUB",
                "repair it in an EPUB editor",
            )
        if name is None:
            missing.append(href)
        elif name not in spine and (media in _XHTML_TYPES or _is_html(archive, name, media)):
            spine.append(name)
    found = {_find(archive, base, href): (media, properties) for href, media, properties in manifest.values()}
    tables = [
        name
        for name, (media, properties) in found.items()
        if name is not None and name not in spine and (media == _NCX_TYPE or "nav" in properties.split())
    ]
    texts = {name for name, (media, _) in found.items() if name is not None and media in _XHTML_TYPES}
    return [*spine, *_linked(archive, spine, texts - {*spine, *tables})], tables, missing


def _linked(archive: Archive, spine: list[str], others: set[str]) -> list[str]:
    """Those of `others` that links of the spine lead to, as they do to notes, and links of these again."""
    found: list[str] = []
    waiting = list(spine) if others else []
    while waiting:
        name = waiting.pop(0)
        for double, single in _LINK.findall(archive.read(name)):
            target = _find(archive, name, (double or single).decode("utf-8", "replace").partition("#")[0])
            if target in others and target is not None:
                others.discard(target)
                found.append(target)
                waiting.append(target)
    return found


def _is_html(archive: Archive, name: str, media: str) -> bool:
    """Whether an entry of another type is a text all the same: publishers write application/xhtml or text/xml."""
    named = "html" in media or media in ("text/xml", "application/xml", "text/plain", "")
    return named and _HTML.search(archive.read(name)[:4096]) is not None


def _find(archive: Archive, base: str, href: str) -> str | None:
    """The entry that a reference means, as reading systems find it; None where there is none.

    Besides what the standard says: its name as it stands, with backslashes, and from the archive's root.
    """
    names = [_resolve(base, href), _resolve(base, href.replace("%", "%25")), _resolve(base, href.replace("\\", "/"))]
    names.append(_resolve("", href.lstrip("/")) if href.startswith("/") else None)
    return next((name for name in names if name is not None and name in archive.names), None)


def _resolve(base: str, href: str) -> str | None:
    """The archive path of a reference; None where it leads out of the archive."""
    try:
        parts = urlsplit(href)
    except ValueError:
        return None
    if parts.scheme or parts.netloc or not parts.path:
        return None
    name = posixpath.normpath(posixpath.join(posixpath.dirname(base), unquote(parts.path)))
    return None if name.startswith(("/", "../")) or name in ("..", ".") else name


def _ncx_pieces(root: etree._Element) -> Iterator[Piece]:
    for element in root.iter("{*}text"):
        inline = tree.encode([Text(tree.fold(element.text or ""))])
        is_page = any(xml.local_name(outer) in ("pagelist", "pagetarget") for outer in element.iterancestors())
        if inline is not None and not len(element) and not is_page:
            yield Piece(element, None, (), inline, "toc")


def _with_language(data: bytes, name: str, language: str) -> bytes:
    """The package with its first dc:language changed, and not a byte elsewhere unless its form asks for it."""
    root = xml.parse(data, name)
    found = root.find(f".//{_DC_LANGUAGE}")
    if found is None:
        metadata = root.find(".//{*}metadata")
        if metadata is None:
            return data
        found = etree.SubElement(metadata, _DC_LANGUAGE)
    found.text = language
    wanted = etree.tostring(root, method="c14n")
    patched = _LANGUAGE.sub(lambda match: match[1] + language.encode("ascii", "xmlcharrefreplace") + match[2], data, 1)
    try:
        if etree.tostring(xml.parse(patched, name), method="c14n") == wanted:
            return patched
    except InputError:
        pass  # not UTF-8 or otherwise unusual: written from the tree
    return xml.serialise(root)
