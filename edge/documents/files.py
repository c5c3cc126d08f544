"""Files in and out: bounded reading, strict UTF-8, writing that never leaves half a document.

Owns: size limits, decoding and its error lines, the order temporary file, fsync, rename.
Does not know: any document format.
Units: bytes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError, StorageError
from ..replacing import replacing
from ..values.amounts import format_bytes
from . import encodings

RAW_LIMIT = 1_000_000_000  # bytes of a plain text
MARKUP_LIMIT = 64_000_000  # bytes of one file or archive part that is parsed into a tree
_BLOCK = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_REMEDIES = {
    errno.ENOSPC: "free some disk space",
    errno.EDQUOT: "free some of the disk quota",
    errno.EFBIG: "raise the file size limit (ulimit -f)",
    errno.ENOENT: "create the folder or name another one",
    errno.ENOTDIR: "name a path whose parent is a folder",
    errno.ENAMETOOLONG: "name a shorter path",
}


def why(error: Exception) -> str:
    """The reason in a system error, without its path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def blocks(stream: BinaryIO, name: str, limit: int, *, text: bool) -> Iterator[bytes]:
    """All bytes of `stream`, block by block; a text ends at its first NUL, so that a device or a binary
    file is refused early.

    Raises:
        InputError: more than `limit` bytes, a NUL byte in a text, or the stream cannot be read.
    """
    size = 0
    try:
        while block := stream.read(_BLOCK):
            if text and size == 0 and block.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError(f"{name} is UTF-16 text", "UTF-8", "convert it: iconv -f UTF-16 -t UTF-8")
            if text and (at := block.find(b"\0")) >= 0:
                raise InputError(
                    f"{name} is binary (NUL at byte {size + at})", "UTF-8 text", "name a text file or convert it"
                )
            size += len(block)
            if size > limit:
                raise InputError(
                    f"{name} is larger than {format_bytes(limit)}",
                    f"at most {format_bytes(limit)}",
                    "split it into smaller files",
                )
            yield block
    except OSError as error:
        raise InputError(f"{name} cannot be read: {why(error)}", "", "check the path and its permissions") from error


def open_bytes(path: Path, *, regular: bool = True) -> BinaryIO:
    """A file, opened for reading.

    Raises:
        InputError: it is missing, a folder, no regular file (where `regular` asks for one), or unreadable.
    """
    remedy = "check the path and its permissions"
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        reason = "there is no such file" if missing else f"it cannot be read ({why(error)})"
        raise InputError(f"{str(path)!r}: {reason}", "a file that can be read", remedy) from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{path} is a folder", "a file", "name the file in it")
    if regular and not stat.S_ISREG(mode):
        raise InputError(f"{path} is a device or pipe", "a regular file", "save it to a file first")
    try:
        return open(path, "rb")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {why(error)}", "a file that can be read", remedy) from error


def read_bytes(path: Path, limit: int, *, text: bool = False) -> bytes:
    """The content of a file.

    Raises:
        InputError: as `open_bytes` and `blocks`.
    """
    with open_bytes(path) as stream:
        return b"".join(blocks(stream, str(path), limit, text=text))


def not_utf8(name: str, at: int, byte: int) -> InputError:
    """What is said of a text that is not UTF-8 at byte `at`."""
    return InputError(
        f"{name} is not UTF-8 at byte {at} (0x{byte:02x})",
        "UTF-8 text",
        "convert it from the encoding that it is in, for example by an editor: save as UTF-8",
    )


def is_utf16(path: Path) -> bool:
    """Whether a file begins with the byte order mark of UTF-16, as subtitles for older players do."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe that nobody writes to would wait for ever
            return False
        with open(path, "rb") as stream:
            return stream.read(2) in _UTF16
    except (OSError, ValueError):
        return False


def as_utf8(data: bytes, name: str, language: str = "") -> tuple[bytes, str]:
    """The same text in UTF-8, and what it was in (empty for UTF-8).

    Others are UTF-16 with a byte order mark, and the encoding that it is plausible in as a text in `language`.

    Raises:
        InputError: it is not UTF-16 to its end.
    """
    if data[:2] not in _UTF16:
        if not language or _is_utf8(data):
            return data, ""
        encoding = encodings.guess(data, language)
        return (data, "") if encoding is None else (data.decode(encoding).encode("utf-8"), encoding.upper())
    try:
        return data.decode("utf-16").encode("utf-8"), "UTF-16"
    except UnicodeError as error:
        raise InputError(
            f"{name} begins as UTF-16 and is none", "UTF-8 or UTF-16 text", "get it from its source again"
        ) from error


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def decode(data: bytes, name: str) -> str:
    """UTF-8 text, without its byte order mark.

    Raises:
        InputError: the bytes are not UTF-8 (naming the first wrong byte), or hold nothing but white space.
    """
    body = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start + len(data) - len(body)
        raise not_utf8(name, at, data[at]) from error
    if not text.strip():
        raise no_text(name, empty=not data)
    return text


def no_text(name: str, *, empty: bool) -> InputError:
    """What is said of a text that has nothing in it, or white space alone."""
    return InputError(
        f"{name} is empty" if empty else f"{name} holds only white space", "a text", "name a file with text in it"
    )


def same_file(first: Path, second: Path) -> bool:
    """Whether both paths lead to one existing file."""
    try:
        return os.path.samefile(first, second)
    except (OSError, ValueError):
        return False


def atomic_write(path: Path, fill: Callable[[BinaryIO], None]) -> None:
    """Writes what `fill` puts into the stream; `path` is at every moment the old content or all of the new.

    Raises:
        StorageError: it cannot be written, or `path` is no regular file.
    """
    _check_path(path)
    try:
        with replacing(path) as temporary, open(temporary, "w+b") as stream:
            fill(stream)
            stream.flush()
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "get permission to write there or name another path")
        raise StorageError(f"cannot write {str(path)!r}: {why(error)}", "", remedy) from error


def _check_path(path: Path) -> None:
    try:
        possible = b"\0" not in os.fsencode(path)
    except ValueError:
        possible = False
    if not possible:
        raise StorageError(f"the path {str(path)!r}", "a path that the system can hold", "name another file")
