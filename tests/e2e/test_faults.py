"""A run that meets a fault: one clear line, its exit code, and the same end as an undisturbed run when it continues."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from edge import cli
from edge.learning import learner
from tests import tiny
from tests.e2e.test_resume import command, outcome, records


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("faults") / "model", "qwen3"))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "book.txt"
    path.write_text(tiny.TEXT * 4)
    return path


def no_memory(patch: pytest.MonkeyPatch, after: int) -> None:
    """Every backward pass fails from the `after`-th on, as torch says it; tighter plans do not help."""
    real, seen = torch.autograd.backward, [0]

    def backward(*args: Any, **kwargs: Any) -> None:
        seen[0] += 1
        if seen[0] > after:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
            )
        real(*args, **kwargs)

    patch.setattr(torch.autograd, "backward", backward)


def failing_fsync(number: int) -> Callable[[pytest.MonkeyPatch, int], None]:
    """Files can no longer be made durable: the disk is full, or the right to write is gone."""

    def install(patch: pytest.MonkeyPatch, after: int) -> None:
        real, seen = os.fsync, [0]

        def fsync(file: int) -> None:
            seen[0] += 1
            if seen[0] > 2 * after:
                raise OSError(number, os.strerror(number))
            real(file)

        patch.setattr(os, "fsync", fsync)
        patch.setattr(os, "fdatasync", fsync)

    return install


def run(args: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, bytes, str]:
    capsys.readouterr()
    code = cli.main(args)
    said = capsys.readouterr()
    return code, said.out.encode(), said.err


@contextmanager
def undisturbed(model: str, book: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    code, out, err = run(command("score", model, book, folder), capsys)
    assert code == 0, err
    yield outcome(out)


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [(no_memory, 5, "memory ran out"), (failing_fsync(errno.ENOSPC), 8, "No space left"),
     (failing_fsync(errno.EACCES), 8, "Permission denied"), (failing_fsync(errno.EROFS), 8, "Read-only"),
     (failing_fsync(errno.EIO), 8, "Input/output error")],
    ids=["out of memory", "disk full", "permission lost", "read-only", "failing disk"],
)  # fmt: skip
def test_a_fault_costs_nothing_that_was_done(
    fault: Callable[[pytest.MonkeyPatch, int], None], code: int, words: str, model: str, book: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    args = command("score", model, book, tmp_path / "run")
    with undisturbed(model, book, tmp_path / "whole", capsys) as expected:
        with pytest.MonkeyPatch.context() as patch:
            fault(patch, 8)
            found, _, err = run(args, capsys)
        assert found == code and "Traceback" not in err
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert words in line
        assert 1 <= records(tmp_path / "run") < len(expected["chunks"])
        found, out, err = run([*args, "--resume"], capsys)
        assert found == 0, err
        assert outcome(out) == expected


def test_a_gradient_that_is_no_number_is_not_learned(
    model: str, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = learner.Learner._gradients

    def gradients(self: learner.Learner, *args: Any) -> torch.Tensor:
        nll = real(self, *args)
        if self.chunks == 3:
            next(iter(self.adapter.parameters())).grad.view(-1)[0] = torch.nan  # type: ignore[union-attr]
        return nll

    monkeypatch.setattr(learner.Learner, "_gradients", gradients)
    code, out, err = run(command("score", model, book, tmp_path / "run"), capsys)
    assert code == 0, err
    chunks = json.loads(out.splitlines()[-1])["chunks"]
    lessons = [c for c in chunks if c["learned"]]  # a last chunk of one token is none
    assert len(lessons) > 4 and [c["index"] for c in lessons if not c["learned"]["kept"]] == [3]
    assert "not finite" in chunks[3]["learned"]["reason"]
    assert all(c["adapter_nll"] > 0 for c in chunks)


def test_a_clock_that_goes_backwards(
    model: str, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with undisturbed(model, book, tmp_path / "whole", capsys) as expected:
        start = time.time()
        monkeypatch.setattr(time, "time", lambda: start - 1000 * time.perf_counter())
        code, out, err = run(command("score", model, book, tmp_path / "run"), capsys)
        assert code == 0, err
        assert outcome(out) == expected


def test_a_corrupted_snapshot_is_replayed_from_the_one_before(
    model: str, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [*command("score", model, book, tmp_path / "run"), "--snapshot-every", "2"]
    with undisturbed(model, book, tmp_path / "whole", capsys) as expected:
        with pytest.MonkeyPatch.context() as patch:
            no_memory(patch, 10)
            assert run(args, capsys)[0] == 5
        snapshots = sorted((tmp_path / "run/snapshots").glob("*.safetensors"))
        assert snapshots
        data = bytearray(snapshots[-1].read_bytes())
        data[len(data) // 2] ^= 1
        snapshots[-1].write_bytes(data)
        code, out, err = run([*args, "--resume"], capsys)
        assert code == 0, err
        assert outcome(out) == expected and "passed over" in err
