"""Files that appear whole or not at all; what a killed writer left is removed by the next, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.errors import StorageError
from edge.replacing import TEMPORARY, remove_abandoned, replacing

ROOT = Path(__file__).resolve().parents[2]
WRITER = """
import sys, time
from pathlib import Path
from edge.replacing import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("writing", flush=True)
    time.sleep(600)
"""


def _left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(TEMPORARY)]


def test_a_killed_writer_leaves_nothing_beyond_the_next_file(tmp_path: Path) -> None:
    path = tmp_path / "book.epub"
    path.write_text("old")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert writer.stdout is not None and writer.stdout.readline() == b"writing\n"
        with replacing(tmp_path / "other.txt") as temporary:  # while it lives its file stays
            temporary.write_text("other")
        assert len(_left(tmp_path)) == 1 and path.read_text() == "old"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert len(_left(tmp_path)) == 1
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert _left(tmp_path) == [] and path.read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["book.epub", "other.txt"]


def test_a_file_that_was_made_a_moment_ago_is_not_taken_for_abandoned(tmp_path: Path) -> None:
    """Its writer may not have locked it yet; what is not a file, or has another name, is never touched."""
    fresh = tmp_path / f"{TEMPORARY}fresh"
    fresh.touch()
    old = tmp_path / f"{TEMPORARY}old"
    old.touch()
    os.utime(old, (time.time() - 100, time.time() - 100))
    (tmp_path / f"{TEMPORARY}folder").mkdir()
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / f"{TEMPORARY}link").symlink_to(target)
    os.mkfifo(tmp_path / f"{TEMPORARY}pipe")
    (tmp_path / "templora-notes").write_text("kept")
    remove_abandoned(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted([
        fresh.name, f"{TEMPORARY}folder", f"{TEMPORARY}link", f"{TEMPORARY}pipe", "target", "templora-notes",
    ])  # fmt: skip
    assert target.read_text() == "kept"
    remove_abandoned(tmp_path / "missing")


def test_a_failed_block_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(RuntimeError, match="no"), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("no")
    assert path.read_text() == "old" and _left(tmp_path) == []
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640


def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("folder", "link"):
        with pytest.raises(StorageError, match="a regular file"), replacing(tmp_path / name):
            pass
    assert _left(tmp_path) == []
