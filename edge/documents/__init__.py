"""Documents: txt, md, epub, docx, srt and html as ordered units, and back in the same format.

Owns: choosing the format by name and content; the public names of the room.
Does not know: models, prompts, languages beyond their tags.
Units: one unit is one paragraph, heading, cell, caption, note or cue; sizes in bytes.

    document = open_document("book.epub")
    translations = {unit.id: translate(unit.text) for unit in document.units}
    document.write("book.de.epub", translations, language="de")
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..machine.allocator import uncollected
from . import files, inline, placeholders
from .archive import Archive, Limits
from .chapters import Chapter, chapters_of, in_chapters
from .document import Document, Kind, Unit, is_right_to_left
from .segments import segments
from .text import read_text

__all__ = [
    "FORMATS",
    "Chapter",
    "Document",
    "Kind",
    "Limits",
    "Unit",
    "chapters_of",
    "in_chapters",
    "is_right_to_left",
    "open_document",
    "placeholders",
    "read_text",
    "segments",
]

FORMATS = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "md",
    ".markdown": "md",
    ".epub": "epub",
    ".docx": "docx",
    ".srt": "srt",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}

_FOREIGN = (
    (b"%PDF-", "a PDF", "convert it to EPUB or DOCX"),
    (b"\xd0\xcf\x11\xe0", "an old or password-protected Office file", "save it as .docx without a password"),
    (b"{\\rtf", "an RTF file", "save it as .docx"),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")


def open_document(
    path: str | Path, *, language: str = "", limits: Limits | None = None, text_limit: int = files.RAW_LIMIT
) -> Document:
    """Reads a document; its format follows from its suffix, and its content must agree.

    Args:
        path: a .txt, .md, .epub, .docx, .srt or .html file; without a suffix, the content decides alone.
        language: its code, where it is known: a text that is not UTF-8 is read in the encoding that it is plausible in.
        limits: what an archive may be.
        text_limit: bytes that a file which is no archive may have.

    Raises:
        InputError: the file is missing, too large, damaged, protected, of another format, or without text.
    """
    source = Path(path)
    suffix = source.suffix.lower()
    if suffix and suffix not in FORMATS:
        if not source.is_file():
            files.read_bytes(source, 0)  # says what it is instead
        raise InputError(f"{source} has the suffix {suffix}", "one of " + ", ".join(FORMATS), "convert it or rename it")
    archive_limits = limits or Limits()
    named = FORMATS.get(suffix)
    if named in ("epub", "docx"):
        data = files.read_bytes(source, archive_limits.unpacked)
    elif named == "html":
        data = files.read_bytes(source, min(text_limit, files.MARKUP_LIMIT))
    else:
        limit = min(text_limit, files.MARKUP_LIMIT) if named == "md" else text_limit
        text = named is not None and not language and not files.is_utf16(source)
        data = files.read_bytes(source, limit, text=text)
    found = _sniff(data, source)
    if found is not None and named is not None and found != named:
        raise InputError(f"{source} holds {found.upper()}", f"{named.upper()} by its suffix", f"rename it to .{found}")
    if found is None and named in ("epub", "docx"):
        what = "is empty" if not data else "is no zip archive"
        raise InputError(f"{source} {what}", f"{named.upper()}, which is one", "get it from its source again")
    with uncollected():
        document = _read(source, data, named or found or _text_format(data), archive_limits, language)
    if any(len(unit.placeholders) >= inline.MOST - 1 for unit in document.units):
        note = (
            f"{source} holds a paragraph with {inline.MOST} brackets or pieces of markup: the rest of it stays as it is"
        )
        document.notes = (*document.notes, note)
    return document


def _sniff(data: bytes, path: Path) -> str | None:
    """The format that the first bytes leave no doubt about; None for all kinds of text."""
    for magic, what, remedy in _FOREIGN:
        if data.startswith(magic):
            raise InputError(f"{path} is {what}", "one of " + ", ".join(FORMATS), remedy)
    if not data.startswith(_ZIP):
        return None
    if b"META-INF/container.xml" in data or b"mimetypeapplication/epub+zip" in data[:128]:
        return "epub"
    if b"[Content_Types].xml" in data and b"word/" in data:
        return "docx"
    return FORMATS.get(path.suffix.lower()) if path.suffix.lower() in (".epub", ".docx") else "zip"


def _text_format(data: bytes) -> str:
    head = data[:4096]
    if re.search(rb"\d\d:\d\d:\d\d[,.]\d{1,3}\s*-->", head):
        return "srt"
    return "html" if re.search(rb"<(?:!doctype\s+)?html[\s>]", head, re.IGNORECASE) else "txt"


def _read(path: Path, data: bytes, kind: str, limits: Limits, language: str) -> Document:
    """The document; only its own format's reader is imported."""
    if kind == "epub":
        from .epub import Epub

        return Epub(path, Archive(data, str(path), limits))
    if kind == "docx":
        from .docx import Docx

        return Docx(path, Archive(data, str(path), limits))
    if kind == "html":
        from .html import Html

        return Html(path, data)
    if kind not in ("txt", "md", "srt"):
        raise InputError(f"{path} is an archive", "one of " + ", ".join(FORMATS), "unpack it and name a document in it")
    data, encoding = files.as_utf8(data, str(path), language)
    text = files.decode(data, str(path))
    if "\0" in text:
        raise InputError(f"{path} is binary", "UTF-8 text", "name a text file or convert it")
    mark = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    document = _text_reader(kind)(path, text, mark)
    if encoding:
        document.notes = (f"{path} is {encoding}: the translation is written as UTF-8", *document.notes)
    return document


def _text_reader(kind: str) -> Callable[[Path, str, bytes], Document]:
    if kind == "md":
        from .markdown import Markdown

        return Markdown
    if kind == "srt":
        from .srt import Srt

        return Srt
    from .plain import Plain

    return Plain
