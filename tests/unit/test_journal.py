"""The journal: nothing acknowledged is lost, nothing damaged is believed, nothing outside the run is touched."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import math
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge.journal.disk as disk
import edge.journal.journal as run_module
from edge.errors import JournalError, SettingsError, StorageError, TemploraError
from edge.journal import (
    Journal,
    Manifest,
    SnapshotPolicy,
    atomic_write,
    atomic_writer,
    default_root,
    file_fingerprint,
    fingerprint,
    list_runs,
    prune,
)

MANIFEST = Manifest(
    "score",
    fingerprints={"text": fingerprint("a book"), "settings": fingerprint({"learn": {"lr": 0.1}})},
    versions={"torch": "2.1"},
    settings={"learn": {"lr": 0.1}},
    extra={"total": 1000},
)
QUICK = settings(max_examples=60, deadline=None, database=None)


def record(seq: int) -> dict[str, Any]:
    return {"kind": "score", "end": seq * 10, "tokens": 10, "seconds": 0.5, "text": "é\n漢" * (seq % 4), "nll": seq / 3}


def data(seq: int) -> bytes:
    return random.Random(seq).randbytes(200 + seq)


@contextlib.contextmanager
def fast_folder() -> Iterator[Path]:
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        yield Path(os.path.realpath(folder))


@pytest.fixture
def fast() -> Iterator[Path]:
    with fast_folder() as folder:
        yield folder


def make(folder: Path, count: int = 3, *, snapshots: bool = True, finish: bool = False) -> Path:
    with Journal.create(folder, MANIFEST) as journal:
        for seq in range(1, count + 1):
            assert journal.append(record(seq)) == seq
            if snapshots:
                journal.snapshot(seq, data(seq), {"rng": [seq, None, 1.5]})
        if finish:
            journal.finish({"perplexity": 7.5})
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# --- round trips ---


def test_a_run_goes_on_where_it_stopped(fast: Path) -> None:
    with Journal.resume(make(fast / "a" / "run"), MANIFEST) as journal:
        assert journal.records() == [record(seq) for seq in (1, 2, 3)]
        assert journal.notes == []
        snapshot = journal.latest_snapshot()
        assert snapshot is not None
        assert (snapshot.seq, snapshot.state, snapshot.read()) == (3, {"rng": [3, None, 1.5]}, data(3))
        assert journal.append(record(4)) == 4
        assert journal.records()[snapshot.seq :] == [record(4)]
        assert journal.manifest.created.startswith("20")
        journal.finish({"perplexity": math.inf})
        with pytest.raises(JournalError, match="finished"):
            journal.append(record(5))
        with pytest.raises(JournalError, match="finished"):
            journal.snapshot(4, b"", {})
    with Journal.resume(fast / "a" / "run", MANIFEST) as journal:
        assert journal.summary == {"perplexity": math.inf}
    with pytest.raises(JournalError, match="closed"):
        journal.append(record(5))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@QUICK
@given(st.lists(st.dictionaries(st.text(), json_values, max_size=4), min_size=1, max_size=4))
def test_any_record_comes_back_as_it_was(records: list[dict[str, Any]]) -> None:
    with fast_folder() as folder:
        with Journal.create(folder, MANIFEST) as journal:
            for item in records:
                journal.append(item, sync=False)
        with Journal.resume(folder, MANIFEST) as journal:
            assert repr(journal.records()) == repr([dict(sorted(item.items())) for item in records]) or (
                journal.records() == records
            )
        for line in (folder / "records.jsonl").read_text("ascii").splitlines():
            json.loads(line, parse_constant=pytest.fail)  # strict JSON, whatever was in the record


def test_nan_comes_back_and_what_is_not_json_is_refused(fast: Path) -> None:
    with Journal.create(fast, MANIFEST) as journal:
        journal.append({"grad": math.nan, "nll": -math.inf})
        for bad in ({"a": object()}, {1: "a"}, {"a": b"bytes"}, {"a": 10**5000}, {"a": {1, 2}}):
            with pytest.raises(JournalError):
                journal.append(bad)  # type: ignore[arg-type]
            with pytest.raises(JournalError):
                journal.snapshot(1, b"", bad)  # type: ignore[arg-type]
        first = journal.records()[0]
        assert journal.count == 1 and math.isnan(first["grad"]) and first["nll"] == -math.inf


def test_fingerprints() -> None:
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert fingerprint(b"") == fingerprint("") == empty
    assert fingerprint({"a": 1, "b": [2.5]}) == fingerprint({"b": (2.5,), "a": 1}) != fingerprint({"a": 1, "b": [2]})
    assert fingerprint("\ud800")
    assert file_fingerprint(__file__) == fingerprint(Path(__file__).read_bytes())
    with pytest.raises(StorageError):
        file_fingerprint("/no/such/file")


# --- damage ---


def test_a_record_torn_at_any_byte_is_cut_off(fast: Path) -> None:
    path = make(fast, snapshots=False) / "records.jsonl"
    whole = path.read_bytes()
    begin = whole.rindex(b"\n", 0, -1) + 1
    for end in range(begin, len(whole)):
        for tail in (b"", b"\0\0\0", b'{"seq":9}\n'):
            path.write_bytes(whole[:end] + tail)
            with Journal.resume(fast, MANIFEST) as journal:
                assert journal.records() == [record(1), record(2)]
                lost = end + len(tail) - begin
                assert [f"{lost} bytes" in note for note in journal.notes] == [True] * bool(lost)
                assert path.read_bytes() == whole[:begin]
                assert journal.append(record(3)) == 3
            assert path.read_bytes() == whole


def test_a_flipped_byte_in_the_middle_is_refused_by_line(fast: Path) -> None:
    path = make(fast, 4) / "records.jsonl"
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for offset in range(ends[0], ends[1]):
        broken = bytearray(whole)
        broken[offset] ^= 1 << (offset % 7)
        path.write_bytes(broken)
        with pytest.raises(JournalError, match=r"line 2: .*--force"):
            Journal.resume(fast, MANIFEST)
        assert path.read_bytes() == broken
    assert Journal.peek(fast).state == "damaged" and "record 2" in Journal.peek(fast).reason
    with Journal.resume(fast, MANIFEST, force=True) as journal:
        assert journal.records() == [record(1)]
        assert (fast / "records.damaged").read_bytes() == broken[ends[0] :]
        assert journal.latest_snapshot() is None  # those there are follow records that are gone
        assert len(journal.notes) == 3
        for seq in (2, 3, 4):
            journal.append(record(seq) | {"text": "another way"})
        assert journal.latest_snapshot() is None  # the numbers are there again, the records are others


def test_lines_moved_or_removed_are_noticed(fast: Path) -> None:
    path = make(fast, 4, snapshots=False) / "records.jsonl"
    first, second, third, fourth = path.read_bytes().splitlines(keepends=True)
    for changed in ([second, third, fourth], [first, third, second, fourth], [first, first, second, third]):
        path.write_bytes(b"".join(changed))
        with pytest.raises(JournalError, match=r"line [12]:"):
            Journal.resume(fast, MANIFEST)
    path.write_bytes(second + third)
    with pytest.raises(JournalError, match="line 1: it has number 2"):
        Journal.resume(fast, MANIFEST)
    path.unlink()
    with pytest.raises(JournalError, match="gone"):
        Journal.resume(fast, MANIFEST)


def test_lines_of_another_run_are_noticed(fast: Path) -> None:
    for name in ("a", "b"):
        with Journal.create(fast / name, MANIFEST) as journal:
            for item in ({"run": name}, {"same": 1}, {"same": 2}):
                journal.append(item)
    mine, theirs = ((fast / name / "records.jsonl").read_bytes().splitlines(keepends=True) for name in ("a", "b"))
    (fast / "a" / "records.jsonl").write_bytes(b"".join([mine[0], *theirs[1:]]))
    with pytest.raises(JournalError, match="line 2: its checksum"):
        Journal.resume(fast / "a", MANIFEST)


def test_a_summary_of_other_records_does_not_count(fast: Path) -> None:
    path = make(fast, finish=True) / "records.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert Journal.peek(fast).state == "resumable"
    with Journal.resume(fast, MANIFEST) as journal:
        assert journal.summary is None and len(journal.notes) == 2
        journal.append(record(3) | {"other": True})
    with Journal.resume(fast, MANIFEST) as journal:
        assert journal.summary is None and "other records" in journal.notes[0]


def test_what_a_crash_left_is_cleared_away(fast: Path) -> None:
    make(fast, 4)
    before = tree(fast)
    for name in (
        "snapshots/000002.safetensors",
        "snapshots/.templora-x.safetensors",
        ".templora-x",
        "files/.templora-x",
    ):
        (fast / name).write_bytes(b"left")
    Journal.resume(fast, MANIFEST).close()
    assert tree(fast) == before


def test_a_corrupted_snapshot_falls_back_to_the_one_before(fast: Path) -> None:
    make(fast, 4)
    folder = fast / "snapshots"
    assert sorted(os.listdir(folder)) == [f"00000{n}.{suffix}" for n in (3, 4) for suffix in ("json", "safetensors")]
    good = tree(folder)
    os.utime(folder / "000004.json", (0, 0))  # dates decide nothing
    os.utime(folder / "000004.safetensors", (0, 0))

    def newest() -> tuple[int | None, int]:
        with Journal.resume(fast, MANIFEST) as journal:
            snapshot = journal.latest_snapshot()
            assert snapshot is None or snapshot.read() == data(snapshot.seq)
            assert journal.records() == [record(n) for n in range(1, 5)]
            return snapshot.seq if snapshot else None, len(journal.notes)

    assert newest() == (4, 0)
    for name in ("000004.safetensors", "000004.json"):
        for broken in (good[name][:-2], good[name][:50] + b"#" + good[name][51:], b""):
            (folder / name).write_bytes(broken)
            assert newest() == (3, 1)
        (folder / name).write_bytes(good[name])
    (folder / "000004.safetensors").unlink()
    assert newest() == (3, 1)
    (folder / "000003.json").unlink()
    assert newest() == (None, 1)


def test_the_newest_snapshots_are_kept(fast: Path) -> None:
    with Journal.create(fast, MANIFEST, keep=2) as journal:
        journal.snapshot(0, lambda path: path.write_bytes(data(0)), {})
        for seq in range(1, 6):
            journal.append(record(seq))
            journal.snapshot(seq, data(seq), {})
        assert sorted(path.name for path in (fast / "snapshots").glob("*.safetensors")) == [
            "000005.safetensors",
            "000006.safetensors",
        ]
        newest = journal.latest_snapshot()
        assert newest is not None and newest.seq == 5 and newest.read() == data(5)
        path = newest.path.with_suffix(".json")  # with a field that earlier descriptions had
        path.write_bytes(disk.seal({**disk.read_sealed(path), "best": False}))
        assert journal.latest_snapshot() == newest
        with pytest.raises(JournalError, match="record 6"):
            journal.snapshot(6, b"", {})


# --- who may continue what ---


def test_differences_are_listed_and_can_be_forced(fast: Path) -> None:
    make(fast)
    other = dataclasses.replace(
        MANIFEST,
        fingerprints={"text": fingerprint("another"), "settings": "0" * 64, "glossary": "1" * 64},
        versions={"torch": "2.2"},
        settings={"learn": {"lr": 0.2}},
        extra={"total": 5},
    )
    before = tree(fast)
    with pytest.raises(JournalError, match="--force") as caught:
        Journal.resume(fast, other)
    for part in ("text ", "settings learn.lr 0.1 -> 0.2", "glossary (none) ->", "version of torch 2.1 -> 2.2"):
        assert part in caught.value.line()
    with pytest.raises(JournalError, match=r"score -> write; .*another folder"):
        Journal.resume(fast, dataclasses.replace(MANIFEST, command="write"), force=True)
    assert tree(fast) == before
    with Journal.resume(fast, other, force=True) as journal:
        assert journal.count == 3 and len(journal.notes) == 4
    with Journal.resume(fast, dataclasses.replace(other, extra={}, settings={})) as journal:
        assert len(journal.manifest.forced) == 4 and journal.manifest.created
    with pytest.raises(JournalError):
        Journal.resume(fast, MANIFEST)
    with Journal.resume(fast, dataclasses.replace(other, extra={}, settings={})) as journal:
        journal.finish({})
    with pytest.raises(
        JournalError, match=r"finished, of another text; .*--fresh"
    ):  # its records say nothing of that one
        Journal.resume(fast, MANIFEST, force=True)


def test_only_empty_folders_become_runs_and_only_runs_are_resumed(fast: Path) -> None:
    make(fast / "run")
    with pytest.raises(JournalError, match="holds a run"):
        Journal.create(fast / "run", MANIFEST)
    (fast / "photos").mkdir()
    (fast / "photos" / "cat.jpg").write_bytes(b"cat")
    for refused in (Journal.create, Journal.resume):
        with pytest.raises(JournalError):
            refused(fast / "photos", MANIFEST)
    assert os.listdir(fast / "photos") == ["cat.jpg"]
    with pytest.raises(JournalError):
        Journal.resume(fast / "nothing", MANIFEST)
    assert not (fast / "nothing").exists()
    for bad in (dataclasses.replace(MANIFEST, command="dance"), dataclasses.replace(MANIFEST, versions={"a": 1})):  # type: ignore[dict-item]
        with pytest.raises(JournalError):
            Journal.create(fast / "nothing", bad)
    with pytest.raises(JournalError):
        Journal.create(fast / "a\0b", MANIFEST)


def fork(work: Any) -> tuple[int, int]:
    """Runs `work(report)` in a child; the pid and the pipe that it reports numbers on, one a line."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(lambda number: os.write(writing, b"%d\n" % number))
        finally:
            os._exit(0)
    os.close(writing)
    return pid, reading


def test_a_second_process_is_refused_until_the_first_is_gone(fast: Path) -> None:
    make(fast)

    def hold(report: Any) -> None:
        with Journal.resume(fast, MANIFEST):
            report(0)
            time.sleep(60)

    pid, pipe = fork(hold)
    try:
        assert os.read(pipe, 10) == b"0\n"
        with pytest.raises(JournalError, match=f"held by process {pid}"):
            Journal.resume(fast, MANIFEST)
        info = Journal.peek(fast)
        assert (info.state, info.holder, info.count) == ("running", pid, 3)
        assert prune(fast.parent, names=[fast.name], whole=True, unfinished=True) == []
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(pipe)
    with Journal.resume(fast, MANIFEST), pytest.raises(JournalError, match=f"process {os.getpid()}"):
        Journal.resume(fast, MANIFEST)
    assert Journal.peek(fast).state == "resumable"


def test_a_lock_file_that_was_pruned_meanwhile_is_not_trusted(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(fast)
    real, calls = fcntl.flock, []

    def flock(fd: int, how: int) -> None:
        calls.append(fd)
        if len(calls) == 1:  # between opening and locking, the file is replaced
            (fast / "lock").unlink()
            (fast / "lock").touch()
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with Journal.resume(fast, MANIFEST), pytest.raises(JournalError, match="held by"):
        Journal.resume(fast, MANIFEST)


def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    make(tmp_path / "run", 0)
    chance = random.Random(7)

    def work(report: Any) -> None:
        with Journal.resume(tmp_path / "run", MANIFEST) as journal:
            while True:
                seq = journal.append(record(journal.count + 1))
                report(seq)
                if seq % 2 == 0:
                    journal.snapshot(seq, data(seq), {"seq": seq})
                    report(-seq)

    total = replays = 0
    for _ in range(40):
        pid, pipe = fork(work)
        begin = os.read(pipe, 1)  # the first append is done
        time.sleep(chance.random() * 0.02)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with os.fdopen(pipe, "rb") as stream:
            reported = [int(word) for word in (begin + stream.read()).split()]
        with Journal.resume(tmp_path / "run", MANIFEST) as journal:
            assert journal.records() == [record(seq) for seq in range(1, journal.count + 1)]
            assert journal.count >= max(reported)
            snapshot = journal.latest_snapshot()
            saved = max((-number for number in reported if number < 0), default=0)
            assert (snapshot.seq if snapshot else 0) >= saved
            if snapshot:
                assert snapshot.read() == data(snapshot.seq) and snapshot.state == {"seq": snapshot.seq}
                replays += journal.count - snapshot.seq
            assert not [note for note in journal.notes if "cut off" not in note]
            assert not list((tmp_path / "run").rglob(f"{disk.TEMPORARY}*"))
            assert journal.count > total
            total = journal.count
    assert total >= 40 and replays > 0


# --- the disk says no ---


class Faults:
    """Makes the system calls that change the disk fail, `span` of them from the one with number `at` on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        self.at, self.span, self.calls, self.code = 0, 1.0, 0, code
        for name in ("write", "fsync", "replace", "mkdir", "open", "ftruncate", "unlink"):
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))

    def _wrap(self, name: str, real: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.at and (name != "open" or args[1] & os.O_CREAT):
                self.calls += 1
                if self.at <= self.calls < self.at + self.span:
                    if name == "write":
                        real(args[0], args[1][: len(args[1]) // 2])
                    raise OSError(self.code, os.strerror(self.code))
            return real(*args, **kwargs)

        return call


def work_to_the_end(folder: Path, acknowledged: list[int], again: bool) -> None:
    """Creates or resumes a run and brings it to its end; `again` retries what failed on the same journal."""

    def attempt(call: Any) -> Any:
        for _ in range(4 if again else 0):
            with contextlib.suppress(StorageError):
                return call()
        return call()

    resumable = (folder / "manifest.json").exists()
    with Journal.resume(folder, MANIFEST) if resumable else Journal.create(folder, MANIFEST) as journal:
        assert journal.count >= max(acknowledged, default=0)
        while journal.count < 3:
            acknowledged.append(attempt(lambda: journal.append(record(journal.count + 1))))
            attempt(lambda: journal.snapshot(journal.count, data(journal.count), {}))
        if journal.summary is None:
            attempt(lambda: journal.finish({"done": True}))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("mode", ["once", "retried", "retried2", "stays"])
def test_a_disk_that_fails_at_any_point_costs_nothing_acknowledged(
    fast: Path, monkeypatch: pytest.MonkeyPatch, mode: str, code: int
) -> None:
    faults = Faults(monkeypatch, code)
    failed = 0
    for at in range(1, 200):
        folder, acknowledged = fast / str(at), list[int]()
        faults.at, faults.calls, faults.span = at, 0, {"stays": math.inf, "retried2": 2}.get(mode, 1)
        try:
            work_to_the_end(folder, acknowledged, again=mode.startswith("retried"))
        except StorageError as error:
            failed += 1
            assert os.strerror(code) in error.line() and "\n" not in error.line()
        reached, faults.at = faults.calls >= at, 0
        path = folder / "records.jsonl"
        if mode == "once" and path.exists():
            assert path.read_bytes().endswith(b"\n") or not path.stat().st_size  # cut off at once
        work_to_the_end(folder, acknowledged, again=False)
        with Journal.resume(folder, MANIFEST) as journal:
            assert journal.records() == [record(seq) for seq in (1, 2, 3)] and journal.summary == {"done": True}
            snapshot = journal.latest_snapshot()
            assert snapshot is None or snapshot.read() == data(snapshot.seq)
            assert journal.notes == []
        if not reached:
            break
    assert not reached and failed >= (8 if mode.startswith("retried") else 40)


def test_a_real_file_size_limit(fast: Path) -> None:
    make(fast, 1, snapshots=False)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal.resume(fast, MANIFEST) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(StorageError, match="ulimit"):
                for _ in range(20):
                    journal.append(record(journal.count + 1))
            with pytest.raises(StorageError):
                journal.snapshot(1, bytes(2000), {})
            with pytest.raises(StorageError):
                journal.snapshot(1, lambda path: path.write_bytes(bytes(2000)), {})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (fast / "records.jsonl").read_bytes().endswith(b"\n")
        assert os.listdir(fast / "snapshots") == []
        count = journal.append(record(journal.count + 1))
    with Journal.resume(fast, MANIFEST) as journal:
        assert journal.records() == [record(seq) for seq in range(1, count + 1)] and journal.notes == []


def test_what_is_acknowledged_was_synced_in_this_order(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    make(fast, 1)
    for name in ("write", "fsync", "replace"):
        real = getattr(os, name)

        def call(*args: Any, real: Any = real, name: str = name) -> Any:
            what = "folder" if name == "fsync" and os.path.isdir(f"/proc/self/fd/{args[0]}") else name
            calls.append(what)
            return real(*args)

        monkeypatch.setattr(os, name, call)
    with Journal.resume(fast, MANIFEST) as journal:
        calls.clear()
        journal.append(record(2))
        assert calls == ["write", "fsync"]
        calls.clear()
        journal.append(record(3), sync=False)
        assert calls == ["write"]
        journal.snapshot(3, b"data", {})
        once = ["write", "fsync", "replace", "folder"]
        assert calls == ["write", "fsync", *once, *once]


def test_errors_of_a_snapshot_writer(fast: Path) -> None:
    def rust(path: Path) -> None:
        raise RuntimeError('I/O error: Os { code: 28, kind: StorageFull, message: "No space left on device" }')

    def bug(path: Path) -> None:
        raise ZeroDivisionError

    with Journal.create(fast, MANIFEST) as journal:
        with pytest.raises(StorageError, match="No space left"):
            journal.snapshot(0, rust, {})
        with pytest.raises(ZeroDivisionError):
            journal.snapshot(0, bug, {})
        with pytest.raises(StorageError):
            journal.snapshot(0, lambda path: path.unlink(), {})
        assert os.listdir(fast / "snapshots") == []


# --- inside the folder, and outside of it ---


def test_nothing_is_written_outside_the_run(fast: Path) -> None:
    outside = fast / "outside"
    outside.mkdir()
    run = make(fast / "run")
    with Journal.resume(run, MANIFEST) as journal:
        for name in ("../x", "/etc/x", "..", "", ".", "a/b", "a\0b"):
            with pytest.raises(JournalError):
                journal.write_file(name, b"")
        assert journal.write_file("part.txt", b"text").read_bytes() == b"text"
        (run / "files" / "link").symlink_to(outside / "target")
        with pytest.raises(JournalError, match="leads to"):
            journal.write_file("link", b"")
        shutil.rmtree(run / "snapshots")
        (run / "snapshots").symlink_to(outside)
        with pytest.raises(JournalError, match="leads to"):
            journal.snapshot(3, b"", {})
    with pytest.raises(JournalError, match="leads to"):
        Journal.resume(run, MANIFEST)
    (run / "snapshots").unlink()
    (run / "records.jsonl").rename(outside / "records.jsonl")
    (run / "records.jsonl").symlink_to(outside / "records.jsonl")
    before = tree(outside)
    with pytest.raises(JournalError, match="leads to"):
        Journal.resume(run, MANIFEST)
    assert tree(outside) == before and sorted(os.listdir(fast)) == ["outside", "run"]


def test_a_run_that_was_removed_is_noticed(fast: Path) -> None:
    with Journal.create(fast / "run", MANIFEST) as journal:
        shutil.rmtree(fast / "run")
        with pytest.raises(JournalError, match="removed"):
            journal.append(record(1))


def test_atomic_write(fast: Path) -> None:
    path = fast / "out.txt"
    atomic_write(path, b"one")
    path.chmod(0o640)
    with pytest.raises(ZeroDivisionError), atomic_writer(path) as temporary:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"one"
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two" and path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(fast) == ["out.txt"]
    (fast / "link").symlink_to(path)
    os.mkfifo(fast / "pipe")
    for refused in (fast / "link", fast / "pipe", fast, fast / "no" / "folder", fast / ("x" * 300), "/dev/null"):
        with pytest.raises(StorageError):
            atomic_write(refused, b"")
    assert (fast / "link").is_symlink() and path.read_bytes() == b"two" and not Path("/dev/null").is_file()


def test_a_clock_that_goes_backwards_breaks_nothing(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**9, 0, -(10**6)))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    monkeypatch.setattr(run_module, "_now", lambda: f"{next(clock)}")
    for at in range(3):
        folder = make(fast / str(at), 3)
        for path in folder.rglob("*"):
            os.utime(path, (2**33 - at, 2**33 - at))
        with Journal.resume(folder, MANIFEST) as journal:
            snapshot = journal.latest_snapshot()
            assert snapshot is not None and snapshot.seq == 3
            assert journal.append(record(4)) == 4
            assert SnapshotPolicy(every=1).due(journal.snapshot(4, b"", {}).seconds)
    assert [run.count for run in list_runs(fast)] == [4, 4, 4]


# --- many runs ---


def test_list_and_prune(fast: Path) -> None:
    root = fast / "runs"
    assert list_runs(root) == [] == prune(root)
    make(root / "done", finish=True)
    make(root / "half")
    make(root / "torn")
    with (root / "torn" / "records.jsonl").open("ab") as stream:
        stream.write(b'{"seq"')
    (make(root / "broken", finish=True) / "manifest.json").write_text("{}")
    (root / "foreign").mkdir()
    (root / "foreign" / "manifest.json").write_text('{"name": "web app"}')
    (root / "foreign" / "summary.json").write_text("{}")
    make(fast / "elsewhere", finish=True)
    (root / "link").symlink_to(fast / "elsewhere")
    (root / "done" / "mine.txt").write_text("the user's")
    (root / "done" / "snapshots" / "mine.safetensors").write_text("the user's")
    (root / "done" / "snapshots" / "999999.json").symlink_to(fast / "elsewhere" / "manifest.json")

    listed = {run.folder.name: run for run in list_runs(root)}
    states = {name: run.state for name, run in listed.items()}
    assert states == {
        "broken": "damaged",
        "done": "finished",
        "foreign": "damaged",
        "half": "resumable",
        "torn": "resumable",
    }
    half = listed["half"]
    assert (half.command, half.count, half.tokens, half.seconds, half.position) == ("score", 3, 30, 1.5, 30)
    assert (half.total, half.tokens_per_second, half.snapshots) == (1000, 20.0, 2)
    assert half.bytes == sum(path.stat().st_size for path in (root / "half").rglob("*") if path.is_file())
    assert "torn" in listed["torn"].reason and "checksum" in listed["broken"].reason
    assert list(half.records()) == [record(1), record(2), record(3)]
    assert (root / "torn" / "records.jsonl").read_bytes().endswith(b'{"seq"')  # looking repairs nothing

    others = {name: tree(root / name) for name in ("broken", "foreign", "half", "torn")}
    outside = tree(fast / "elsewhere")
    with pytest.raises(JournalError, match="no run 'link'"):
        prune(root, names=["link"], whole=True)
    (planned,) = prune(root, dry_run=True)
    assert listed["done"].snapshots == 2 == Journal.peek(root / "done").snapshots
    assert prune(root) == [planned] and planned.bytes > 400
    assert sorted(os.listdir(root / "done" / "snapshots")) == ["999999.json", "mine.safetensors"]
    assert Journal.peek(root / "done").state == "finished"
    (whole,) = prune(root, whole=True)
    assert whole.what == "run" and sorted(os.listdir(root / "done")) == ["mine.txt", "snapshots"]
    assert {name: tree(root / name) for name in others} == others
    assert [item.folder.name for item in prune(root, whole=True, unfinished=True)] == ["half", "torn"]
    assert sorted(os.listdir(root)) == ["broken", "done", "foreign", "link"]
    assert tree(fast / "elsewhere") == outside


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_root() == Path("/state/templora/runs")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert default_root() == Path("/home/ann/.local/state/templora/runs")


# --- hostile content ---

names = st.sampled_from(["manifest.json", "records.jsonl", "summary.json", "snapshots/000003.json", "lock"])
hostile_json = st.dictionaries(
    st.sampled_from(["format", "schema", "command", "fingerprints", "versions", "settings", "extra", "created",
                     "forced", "seq", "crc", "size", "sha256", "best", "state", "summary", "count", "x"]),
    json_values, max_size=18,
)  # fmt: skip


def look_and_resume(folder: Path) -> None:
    """Whatever is in the folder: an answer, or a TemploraError."""
    list_runs(folder.parent)
    prune(folder.parent, names=(), whole=True)
    with contextlib.suppress(TemploraError):
        info = Journal.peek(folder)
        assert [item for item in info.records() if not isinstance(item, dict)] == []
        assert info.tokens_per_second >= 0 and info.bytes > 0
    for force in (False, True):
        with contextlib.suppress(TemploraError), Journal.resume(folder, MANIFEST, force=force) as journal:
            journal.latest_snapshot()
            assert [item for item in journal.records() if not isinstance(item, dict)] == []
            journal.append({"after": "all"})
    with contextlib.suppress(TemploraError):
        Journal.create(folder, MANIFEST).close()


@pytest.fixture(scope="module")
def template() -> Iterator[dict[str, bytes]]:
    with fast_folder() as folder:
        make(folder / "run", finish=True)
        yield tree(folder / "run")


def lay(template: dict[str, bytes], folder: Path) -> None:
    for name, content in template.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@settings(QUICK, max_examples=150)
@given(name=names, value=st.data())
def test_fuzzed_files_are_refused_in_words(template: dict[str, bytes], name: str, value: st.DataObject) -> None:
    with fast_folder() as folder:
        lay(template, folder / "run")
        kind = value.draw(st.sampled_from(["bytes", "deep", "sealed", "record", "mutated"]))
        content = value.draw(st.binary(max_size=200)) if kind != "deep" else b"[" * 100_000
        if kind == "sealed":  # the checksum is right, the content is anything
            base = disk.parse(template.get(name, b"{}")) if name.endswith(".json") else {}
            content = disk.seal({**{k: v for k, v in base.items() if k != "checksum"}, **value.draw(hostile_json)})
        elif kind == "record":
            payload = value.draw(json_values.map(disk.canonical)).encode() * value.draw(st.integers(0, 2))
            content = b'{"seq":1,"crc":"%08x","record":%s}\n' % (disk_crc(payload), payload)
        elif kind == "mutated":
            old = template.get(name, b"")
            at = value.draw(st.integers(0, len(old)))
            content = old[:at] + content + old[at + value.draw(st.integers(0, 5)) :]
        (folder / "run" / name).write_bytes(content)
        look_and_resume(folder / "run")


def disk_crc(payload: bytes) -> int:
    from edge.journal.lines import _checksum

    return _checksum(1, payload, 0)


def test_odd_files_in_the_place_of_ours_neither_hang_nor_escape(template: dict[str, bytes], fast: Path) -> None:
    for index, name in enumerate([*template, "lock", "snapshots", "files"]):
        for kind in ("pipe", "folder", "link", "loop"):
            folder = fast / f"{index}{kind}"
            lay(template, folder)
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if kind == "pipe":
                os.mkfifo(path)
            elif kind == "folder":
                path.mkdir()
            else:
                path.symlink_to(path if kind == "loop" else fast / "target")
            look_and_resume(folder)
            assert not (fast / "target").exists()


# --- when to take a snapshot ---


@QUICK
@given(st.lists(st.tuples(st.floats(0.01, 100), st.floats(0.001, 5)), min_size=1, max_size=100), st.floats(0.005, 0.5))
def test_the_cost_of_snapshots_stays_within_its_fraction(chunks: list[tuple[float, float]], fraction: float) -> None:
    cost = max(cost for _, cost in chunks)
    first, second = (SnapshotPolicy(fraction, first_cost=cost) for _ in range(2))
    work = spent = 0.0
    for seconds, _ in chunks:
        due = first.due(seconds)
        assert due == second.due(seconds)  # the same measurements, the same decisions
        work += seconds
        affordable = spent + cost <= fraction * (work + spent + cost)
        assert due == affordable or math.isclose(spent + cost, fraction * (work + spent + cost))
        if due:
            spent += cost
            first.paid(cost)
            second.paid(cost)
        assert spent <= fraction * (work + spent) * (1 + 1e-9)


def test_snapshot_policy_edges() -> None:
    fixed = SnapshotPolicy(every=3)
    decisions = []
    for _ in range(7):
        decisions.append(fixed.due(0.0))
        if decisions[-1]:
            fixed.paid(1e9)
    assert decisions == [False, False, True, False, False, True, False]
    policy = SnapshotPolicy(first_cost=1.0)
    assert not any(policy.due(seconds) for seconds in (-5.0, math.nan, math.inf, 48.9))
    assert policy.due(0.2)
    policy.paid(10.0)  # dearer than thought: waits until it is paid off and the next one fits
    assert not policy.due(900.0) and policy.due(100.0)
    for wrong in ({"fraction": 0.0}, {"fraction": 1.0}, {"fraction": math.nan}, {"every": 0}, {"first_cost": -1.0}):
        with pytest.raises(SettingsError):
            SnapshotPolicy(**wrong)
