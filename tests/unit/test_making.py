"""What is made once, in a cache that processes share: one waits for the other, leftovers go, names come after the data."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edge import journal, quantize, sources
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
    """A real 4-bit folder takes the place of the GGUF file's, which only names it here."""
    full = tiny.folder(tmp_path / "full", "qwen3")
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    source = sources.Source("gguf", tmp_path / "m.gguf", str(full), "ab" * 32)
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

    monkeypatch.setattr(exporter, "export", export)
    found = together(lambda: opener.cached(base, "nf4", "cpu"))  # type: ignore[arg-type]
    assert len(made) == 1 and found == [made[0]] * 2


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
