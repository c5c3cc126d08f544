"""The cache folder: where it is, whether there is room, and how several processes share it.

Owns: the cache's place, the check for room, checksums of files, the lock that one process at a time holds, durability.
Does not know: what is kept there, models, torch.
Units: bytes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .. import journal
from ..errors import StorageError
from ..values.amounts import format_bytes

Notice = Callable[[str], None]
OFFLINE = "TEMPLORA_OFFLINE"


def offline() -> bool:
    """Whether the network is left alone: `TEMPLORA_OFFLINE`, which `--offline` sets; the hub has its own switch too."""
    return os.environ.get(OFFLINE, "") not in ("", "0")


@contextmanager
def without_network(wanted: bool = True) -> Iterator[None]:
    """Inside the block `offline` holds, here and in what is started; nothing changes where it is not wanted."""
    before = os.environ.get(OFFLINE)
    if wanted:
        os.environ[OFFLINE] = "1"
    try:
        yield
    finally:
        if wanted:
            os.environ.pop(OFFLINE)
            os.environ.update({} if before is None else {OFFLINE: before})


def cache_root() -> Path:
    """`TEMPLORA_CACHE`, or `templora` under the user's cache folder.

    Raises:
        StorageError: there is no home folder.
    """
    named = os.environ.get("TEMPLORA_CACHE")
    if named:
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "templora"
    except RuntimeError as error:
        raise StorageError("there is no home folder", "HOME or TEMPLORA_CACHE", "set TEMPLORA_CACHE") from error


def remember(path: Path, data: bytes) -> None:
    """Keeps `data` in the cache for later processes; where it cannot be written they do the work again."""
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        journal.atomic_write(path, data)


def sha256_file(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_room(folder: Path, needed: int, what: str) -> None:
    """Refuses before anything is written when `folder`'s disk has less than `needed` bytes free.

    Raises:
        StorageError: naming both amounts.
    """
    probe = folder
    while not probe.exists() and probe != probe.parent:
        probe = probe.parent
    free = shutil.disk_usage(probe).free
    if free < needed:
        raise StorageError(
            f"{format_bytes(free)} free at {folder}",
            f"{format_bytes(needed)} for {what}",
            "free some room, or set TEMPLORA_CACHE to a folder on another disk",
        )


@contextmanager
def locked(name: str, notice: Notice) -> Iterator[None]:
    """Holds the cache's lock of that name; waits for a process that has it, and says so.

    It is an flock(2), so the kernel lets go of it when the process dies. The file stays: if it were removed, two
    processes could hold two files of one name.

    Raises:
        StorageError: the cache cannot be written or locked.
    """
    path = cache_root() / "locks" / f"{name}.lock"
    with writing(cache_root()):
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with writing(cache_root()):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                notice(f"another process is preparing {name}; waiting for it")
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an OSError in its block into one line that names `folder`.

    Raises:
        StorageError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {folder}: {error.strerror or error}", "a writable cache with room", "set TEMPLORA_CACHE"
        ) from error


def sync_file(path: Path) -> None:
    """Makes a file's content durable; to be called before the file gets the name that others trust."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
