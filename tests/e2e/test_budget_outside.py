"""A budget is kept as the parent sees it: it samples the resident set, and trusts no number of the program's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import tiny

BUDGET = 1_000_000_000
PAGE = os.sysconf("SC_PAGE_SIZE")
PROSE = (Path(__file__).resolve().parents[2] / "scripts/data/egoist.txt").read_bytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("outside") / "model"))


def _text(path: Path, size: int) -> str:
    with path.open("wb") as file:
        written = number = 0
        while written < size:
            number += 1
            written += file.write(PROSE + b"\n\n%d\n\n" % number)
    return str(path)


def _watched(args: list[str], seconds: float | None = None) -> tuple[int, int, str]:
    """The exit code, the largest resident set, standard error; stopped `seconds` after it said how far it is."""
    options = ["--memory-budget", str(BUDGET), "--no-run", "--set", "window.chunk=64", "--set", "window.size=128"]
    said = Path(next(arg for arg in args if arg.endswith(".txt")) + ".said")
    with said.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "edge.cli", *args, *options], stdout=subprocess.DEVNULL, stderr=errors
        )
        largest, deadline = 0, None
        while child.poll() is None:
            fields = Path(f"/proc/{child.pid}/statm").read_text().split()
            largest = max(largest, int(fields[1]) * PAGE)
            if seconds is not None and deadline is None and b" tokens" in said.read_bytes():
                deadline = time.monotonic() + seconds
            if deadline is not None and time.monotonic() > deadline:
                child.send_signal(signal.SIGINT)
                deadline = time.monotonic() + 60
            time.sleep(0.005)
    return child.returncode, largest, said.read_text()


def test_a_text_of_any_length_is_scored_in_the_memory_of_a_short_one(model: str, tmp_path: Path) -> None:
    peaks = []
    for megabytes in (3, 20, 200):
        text = _text(tmp_path / "text.txt", megabytes * 1_000_000)
        code, largest, said = _watched(["score", text, "--model", model, "--max-tokens", "256"])
        assert code == 0, said
        peaks.append(largest)
    assert max(peaks) < BUDGET and max(peaks) - min(peaks) < 20_000_000


def test_a_long_manuscript_is_read_as_it_comes(model: str, tmp_path: Path) -> None:
    text = _text(tmp_path / "text.txt", 200_000_000)
    code, largest, said = _watched(["write", "--prompt-file", text, "--model", model], seconds=5)
    assert code == 130, said
    assert 300_000_000 < largest < 700_000_000


def test_a_book_that_does_not_fit_is_refused_before_the_model_is_loaded(model: str, tmp_path: Path) -> None:
    translate = ["--from", "en", "--to", "de", "--model", model]
    text = _text(tmp_path / "text.txt", 20_000_000)
    code, largest, said = _watched(["translate", text, *translate], seconds=1)
    assert code == 130 and largest < BUDGET, said
    text = _text(tmp_path / "text.txt", 200_000_000)
    code, largest, said = _watched(["translate", text, *translate])
    assert code == 5 and largest < 1.02 * BUDGET
    assert said.count("\n") == 1 and "text.txt does not fit in memory while it is read" in said
