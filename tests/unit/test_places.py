"""Which run a command goes on with, where nobody has named one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge import journal, places
from edge.errors import JournalError
from edge.journal import Journal, Manifest

TEXTS = {"text": "abc"}
WHAT = Manifest("score", places.fingerprints(TEXTS))


@pytest.fixture(autouse=True)
def _root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def place(**options: Any) -> places.Place:
    return places.place("score", "book", {"text": "k"}, TEXTS, **options)


def run(where: places.Place, *, finished: bool) -> Path:
    """A run of two records that begins there."""
    assert where.folder is not None
    with Journal.create(where.folder, WHAT) as kept:
        for number in range(2):
            kept.append({"kind": "x", "end": number})
        if finished:
            kept.finish({})
    return where.folder


def test_a_run_is_found_behind_one_that_was_removed() -> None:
    first, second = run(place(), finished=True), run(place(fresh=True), finished=False)
    assert [each.folder for each in journal.prune(journal.default_root(), whole=True)] == [first]
    assert place().folder == place(resume=True).folder == second
    (first.parent / f"{first.name}-notes").mkdir()
    assert places.taken(first) == [2]
    third = run(place(fresh=True), finished=True)
    assert third.name == f"{first.name}-3" and place().folder == third


def test_the_run_that_was_begun_last_goes_before_one_that_was_left() -> None:
    left, whole = run(place(), finished=False), run(place(fresh=True), finished=True)
    found = place()
    assert left != whole == found.folder and found.there is not None and found.there.state == "finished"


def test_a_run_that_another_process_holds_is_that_of_the_same_command() -> None:
    folder = run(place(), finished=False)
    with Journal.resume(folder, WHAT):
        found = place()
        assert found.folder == folder and found.there is not None and found.there.state == "running"


def test_a_manifest_that_cannot_be_read_is_in_nobodys_way() -> None:
    folder = run(place(), finished=True)
    os.unlink(folder / "manifest.json")
    os.mkfifo(folder / "manifest.json")
    found = place()
    assert found.there is None and len(found.notes) == 1 and found.folder == places.numbered(folder, 2)
    assert journal.furthest(folder.parent, WHAT) is None
    with pytest.raises(JournalError, match="manifest"):
        place(resume=True)
