"""What a command is to write can be written: tried before anything is read or computed.

Owns: how a place is tried without leaving anything there; the refusal.
Does not know: which options name outputs (`overwrite.py`); what is written.

A place is tried by making a file in it, or in the nearest folder that is there already. What permissions say is not
asked, for by them root may write anywhere, /sys and /proc too. The file has no name where the file system knows such.
"""

from __future__ import annotations

import argparse
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from .. import journal
from ..errors import StorageError
from ..replacing import TEMPORARY
from .overwrite import Named, written


def check(args: argparse.Namespace) -> None:
    """Refuses a command one of whose outputs cannot be written, before it does anything.

    Raises:
        StorageError: naming it, and why.
    """
    tried: set[str] = set()
    for output in (*_written(args), *_own_run(args)):
        path = os.path.realpath(output.path)
        is_run = output.what == "--run"
        is_folder = output.what == "OUT" or args.verb == "runs"  # made beside its place, and then renamed
        try:
            if not is_run:
                _check_there(output.path, path, is_folder=is_folder)
            nearest = _nearest(path if is_run else os.path.dirname(path))
            if nearest not in tried:
                _try(nearest)
                tried.add(nearest)
        except (OSError, ValueError) as error:
            raise journal.storage_error(error, f"write {output.path} ({output.what})") from error


def _written(args: argparse.Namespace) -> Iterator[Named]:
    """The outputs that are named, a run as its folder; and what goes beside a document, where that can be there."""
    for output in written(args):
        if output.what == "--run":
            yield Named("--run", output.path.parent)
        elif output.what != "--out" or args.out is not None or output.path.parent.is_dir():
            yield output


def _own_run(args: argparse.Namespace) -> Iterator[Named]:
    """The folder of the runs that nobody names, where one is kept."""
    if not getattr(args, "no_run", True) and args.run_folder is None:
        yield Named("--run", journal.default_root())


def _check_there(path: Path, real: str, *, is_folder: bool) -> None:
    """Refuses what is in an output's place and cannot be replaced by it; `real`: where the path leads."""
    try:
        found = os.stat(path)
        around = os.stat(os.path.dirname(real))
    except FileNotFoundError:
        return
    if is_folder and not stat.S_ISDIR(found.st_mode):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not is_folder and not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device or pipe"
        raise StorageError(f"{path} is {kind}", "a regular file or no file", "name another file")
    if around.st_mode & stat.S_ISVTX and os.geteuid() not in (0, found.st_uid, around.st_uid):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # in /tmp only its owner may replace a file


def _nearest(folder: str) -> str:
    """The folder itself, or the nearest one above it that is there.

    Raises:
        OSError: something on the way is no folder, or cannot be looked at.
    """
    while True:
        try:
            if not stat.S_ISDIR(os.stat(folder).st_mode):
                raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            return folder
        except FileNotFoundError:
            folder = os.path.dirname(folder)


def _try(folder: str) -> None:
    """Makes a file in a folder, and leaves nothing of it.

    Raises:
        OSError: it cannot be made.
    """
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        return
    except OSError:
        pass  # many file systems know no files without names: the reason, if there is one, comes below
    path = os.path.join(folder, f"{TEMPORARY}{secrets.token_hex(8)}")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    os.unlink(path)
