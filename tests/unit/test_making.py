"""What is made once, in a cache that processes share: one waits for the other, leftovers go, names come after the
data."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edge import cli, journal, settings
from edge.commands import quantize as command
from edge.errors import ModelError, StorageError
from edge.store import sources
from edge.weights import adapterfolder, quantize
from export import exporter, manifest, opener
from tests import tiny


def together(call: Any) -> list[Any]:
    """What two threads give that do the same at once."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_a_conversion_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    source = sources.resolve(str(tiny.gguf(tmp_path / "m.gguf")))
    folder = sources.conversion_folder(source)
    left = folder.parent / f".{folder.name}.killed"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("half")
    real, made = quantize.quantize_to_folder, []

    def slow(*args: Any, **kwargs: Any) -> Any:
        made.append(args)
        time.sleep(0.2)
        return real(*args, **kwargs)

    monkeypatch.setattr(quantize, "quantize_to_folder", slow)
    found = together(lambda: quantize.convert_once(source))
    assert [getattr(result, "path", result) for result in found] == [folder] * 2
    assert len(made) == 1 and not left.exists()


def test_an_export_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path))
    base, made = SimpleNamespace(fingerprint=lambda: "ab" * 32), []

    def export(base: Any, out: Path, *rest: Any) -> None:
        made.append(out)
        with exporter._staging(out) as folder:
            time.sleep(0.2)
            (folder / manifest.MANIFEST).write_text("{}")

    asked = settings.load("economical", ["forward=onnx"])
    monkeypatch.setattr(exporter, "export", export)
    found = together(lambda: opener.cached(base, asked, "cpu"))  # type: ignore[arg-type]
    assert len(made) == 1 and found == [made[0]] * 2


def test_a_file_that_is_replaced_while_it_is_converted_is_no_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache says by its name what was read: another model never lies under a file's sha256."""
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    path = tiny.gguf(tmp_path / "m.gguf")
    source = sources.resolve(str(path))
    tiny.gguf(tmp_path / "other.gguf", seed=1).replace(path)
    with pytest.raises(ModelError, match="changed while it was read"):
        quantize.convert_once(source)
    assert [left.name for left in (tmp_path / "cache" / "models").iterdir() if left.is_dir()] == []


@pytest.mark.parametrize("make", [lambda out: quantize._new_folder(out, False), exporter._staging])
def test_data_is_durable_before_it_has_its_name(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def fsync(number: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        sync(number)

    def renamed(self: Path, target: Path) -> Path:
        done.append(f"-> {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    with make(tmp_path / "out") as folder:
        (folder / "weights").write_text("x")
        (folder / "templora.json").write_text("{}")
    assert done.index("-> out") == 3 and {"weights", "templora.json"} <= set(done[:3]) and done[4] == tmp_path.name


def test_a_conversion_is_replaced_while_nobody_makes_or_removes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`quantize MODEL` without OUT, and taking it away, wait for who holds the conversion's lock."""
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    path = tiny.gguf(tmp_path / "m.gguf")
    source = sources.resolve(str(path))
    folder = quantize.convert_once(source).path
    before = folder.stat().st_ino
    waiting = [
        lambda: command.run(cli.parser().parse_args(["quantize", str(path)])) or 0,
        lambda: sources.remove_conversion(source, lambda line: None),
    ]
    for act in waiting:
        done: list[Any] = []
        thread = threading.Thread(target=lambda act=act, done=done: done.append(act()))  # type: ignore[misc]
        with journal.making(folder):
            thread.start()
            thread.join(3)
            assert thread.is_alive() and folder.stat().st_ino == before
        thread.join()
        assert len(done) == 1 and (not folder.exists() if done[0] else folder.stat().st_ino != before)
        before = folder.stat().st_ino if folder.exists() else 0
    assert [left.name for left in folder.parent.iterdir() if left.is_dir()] == []


def test_a_folder_is_made_by_one_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def make() -> int:
        with journal.making(tmp_path / "x"):
            inside.append(1)
            time.sleep(0.1)
            assert inside.pop() and not inside
        return 0

    assert together(make) == [0, 0]


@pytest.mark.parametrize("make", [lambda out: quantize._new_folder(out, False), exporter._staging])
def test_what_a_killed_process_left_beside_a_named_folder_is_removed(make: Any, tmp_path: Path) -> None:
    left, mine = tmp_path / ".out.templora-abc", tmp_path / ".out.backup"
    for folder in (left, mine):
        folder.mkdir()
        (folder / "weights").write_text("x")
    os.utime(left, (time.time() - 60,) * 2)
    with journal.unfinished(tmp_path / "out") as held:  # another process's, still alive
        os.utime(held, (time.time() - 60,) * 2)
        with make(tmp_path / "out") as folder:
            (folder / "templora.json").write_text("{}")
        assert held.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.backup", "out"]


@pytest.mark.parametrize(
    "make",
    [
        lambda out: quantize._new_folder(out, False),
        lambda out: quantize._new_folder(out, False, goes_on=True),
        exporter._staging,
    ],
)
def test_a_process_killed_as_it_names_a_folder_leaves_nothing_beside_it(make: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    child = os.fork()
    if child == 0:  # pragma: no cover, it is killed
        real = Path.rename

        def rename(path: Path, target: Path) -> None:
            real(path, target)
            os.kill(os.getpid(), signal.SIGKILL)

        Path.rename = rename  # type: ignore[method-assign, assignment]
        with make(out) as folder:
            (folder / "templora.json").write_text("{}")
            (folder / quantize.RECORD).write_text("")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and (out / "templora.json").exists()
    assert make is exporter._staging or not (out / quantize.RECORD).exists()
    assert out.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_exports_of_earlier_formats_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the same base, precision and device alone; later ones and other files stay."""
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path))
    folder = sources.export_folder("a" * 64, "int8", "cpu")
    name = folder.name.rpartition("-v")[0]
    here = [folder.name, f"{name}-v999", f"{name}-vx", "b-int8-cpu-v1", f"{name.replace('int8', 'nf4')}-v1"]
    for one in [*here, f"{name}-v1", f"{name}-v2"]:
        (folder.parent / one).mkdir(parents=True)
        (folder.parent / one / "weights.data").write_bytes(b"1")
    sources.sweep_exports(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == sorted(here)


@pytest.mark.parametrize("name", ["config.json", "records.jsonl"])
def test_an_adapter_is_not_written_into_a_folder_of_something_else(name: str, tmp_path: Path) -> None:
    """A 4-bit folder's manifest has the name of an adapter's; with an adapter in it, a model is refused."""
    folder = tmp_path / "folder"
    folder.mkdir()
    files = {name: "{}", adapterfolder.OURS: '{"format": 3}'}
    for file, text in files.items():
        (folder / file).write_text(text)
    tensors = {f"layer.{part}": torch.ones(2, 2) for part in ("lora_A", "lora_B")}
    kept = adapterfolder.Kept(folder, tensors, 2, 1.0, "b" * 64)
    with pytest.raises(StorageError, match=f"holds {name}; expected a new or empty folder"):
        adapterfolder.write(folder, kept, "model")
    assert {path.name: path.read_text() for path in folder.iterdir()} == files
    for _ in range(2):  # an earlier adapter is replaced
        adapterfolder.write(tmp_path / "new", kept, "model")
    assert adapterfolder.read(tmp_path / "new").rank == 2
