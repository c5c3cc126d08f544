"""Two commands that need the same thing for the first time, started together: both end well, and nothing is left
behind.

Twice each; TEMPLORA_STARTS=20 for more.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from edge.weights import quantize
from tests import tiny
from tests.commands import Command

TIMES = int(os.environ.get("TEMPLORA_STARTS", "2"))
SMALL = ["--set", "window.chunk=24", "--set", "window.size=64", "--set", "adapter.rank=4", "--set", "learn.mode=none",
         "--set", "compute.threads=1", "--max-tokens", "30", "--no-run", "--json"]  # fmt: skip
# The command line with one more embedded model, which waits for a file so that two processes begin at once.
DRIVER = """
import os, sys, time
os.environ["TEMPLORA_CACHE"] = {cache!r}
sys.path.insert(0, {site!r})
from edge import cli
from edge.store import embedded
from edge.store.parts import Embedded
embedded.ENTRIES["demo-small"] = {entry}
print("ready", flush=True)
while not os.path.exists({go!r}):
    time.sleep(0.002)
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.gguf(tmp_path_factory.mktemp("starts") / "m.gguf")


@pytest.fixture(scope="module")
def site(gguf: Path) -> tuple[Path, str]:
    """Where the file's packages are installed, and the table's entry for it."""
    data, parts = gguf.read_bytes(), 3
    piece = -(-len(data) // parts)
    folder = gguf.parent / "site"
    for number in range(1, parts + 1):
        package = folder / f"tiny_model_part{number}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError('nothing of a part is run')")
        (package / "data" / f"part{number:02}.bin").write_bytes(data[(number - 1) * piece : number * piece])
    entry = (
        f"Embedded(name='demo-small', title='A tiny model', licence=('Tiny', 'https://example.org/'), file='t.gguf', "
        f"size={len(data)}, sha256='{sha256(data).hexdigest()}', package='tiny-model-part', parts={parts}, "
        f"version='0.9.0', member='data/part{{0:02}}.bin', piece={piece}, extra='tiny')"
    )
    return folder, entry


def both(args: list[str], cache: Path, site: tuple[Path, str]) -> list[dict[str, Any]]:
    """What two processes of one command say, begun together on one empty cache."""
    driver = cache.parent / "driver.py"
    go = cache.parent / "go"
    driver.write_text(DRIVER.format(cache=str(cache), site=str(site[0]), entry=site[1], go=str(go)))
    started = [Command(args, driver) for _ in range(2)]
    for process in started:
        process.line(process.stdout)
    go.touch()
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


def folders(cache: Path) -> list[str]:
    """All folders of the cache; what is left of a process that made one would be among them."""
    return sorted(path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_dir())


def left(cache: Path) -> list[str]:
    """Names below the cache's rooms that nobody should find there: begun folders and files, but no locks."""
    names = (path for path in cache.glob("*/*") if path.suffix != ".lock" and path.parent.name != "locks")
    return [path.name for path in names if path.name.startswith(".") or ".partial" in path.name]


def same(results: list[dict[str, Any]]) -> bool:
    one, other = ([chunk["base_nll"] for chunk in result["chunks"]] for result in results)
    return bool(one) and one == other


@pytest.mark.parametrize("time", range(TIMES))
def test_an_embedded_model_is_assembled_by_one(time: int, site: tuple[Path, str], tmp_path: Path) -> None:
    both(["plan", "--model", "demo-small", "--json"], tmp_path / "cache", site)
    assert sorted(path.name for path in (tmp_path / "cache/demo-small").iterdir()) == ["t.gguf", "verified"]
    assert left(tmp_path / "cache") == [] and set(folders(tmp_path / "cache")) <= {"demo-small", "locks"}


@pytest.mark.parametrize("time", range(TIMES))
def test_a_gguf_file_is_converted_by_one(time: int, gguf: Path, site: tuple[Path, str], tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    book.write_text(tiny.TEXT)
    cache = tmp_path / "cache"
    assert same(both(["score", str(book), "--model", str(gguf), *SMALL], cache, site))
    made = [name for name in folders(cache) if name.startswith("models/")]
    assert len(made) == 1 and left(cache) == []


@pytest.mark.parametrize("time", range(TIMES))
def test_a_graph_is_exported_by_one(time: int, gguf: Path, site: tuple[Path, str], tmp_path: Path) -> None:
    book, model = tmp_path / "book.txt", tmp_path / "nf4"
    book.write_text(tiny.TEXT)
    quantize.quantize_to_folder(str(gguf), model)
    cache = tmp_path / "cache"
    assert same(both(["score", str(book), "--model", str(model), "--forward", "onnx", *SMALL], cache, site))
    made = [name for name in folders(cache) if name.startswith("onnx/")]
    assert len(made) == 1 and left(cache) == []
