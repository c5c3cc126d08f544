"""DOCX: the zip is kept as it is; only parts with translated paragraphs, and the language tag, are rewritten.

Owns: which parts hold text, the order of units, kinds from styles, the language tag, what makes a file refused.
Does not know: how a paragraph's runs become a text with placeholders and back (`docx_runs.py`).
Units: parts of the package, by their path in the archive.
"""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from lxml import etree

from ..errors import InputError
from . import docx_language, xml
from . import docx_runs as runs
from . import inline as tree
from .archive import Archive
from .document import Document, Edition, Kind, Numbering, Unit, is_east_asian, is_right_to_left
from .docx_runs import W, w
from .inline import Inline

_ROOT_RELATIONS = "_rels/.rels"
_SIDE_PARTS = ("header", "footer", "footnotes", "endnotes")  # in the order in which they follow the body
_CORE = "{http://schemas.openxmlformats.org/package/2006/metadata/core-properties}coreProperties"
_DC_LANGUAGE = "{http://purl.org/dc/elements/1.1/}language"


class Docx(Document):
    """A Word document: the body, then headers and footers, then notes. Tracked deletions and comments stay."""

    format = "docx"

    def __init__(self, path: Path, archive: Archive) -> None:
        """Reads the document.

        Raises:
            InputError: it is damaged or holds no text.
        """
        self._archive = archive
        self._main = _main_part(archive)
        related = _related(archive, self._main)
        self._styles_part = next((name for kind, name in related if kind == "styles"), None)
        self._headings = self._read_styles()
        parts = [self._main]
        for side in _SIDE_PARTS:
            parts += [name for kind, name in related if kind == side and name not in parts]
        self._ranges: dict[str, tuple[int, int]] = {}
        numbering = Numbering()
        size = sum(archive.size(name) for name in parts)
        xml.check_amount(size, 0, archive.name)
        xml.check_amount(size, sum(xml.count_paragraphs(archive.read(name)) for name in parts), archive.name)
        for name in parts:
            start = len(numbering.units)
            root = self._tree(name)
            for paragraph in root.iter(w("p")):
                tree.check_markup(runs.count(paragraph), f"{archive.name}: {name}")
            for element, inline in self._paragraphs(root):
                kind = self._kind(element)
                opens = kind == "heading" and self._headings.get(_style(element), 9) <= 2
                numbering.add(inline, kind, opens_chapter=opens)
            self._ranges[name] = (start, len(numbering.units))
        if not numbering.units:
            raise InputError(f"{path} holds no text", "a document with text in it", "name another document")
        super().__init__(path, numbering.units, self._own_language())

    def _tree(self, name: str) -> etree._Element:
        return xml.parse(self._archive.read(name), f"{self._archive.name}: {name}")

    def _paragraphs(self, root: etree._Element) -> Iterator[tuple[etree._Element, Inline]]:
        for paragraph in list(root.iter(w("p"))):
            if any(ancestor.tag == runs.FALLBACK for ancestor in paragraph.iterancestors()):
                continue  # the same text box again, for old readers
            inline = tree.encode(runs.nodes(paragraph))
            if inline is not None:
                yield paragraph, inline

    def _read_styles(self) -> dict[str, int]:
        """Style id -> level of heading; 0 is the title, -1 a caption."""
        levels: dict[str, int] = {}
        if self._styles_part is None:
            return levels
        for style in self._tree(self._styles_part).iter(w("style")):
            name = style.find(w("name"))
            label = ((name.get(w("val")) if name is not None else None) or "").lower()
            identifier = style.get(w("styleId")) or ""
            if label == "title":
                levels[identifier] = 0
            elif label == "caption":
                levels[identifier] = -1
            elif label.startswith("heading ") and label[8:].isdecimal() and len(label) <= 10:
                levels[identifier] = int(label[8:])
        return levels

    def _kind(self, paragraph: etree._Element) -> Kind:
        level = self._headings.get(_style(paragraph))
        if level is not None:
            return "caption" if level < 0 else "heading"
        for ancestor in paragraph.iterancestors():
            name = xml.local_name(ancestor)
            if name == "tc":
                return "cell"
            if name in ("footnote", "endnote"):
                return "footnote"
            if name in ("hdr", "ftr"):
                return "margin"
        return "item" if paragraph.find(f"{w('pPr')}/{w('numPr')}") is not None else "paragraph"

    def _own_language(self) -> str | None:
        if self._styles_part is None:
            return None
        default = self._tree(self._styles_part).find(f"{w('docDefaults')}//{w('lang')}")
        return default.get(w("val")) if default is not None else None

    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        changed: dict[str, bytes] = {}
        for name, (start, end) in self._ranges.items():
            units = self.units[start:end]
            if any(edition.get(unit) is not None for unit in units):
                changed[name] = self._translated(name, units, edition)
        if edition.language is not None and not edition.bilingual:
            self._change_language(changed, edition.language)
        self._archive.write(stream, changed)

    def _translated(self, name: str, units: tuple[Unit, ...], edition: Edition) -> bytes:
        root = self._tree(name)
        found = list(zip(self._paragraphs(root), units, strict=True))
        for (paragraph, inline), unit in reversed(found):
            translated = edition.get(unit)
            if translated is None:
                continue
            kept = tree.kept(inline.text, translated) if runs.has_ruby(paragraph) else None
            if not edition.bilingual and kept is not None:
                runs.put_before(paragraph, kept)
                continue
            if edition.bilingual:
                target = _copy_below(paragraph)
                runs.place(target, runs.copied(inline.fill(translated, keep=runs.is_repeated)), runs.base(paragraph))
            else:
                target = paragraph
                runs.place(target, inline.fill(translated), runs.base(paragraph))
            docx_language.set_language(target, edition)
        return xml.serialise(root)

    def _change_language(self, changed: dict[str, bytes], language: str) -> None:
        if self._styles_part is not None:
            root = self._tree(self._styles_part)
            _set_default_language(root, language)
            changed[self._styles_part] = xml.serialise(root)
        for kind, name in _relations(self._archive, _ROOT_RELATIONS, ""):
            if kind == "core-properties" and name in self._archive.names:
                root = self._tree(name)
                if root.tag == _CORE:
                    element = root.find(_DC_LANGUAGE)
                    element = etree.SubElement(root, _DC_LANGUAGE) if element is None else element
                    element.text = language
                    changed[name] = xml.serialise(root)


def _style(paragraph: etree._Element) -> str:
    style = paragraph.find(f"{w('pPr')}/{w('pStyle')}")
    return (style.get(w("val")) or "") if style is not None else ""


def _copy_below(paragraph: etree._Element) -> etree._Element:
    """An empty paragraph of the same format after `paragraph`; what may be there only once moves or stays."""
    clone = paragraph.makeelement(paragraph.tag)
    properties = paragraph.find(w("pPr"))
    if properties is not None:
        twin = copy.deepcopy(properties)
        for name in ("numPr", "pageBreakBefore", "rPr", "pPrChange"):
            for element in twin.findall(w(name)):
                twin.remove(element)
        clone.append(twin)
        for section in properties.findall(w("sectPr")):
            properties.remove(section)  # the section now ends after the translation
    paragraph.addnext(clone)
    return clone


def _set_default_language(styles: etree._Element, language: str) -> None:
    defaults = styles.find(w("docDefaults"))
    if defaults is None:
        defaults = styles.makeelement(w("docDefaults"))
        styles.insert(0, defaults)
    element = defaults
    for name in ("rPrDefault", "rPr", "lang"):
        child = element.find(w(name))
        if child is None:
            child = element.makeelement(w(name))
            element.insert(0, child) if name == "rPrDefault" else element.append(child)
        element = child
    for lang in styles.iter(w("lang")):
        if lang is element or lang.get(w("val")) is not None:
            lang.set(w("val"), language)
        if is_east_asian(language) and (lang is element or lang.get(w("eastAsia")) is not None):
            lang.set(w("eastAsia"), language)
        if is_right_to_left(language) and (lang is element or lang.get(w("bidi")) is not None):
            lang.set(w("bidi"), language)


# --- the package ---


def _main_part(archive: Archive) -> str:
    for kind, name in _relations(archive, _ROOT_RELATIONS, ""):
        if kind == "officeDocument" and name in archive.names:
            root = xml.parse(archive.read(name), f"{archive.name}: {name}")
            if root.tag == w("document"):
                return name
    raise InputError(
        f"{archive.name} holds no Word document in the usual form (namespace {W})",
        "a .docx file",
        "save it again as .docx",
    )


def _related(archive: Archive, part: str) -> list[tuple[str, str]]:
    folder, name = posixpath.split(part)
    relations = _relations(archive, posixpath.join(folder, "_rels", f"{name}.rels"), folder)
    for _, target in relations:
        if target not in archive.names:
            raise InputError(
                f"{archive.name} is damaged ({target!r} is missing)", "a sound document", "save it again as .docx"
            )
    return relations


def _relations(archive: Archive, name: str, folder: str) -> list[tuple[str, str]]:
    """Kind and target path of each relation to another part."""
    if name not in archive.names:
        return []
    found: list[tuple[str, str]] = []
    for relation in xml.parse(archive.read(name), f"{archive.name}: {name}").iter("{*}Relationship"):
        if relation.get("TargetMode") == "External":
            continue
        target = unquote((relation.get("Target") or "").partition("#")[0])
        path = posixpath.normpath(posixpath.join("/", folder, target)).lstrip("/")
        kind = (relation.get("Type") or "").rpartition("/")[2]
        if kind in (*_SIDE_PARTS, "styles", "officeDocument", "core-properties"):
            found.append((kind, path))
    return found
