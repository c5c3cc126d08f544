"""The lock of a run folder.

Owns: `lock`, an flock(2) that lives as long as the file descriptor, so a killed process leaves none behind.
Does not know: what it protects.

The file holds the process id of who took it last, for the message only. It is removed only with its run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

from ..errors import JournalError
from . import disk

NAME = "lock"
_PATIENCE = 0.5  # seconds; `holder` in another process has the lock for an instant


class Lock:
    """Holds a run folder for this process until `release`, or until the process ends.

    Raises:
        JournalError: another process holds it; the message names it.
        StorageError: the lock file cannot be opened or locked.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._fd: int | None = None
        path = disk.inside(root, root / NAME)
        deadline = time.monotonic() + _PATIENCE
        with disk.guarded(f"lock {root}"):
            while self._fd is None:
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
                try:
                    self._fd = fd if _take(fd, path) else None
                finally:
                    if self._fd is None:
                        os.close(fd)
                if self._fd is None:
                    if time.monotonic() > deadline:
                        raise _refused(root)
                    time.sleep(0.02)
        with contextlib.suppress(OSError):  # the name is for the message; a full disk must not stop a clean-up
            os.pwrite(self._fd, b"%-20d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Lets go; does nothing the second time."""
        if self._fd is not None:
            fd = self._fd
            self._fd = None
            with contextlib.suppress(OSError):  # a forked child may share the descriptor: unlock, then close
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)


def holder(root: Path) -> int | None:
    """The id of the process that holds the run: None for nobody, 0 where it is not known."""
    try:
        fd = disk.open_regular(root / NAME)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        word = os.pread(fd, 20, 0).strip()
        return int(word) if word.isdigit() else 0
    except OSError:
        return None
    finally:
        os.close(fd)
    return None


def _take(fd: int, path: Path) -> bool:
    """True with the lock held on the file that is at `path` now (a pruned run's lock file is another one)."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            return False
        raise
    try:
        here = os.fstat(fd)
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _refused(root: Path) -> JournalError:
    pid = holder(root)
    who = f"process {pid}" if pid else "another process"
    return JournalError(f"{root} is held by {who}", "a run that nobody else works on", "wait for it or stop it")
