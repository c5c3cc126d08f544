"""Making a 4-bit folder tensor by tensor: the same bytes as from the whole model, and the same after a stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.errors import BudgetError, ModelError
from edge.memory import conversion
from edge.store import sources
from edge.weights import alone, checkpoint, nf4, pieces, quantize, stream, tensorfile
from tests import tiny


def whole(source: Path, out: Path) -> dict[str, bytes]:
    """A folder made of the whole model in memory."""
    found = sources.resolve(str(source))
    quantize._at_once(found, out, False, False, None, None)
    return files(out)


def in_pieces(source: Path, out: Path) -> dict[str, bytes]:
    found = sources.resolve(str(source))
    quantize._in_pieces(found, out, False, False, "cpu", None, lambda done, total: None, None)
    return files(out)


def files(folder: Path) -> dict[str, bytes]:
    """Every file's bytes; of the manifest, what does not name a time."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(found["templora.json"])
    for entry in manifest["contents"].values():
        entry.pop("mtime_ns")
    return found | {"templora.json": json.dumps(manifest).encode()}


def same(one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    assert one.keys() == other.keys()
    return all(one[name] == other[name] for name in one)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_folder_gives_the_same_bytes(architecture: str, dtype: str, tmp_path: Path) -> None:
    made = tiny.model(architecture).to(getattr(torch, dtype))
    made.save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    assert same(in_pieces(tmp_path / "full", tmp_path / "new"), whole(tmp_path / "full", tmp_path / "old"))
