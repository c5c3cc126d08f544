"""Writing that a crash cannot tear, checksummed JSON, fingerprints.

Owns: what is written, and how a system error becomes a `StorageError`.
Does not know: the order of fsync and rename (`replacing.py`); what is in the files; what a run folder is.
Units: bytes; fingerprints are sha256 in lower-case hex.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import JournalError, StorageError, TemploraError
from ..replacing import TEMPORARY, replacing

MAX_JSON = 1 << 26  # bytes; no file or line of ours is longer, so a longer one is not read
_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_REMEDIES = {
    errno.ENOSPC: "free some disk space; the same command continues",
    errno.EDQUOT: "free some of the disk quota; the same command continues",
    errno.EFBIG: "raise the file size limit (ulimit -f); the same command continues",
    errno.ENOTDIR: "name a path whose parent is a folder",
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EROFS: "make the file system writable or name another folder",
    errno.EACCES: "get permission to write there or name another folder",
    errno.EPERM: "get permission to write there or name another folder",
}


# --- errors ---


def storage_error(error: Exception, doing: str, code: int | None = None) -> StorageError:
    """The `StorageError` for a system error met while `doing`."""
    number = code if code is not None else getattr(error, "errno", None)
    why = os.strerror(number) if number else str(error) or type(error).__name__
    return StorageError(f"cannot {doing}: {why}", "", _REMEDIES.get(number or 0, "check the disk and the path"))


@contextlib.contextmanager
def guarded(doing: str) -> Iterator[None]:
    """Turns an OSError in its block into one line that says what could not be done.

    Raises:
        StorageError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, doing) from error


def system_error(error: Exception) -> int | None:
    """The errno behind an exception; libraries written in Rust give it in their text only."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    match = re.search(r"\(os error (\d{1,3})\)|\bOs \{ code: (\d{1,3})\b", str(error))
    return int(match[1] or match[2]) if match else None


# --- files ---


def usable_path(path: Path | str) -> Path:
    """`path` as a Path that the system can be asked about.

    Raises:
        JournalError: it holds a character that no path can hold.
    """
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
    except ValueError:
        raise JournalError(f"the path {str(path)!r}", "a path without NUL", "name another folder") from None
    return Path(path)


def inside(root: Path, path: Path) -> Path:
    """`path`, when writing it stays inside `root` (which has no symbolic links in it).

    Raises:
        JournalError: the path, or a folder on its way, leads out of `root`.
    """
    real = Path(os.path.realpath(path))
    if real != path or root not in real.parents:
        raise JournalError(f"{path} leads to {real}", f"a path inside {root}", "remove the link or name another folder")
    return path


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data`, however many writes the system needs."""
    view = memoryview(data)
    while view:
        written = os.write(fd, view)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = view[written:]


@contextlib.contextmanager
def atomic_writer(path: Path | str) -> Iterator[Path]:
    """A temporary path (an empty file beside `path`, same suffix) that becomes `path` when the block ends well.

    At every moment, also after a crash, `path` is either what it was or all that the block wrote. When the block
    raises, the temporary file is removed. Permissions of an existing `path` are kept.

    Raises:
        StorageError: the file cannot be written, or `path` is there and is not a regular file (a symbolic link is
            refused as well: resolve it first where it may be followed).
    """
    path = usable_path(path)
    doing = f"write {path}"
    try:
        with guarded(doing), replacing(path) as temporary:
            yield temporary
    except TemploraError:
        raise
    except Exception as error:
        code = system_error(error)
        if code is None:
            raise
        raise storage_error(error, doing, code) from error


def atomic_write(path: Path | str, data: bytes) -> None:
    """Writes `data` to `path`, wholly or not at all, durable on return; see `atomic_writer`.

    Raises:
        StorageError: the file cannot be written; what was there before is still there (the new data is, where all
            but making the new name durable went well).
    """
    with atomic_writer(path) as temporary:
        fill(temporary, data)


def fill(path: Path, data: bytes) -> None:
    """Writes `data` into an existing empty file.

    Raises:
        OSError: it cannot be written.
    """
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        write_all(fd, data)
    finally:
        os.close(fd)


def open_regular(path: Path) -> int:
    """A file descriptor to read `path`: never a link, and never a pipe that would keep us waiting."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    return fd


def remove_unfinished(folder: Path) -> None:
    """Removes what writes that never ended left in `folder`; only for who holds the run's lock."""
    for entry in list(os.scandir(folder)):
        if entry.name.startswith(TEMPORARY) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)


# --- JSON ---


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, ASCII; nan and inf as {"$float": "nan"}.

    Raises:
        JournalError: something in it is not a mapping with text keys, list, tuple, text, number, bool or None.
    """
    try:
        return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise JournalError(f"cannot be kept as JSON: {error}", "plain values with text keys") from error


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(float(value))}
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not text")
        return {key: _plain(item) for key, item in value.items()}
    raise TypeError(f"a value of type {type(value).__name__}")


def parse(text: bytes | str) -> Any:
    """The value of a JSON text that `canonical` wrote.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text, object_hook=_float)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _float(value: dict[str, Any]) -> Any:
    word = value.get("$float")
    return _FLOATS[word] if len(value) == 1 and isinstance(word, str) and word in _FLOATS else value


def seal(value: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """A JSON file's content with its own checksum in it.

    Raises:
        JournalError: a value cannot be kept as JSON.
    """
    body = {**value, "checksum": fingerprint(value)}
    return (json.dumps(_plain(body), sort_keys=True, indent=indent, allow_nan=False) + "\n").encode("ascii")


def read_sealed(path: Path) -> dict[str, Any]:
    """The value that `seal` wrote, without the checksum.

    Raises:
        FileNotFoundError: there is no such file.
        JournalError: it is damaged.
        StorageError: it cannot be read.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as stream:
            content = stream.read(MAX_JSON + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise storage_error(error, f"read {path}") from error
    remedy = "restore it from a backup or start a new run"
    if len(content) > MAX_JSON:
        raise JournalError(f"{path} is too long", f"at most {MAX_JSON} bytes", remedy)
    try:
        value = parse(content)
    except ValueError as error:
        raise JournalError(f"{path} is not JSON", "an undamaged file", remedy) from error
    if not isinstance(value, dict):
        raise JournalError(f"{path} holds no JSON object", "an undamaged file", remedy)
    checksum = value.pop("checksum", None)
    if checksum != fingerprint(value):
        raise JournalError(f"{path} does not match its checksum", "an unchanged file", remedy)
    return value


# --- fingerprints ---


def fingerprint(data: bytes | str | Mapping[str, Any]) -> str:
    """sha256, in hex, of bytes, of a text as UTF-8, or of a mapping's canonical JSON.

    Raises:
        JournalError: the mapping holds something that is not a JSON value.
    """
    if isinstance(data, Mapping):
        data = canonical(data)
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


def file_fingerprint(path: Path | str) -> str:
    """sha256, in hex, of a file's content, read in pieces.

    Raises:
        StorageError: the file cannot be read.
    """
    with guarded(f"read {path}"), usable_path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
