"""Plain text for scoring and writing: one UTF-8 file or standard input, read in parts.

Owns: which input is a text at all, reading it again and again in bounded memory.
Does not know: paragraphs and units (`plain.py`), tokens.
Units: bytes in errors, characters in the result.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError, StorageError
from ..tokenstream import parts
from . import files

_MARK = codecs.BOM_UTF8


class Text:
    """A text that is read in parts, as often as needed.

    Attributes:
        name: for messages.
        size: bytes of it as UTF-8.
        sha256: of those bytes, in hex.
        blank: whether there is nothing but white space in it.
    """

    def __init__(self, name: str, parts: Callable[[], Iterable[str]]) -> None:
        """`parts`: begins to read it again. It is read once here, so that all that is wrong with it is said at once."""
        self.name = name
        self.parts = parts
        self.size = 0
        self.blank = True
        digest = hashlib.sha256()
        for part in parts():
            data = part.encode("utf-8", "surrogatepass")
            digest.update(data)
            self.size += len(data)
            self.blank = self.blank and not part.strip()
        self.sha256 = digest.hexdigest()

    @classmethod
    def of(cls, text: str, name: str = "the text") -> Text:
        """A text that is in memory."""
        return cls(name, lambda: parts(text))

    def read(self) -> str:
        """All of it."""
        return "".join(self.parts())


def open_text(source: str | Path, *, limit: int = files.RAW_LIMIT, strip: bool = False) -> Text:
    """A UTF-8 file, or standard input for '-'; a byte order mark is left out, nothing else is changed.

    What can be read only once (a pipe, standard input) is kept in a temporary file that has no name.

    Args:
        source: a path, or '-'.
        limit: bytes; a longer text is refused.
        strip: leave out white space before and after the text.

    Raises:
        InputError: the file is missing, a folder, too large, binary, not UTF-8 (naming the byte), or has no text.
        StorageError: there is no room for the temporary file.
    """
    if str(source) == "-":
        if sys.stdin is None:
            raise InputError("standard input is closed", "a text", "name a file")
        name = "standard input"
        again = _kept(sys.stdin.buffer, name, limit)
    else:
        name = str(source)
        stream = files.open_bytes(Path(source), regular=False)
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            stream.close()
            again = _Unchanged(Path(source), limit)
        else:
            with stream:
                again = _kept(stream, name, limit)

    def anew() -> Iterator[str]:
        decoded = _decoded(again(), name)
        return _stripped(decoded) if strip else decoded

    text = Text(name, anew)
    if text.blank:
        raise files.no_text(name, empty=not any(again()))
    return text


def read_text(source: str | Path, *, limit: int = files.RAW_LIMIT) -> str:
    """The whole of such a text.

    Raises:
        InputError, StorageError: as `open_text`.
    """
    return open_text(source, limit=limit).read()


class _Unchanged:
    """The blocks of a file, as often as they are asked for; it must not change in between."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.seen: tuple[int, int] | None = None

    def __call__(self) -> Iterator[bytes]:
        with files.open_bytes(self.path, regular=False) as stream:
            found = os.fstat(stream.fileno())
            state = (found.st_size, found.st_mtime_ns)
            if self.seen not in (None, state):
                raise InputError(f"{self.path} has changed while it was read", "the same text", "start again")
            self.seen = state
            yield from files.blocks(stream, str(self.path), self.limit, text=True)


def _kept(stream: BinaryIO, name: str, limit: int) -> Callable[[], Iterator[bytes]]:
    """The blocks of what can be read only once."""
    try:
        kept = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the text, and goes with it
        for block in files.blocks(stream, name, limit, text=True):
            kept.write(block)
        kept.flush()
    except OSError as error:
        raise StorageError(
            f"{name} cannot be kept: {files.why(error)}", "room for it in the temporary folder", "set TMPDIR to another"
        ) from error

    def again() -> Iterator[bytes]:
        kept.seek(0)
        return files.blocks(kept, name, limit, text=True)

    return again


def _decoded(blocks: Iterable[bytes], name: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = 0  # bytes before what is decoded now
    start = b""  # of the text, until it is known whether a mark is there
    begun = False
    for block in blocks:
        if not begun:
            start += block
            if len(start) < len(_MARK):
                continue
            begun = True
            block = start.removeprefix(_MARK)
            read = len(start) - len(block)
        yield _decode(decoder, block, read, name)
        read += len(block)
    rest = b"" if begun else start
    yield _decode(decoder, rest, read, name, final=True)


def _decode(decoder: codecs.IncrementalDecoder, data: bytes, before: int, name: str, *, final: bool = False) -> str:
    before -= len(decoder.getstate()[0])
    try:
        return decoder.decode(data, final)
    except UnicodeDecodeError as error:
        raise files.not_utf8(name, before + error.start, error.object[error.start]) from error


def _stripped(parts: Iterable[str]) -> Iterator[str]:
    held = ""  # white space that text may follow
    begun = False
    for part in parts:
        text = held + part if begun else part.lstrip()
        body = text.rstrip()
        held = text[len(body) :]
        begun = begun or bool(body)
        if body:
            yield body
