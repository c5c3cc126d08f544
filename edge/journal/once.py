"""A folder that is made once, in a place that processes share.

Owns: who makes it while others wait, what a killed process left of it and whether that is gone on with, its durability
before it has its name.
Does not know: what is in the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from .. import replacing
from . import disk

_YOUNG = 2.0  # seconds: what is younger may be about to be locked


def sync_tree(folder: Path) -> None:
    """Makes everything in `folder` durable, before the folder gets the name by which it is trusted.

    Raises:
        OSError: something cannot be made durable.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
    for path in (*(inner for inner in folder.rglob("*") if inner.is_dir()), folder):
        replacing.sync_folder(path)


@contextlib.contextmanager
def making(folder: Path) -> Iterator[None]:
    """Inside the block this process alone makes `folder`: another one waits, and looks again then.

    What a process that was killed left beside it, under a name that begins with `.NAME.`, is removed.

    Raises:
        StorageError: its parent cannot be made or written.
    """
    with disk.guarded(f"make {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder.parent / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # some file systems have no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        for left in folder.parent.iterdir():
            if left.name.startswith(f".{folder.name}.") and left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, to be filled and renamed to it; gone when the block ends, where it was not.

    What killed processes left there is removed: each holds a lock on its own as long as it lives.

    Raises:
        OSError: the parent cannot be made or written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    made = folder.parent / f".{folder.name}.templora-{secrets.token_hex(6)}"
    made.mkdir()
    fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some file systems have no locks, and nothing is swept there
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield made
    finally:
        os.close(fd)
        shutil.rmtree(made, ignore_errors=True)
        _sweep(folder)


def begun_place(folder: Path) -> Path:
    """Where `begun` keeps what there is of a folder so far."""
    return folder.parent / f".{folder.name}-begun"


@contextlib.contextmanager
def begun(folder: Path) -> Iterator[Path]:
    """A folder beside `folder`, to be filled and renamed to it; what a stopped process left of it is gone on with.

    One process at a time is inside; another one waits. Where it was not renamed it goes when the block ends, also with
    an error; it stays where the process is killed or interrupted.

    Raises:
        OSError: the parent cannot be made or written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    place = begun_place(folder)
    while True:
        place.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # the process that was waited for has taken it away
            fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(fd, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), place.stat()):
                    break
            os.close(fd)
    try:
        try:
            yield place
        except Exception:
            _remove_own(place, fd)
            raise
        _remove_own(place, fd)
    finally:
        os.close(fd)


def _remove_own(place: Path, fd: int) -> None:
    """Takes `place` away where it still is the folder that is open; it was renamed otherwise."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(fd), place.stat()):
            shutil.rmtree(place, ignore_errors=True)


def _sweep(folder: Path) -> None:
    for left in folder.parent.glob(f"{glob.escape(f'.{folder.name}.templora-')}*"):
        with contextlib.suppress(OSError):
            fd = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if time.time() - os.fstat(fd).st_mtime > _YOUNG:
                    shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(fd)
