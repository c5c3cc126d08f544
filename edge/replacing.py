"""Files that appear whole or not at all, and what a killed writer left beside them.

Owns: the temporary file, its lock, the order fsync, rename, fsync of the folder.
Does not know: what is in a file, what is said of an error.
Units: seconds.

A writer holds a lock on its temporary file, which the kernel lets go of when the process dies. The next file that is
written into a folder removes what lies there without one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import StorageError

TEMPORARY = ".templora-"  # how the name of every unfinished file begins
_JUST_MADE = 60.0  # age of an empty file that its writer may not have locked yet


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path (an empty file beside `path`, same suffix) that becomes `path` when the block ends well.

    At every moment, also after a crash, `path` is either what it was or all that the block wrote. When the block
    raises, the temporary file is removed. Permissions of an existing `path` are kept.

    Raises:
        OSError: the file cannot be written.
        StorageError: `path` is there and is no regular file.
    """
    mode = _mode_to_keep(path)
    remove_abandoned(path.parent)
    temporary = path.parent / f"{TEMPORARY}{secrets.token_hex(8)}{path.suffix}"
    held = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if mode is not None:
            os.fchmod(held, mode)
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(held)


def remove_abandoned(folder: Path) -> None:
    """Removes this user's unfinished files in `folder` whose writers have died; what cannot be looked at stays."""
    try:
        with os.scandir(folder) as entries:
            left = [entry.path for entry in entries if entry.name.startswith(TEMPORARY)]
    except OSError:
        return
    for path in left:
        with contextlib.suppress(OSError):
            _remove_if_abandoned(path)


def _remove_if_abandoned(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return
        if not found.st_size and time.time() - found.st_mtime < _JUST_MADE:
            return
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(fd)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Makes new, renamed and removed names in `folder` durable.

    Raises:
        OSError: the disk failed.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot do it for folders
            raise
    finally:
        os.close(fd)


def _mode_to_keep(path: Path) -> int | None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise StorageError(f"{path} is {kind}", "a regular file or no file", "name another file")
    return stat.S_IMODE(mode)
