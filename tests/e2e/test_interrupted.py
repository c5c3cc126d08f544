"""Ctrl-C at any moment of the command's life: the exit code of a stop and one line at most, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.commands import stopping
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
MOMENTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.1, 1.5)  # seconds after the start


def interrupted(args: list[str], moment: float, number: int = signal.SIGINT) -> tuple[int, str]:
    """Exit code and standard error of a command that gets a signal."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "edge.cli", *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env, cwd=ROOT
    )
    time.sleep(moment)
    child.send_signal(number)
    _, said = child.communicate(timeout=60)
    return child.returncode, said.decode()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    (folder / "book.txt").write_text(tiny.TEXT * 40)
    return tiny.folder(folder / "model", "qwen3", max_position_embeddings=2048)


@pytest.mark.parametrize(
    ("verb", "number"),
    [("score", signal.SIGINT), ("score", signal.SIGTERM), ("runs", signal.SIGINT), ("quantize", signal.SIGINT)],
)
def test_an_interruption_is_one_line_at_any_moment(verb: str, number: int, model: Path, tmp_path: Path) -> None:
    book, run = str(model.parent / "book.txt"), ["--model", str(model), "--run", str(tmp_path / "run")]
    args = {"score": [book, *run], "runs": [], "quantize": [str(model), str(tmp_path / "out")]}[verb]
    codes = []
    for moment in MOMENTS:
        code, said = interrupted([verb, *args], moment, number)
        if f"{ROOT}/edge/" not in said and code in (1, -number):
            continue  # before the first line of ours: Python itself was starting
        assert "Traceback" not in said and len(said.splitlines()) <= 1, said
        assert code in (stopping.STOPPED, 0 if verb == "runs" else stopping.STOPPED)
        codes.append(code)
    assert stopping.STOPPED in codes


def test_an_interruption_while_a_module_is_imported_ends_the_process(tmp_path: Path) -> None:
    """A library that takes an interruption for a failed import of its own must not get the chance."""
    (tmp_path / "slow.py").write_text(
        "import time\ntry:\n    print('here', flush=True)\n    time.sleep(20)\nexcept BaseException:\n    raise ImportError('swallowed') from None\n"
    )
    code = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\nfrom edge.commands import stopping\nstopping.working()\nimport slow"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"here\n"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=10)
    assert child.returncode == stopping.STOPPED and said == b"stopped\n"


def test_an_interruption_is_not_lost_in_a_callback() -> None:
    """Python prints and forgets what is raised in `__del__`."""
    code = f"""
import signal, sys, time
sys.path.insert(0, {str(ROOT)!r})
from edge.commands import stopping
stopping.working()
class Held:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(1)
try:
    held = Held()
    del held
    time.sleep(10)
except KeyboardInterrupt:
    sys.exit(17)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == 17 and done.stderr == b""


def test_the_command_imports_nothing_before_it_can_be_interrupted() -> None:
    code = "import sys; before = set(sys.modules); import edge.cli; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, cwd=ROOT, text=True)
    assert done.stdout.strip() == "['__future__', 'edge', 'edge.cli']", done.stderr


ENDING = """
import atexit, ctypes, sys, threading, time, types
from edge.commands import stopping

class Told:
    def __del__(self):
        print("taken down", flush=True)

told = Told()
told.itself = told
atexit.register(print, "exit function")
how = sys.argv[1]
if how == "thread":
    threading.Thread(target=lambda: (time.sleep(0.3), print("worked", flush=True))).start()
if how == "daemon":
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
if how == "profile":
    sys.setprofile(lambda *args: None)
if how in ("monitored", "unmonitored"):
    named = {2: "cProfile"} if how == "monitored" else {}
    sys.monitoring = types.SimpleNamespace(get_tool=named.get)
if how == "C":
    ctypes.CDLL(None).puts(b"printed by C")
if how == "closed":
    sys.stdout = None
stopping.end(3)
sys.setprofile(None)
print("not ended", flush=True)
"""


@pytest.mark.parametrize(
    ("how", "said", "code"),
    [
        ("alone", ["exit function"], 3),
        ("daemon", ["exit function"], 3),
        ("thread", ["not ended", "worked", "exit function", "taken down"], 0),
        ("profile", ["not ended", "exit function", "taken down"], 0),
        ("monitored", ["not ended", "exit function", "taken down"], 0),
        ("unmonitored", ["exit function"], 3),
        ("C", ["exit function", "printed by C"], 3),
        ("closed", ["taken down"], 0),
    ],
)
def test_the_end_runs_exit_functions_and_takes_nothing_down(how: str, said: list[str], code: int) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}  # that C keeps what it prints, too
    done = subprocess.run(
        [sys.executable, "-c", ENDING, how], cwd=ROOT, capture_output=True, text=True, timeout=30, env=environment
    )
    assert done.stdout.splitlines() == said and done.returncode == code
