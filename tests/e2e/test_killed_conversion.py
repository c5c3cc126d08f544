"""SIGKILL at ten moments of one conversion, each time the same command again: the folder is what it is without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.weights import quantize
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
# Makes the folder whole, with all that is imported for it, then makes another in a child for each moment; the child kills
# itself in the middle of a write.
DRIVER = """
import gc, os, signal, sys
import torch, transformers, bitsandbytes, accelerate, safetensors, gguf
from edge import cli, journal
from edge.weights import quantize, stream
torch.set_num_threads(1)
model, whole, out = sys.argv[1:]
really = os.pwrite

def make(folder, moment):
    count = 0
    def pwrite(fd, data, at):
        nonlocal count
        count += 1
        if moment == count:
            really(fd, data[: len(data) // 2], at)
            os.kill(os.getpid(), signal.SIGKILL)
        return really(fd, data, at)
    os.pwrite = pwrite
    if moment == -1:
        journal.sync_tree = lambda folder: os.kill(os.getpid(), signal.SIGKILL)
    code = cli.main(["quantize", model, folder])
    print("writes", count, flush=True)
    return code, count

def child(moment):
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    os._exit(make(out, moment)[0])

code, writes = make(whole, 0)
assert code == 0
gc.freeze()
step = max(1, writes // 10)
for moment in [1, *[step] * 8, -1]:
    status = child(moment)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (moment, status)
    assert not os.path.exists(out)
    print("killed", flush=True)
sys.exit(os.waitstatus_to_exitcode(child(0)))
"""


def run(*args: str, cache: Path) -> list[str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "OMP_NUM_THREADS": "1"}
    env["TEMPLORA_CACHE"] = str(cache)
    command = [sys.executable, "-c", DRIVER, *args]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def held(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "templora.json"}
    manifest = json.loads((folder / "templora.json").read_text())
    sums = {name: entry["sha256"] for name, entry in manifest.pop("contents").items()}
    return found | {"templora.json": json.dumps([manifest, sums]).encode()}


@pytest.mark.parametrize("kind", ["gguf", "folder"])
def test_a_killed_conversion_is_finished_by_the_same_command(kind: str, tmp_path: Path) -> None:
    model = tiny.gguf(tmp_path / "m.gguf", layers=4) if kind == "gguf" else tiny.folder(tmp_path / "m", layers=4)
    said = run(str(model), str(tmp_path / "whole"), str(tmp_path / "out"), cache=tmp_path / "cache")
    writes, last = (int(line.split()[1]) for line in said if line.startswith("writes"))
    assert writes > 100 and said.count("killed") == 10
    assert last < writes // 4  # the last one found the weights done
    assert held(tmp_path / "out") == held(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {model.name, "whole", "out", "cache"} - (
        set() if (tmp_path / "cache").exists() else {"cache"}
    )
    quantize.checkpoint.identity(quantize.sources.resolve(str(tmp_path / "out")))
