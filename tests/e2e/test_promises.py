"""What the README promises of privacy and of the user's files, seen by the interpreter's audit events."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

ROOT = Path(__file__).resolve().parent.parent.parent
SPY = """
import json, os, sys
seen = {"network": [], "pickle": [], "started": [], "written": []}
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        seen["network"].append(f"{event} {args[1:]}")
        raise PermissionError("the network is denied")
    if event == "pickle.find_class":
        seen["pickle"].append(list(args))
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        seen["started"].append(str(args[0]))
    if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        seen["written"].append(str(args[0]))
    if event in ("os.rename", "os.remove", "os.mkdir", "os.symlink", "os.link"):
        seen["written"] += [str(a) for a in args[:2] if isinstance(a, (str, bytes)) or hasattr(a, "__fspath__")]
sys.addaudithook(hook)
from edge import cli
codes = [cli.main(args) for args in json.loads(sys.argv[1])]
with open(sys.argv[2], "w") as file:
    json.dump({"codes": codes, **seen}, file)
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Three verbs on a local model, in one process that is watched."""
    home = tmp_path_factory.mktemp("promises")
    model = tiny.folder(home / "model", "qwen3", max_position_embeddings=2048)
    book, out = home / "book.txt", home / "out"
    book.write_text(tiny.TEXT)
    out.mkdir()
    before = _prints(home)
    common = ["--model", str(model), "--json"]
    for setting in ("compute.threads=1", "window.chunk=64", "window.size=128", "adapter.rank=4"):
        common += ["--set", setting]
    wide = ["--set", "window.chunk=256", "--set", "window.size=1024", "--set", "generate.ignore_eos=true"]
    runs = [
        ["score", str(book), *common, "--run", str(out / "score"), "--report", str(out / "report")],
        ["write", "--prompt-file", str(book), "--tokens", "70", *common, "--run", str(out / "write")],
        ["translate", str(book), "--from", "en", "--to", "de", *common, *wide, "--run", str(out / "translate"),
         "--out", str(out / "book.de.txt")],
    ]  # fmt: skip
    work = home / "elsewhere"
    work.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": str(out)}
    for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR"):  # libraries try whether they can write there
        env[name] = str(home / "scratch")
    (home / "scratch").mkdir()
    command = [sys.executable, "-c", SPY, json.dumps(runs), str(home / "seen.json")]
    done = subprocess.run(command, env=env, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[str]] = json.loads((home / "seen.json").read_text())
    assert _prints(home) == before and not list(work.iterdir())
    return found | {"home": [str(home)]}


def _prints(home: Path) -> dict[str, str]:
    files = [home / "book.txt", *sorted((home / "model").rglob("*"))]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}


def test_a_local_model_needs_no_network(seen: dict[str, list[str]]) -> None:
    assert seen["codes"] == [0, 0, 9]  # 9: a random model's translations are marked
    assert seen["network"] == []


def test_nothing_is_unpickled(seen: dict[str, list[str]]) -> None:
    assert seen["pickle"] == []


def test_nothing_is_written_but_what_was_named(seen: dict[str, list[str]]) -> None:
    (home,) = seen["home"]
    paths = {path for path in seen["written"] if not path.isdigit()}  # digits: a file that is open already
    assert any(path.startswith(f"{home}/out/score/") for path in paths)
    elsewhere = ("/dev/", "/proc/self/", f"{home}/out/", f"{home}/scratch/", f"{home}/seen.json")
    assert {path for path in paths if not f"{path}/".startswith(elsewhere)} == set()


def test_malformed_files_are_read_or_refused() -> None:
    """A part of `scripts/checks/fuzz`, which takes 10,000 turns, loads models and grows documents, too."""
    kinds = "document,settings,run manifest,records,model config,gguf,safetensors,glossary,aligned,export manifest,chat template"
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/checks/fuzz"), "--count", "800", "--seed", "7", "--only", kinds],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["turns"] == 800
