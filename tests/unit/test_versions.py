"""Libraries that are older than what the package was made for are named before anything is imported from them."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

import pytest

import edge
from edge import cli
from edge.errors import DeviceError
from edge.machine import versions

NEEDED = ["torch>=2.6", "transformers>=5.17", "nothing>=1", 'onnx>=99; extra == "onnx"', "numpy"]


def installed(monkeypatch: pytest.MonkeyPatch, **there: str) -> None:
    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: NEEDED)
    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize("version", ["5.17", "5.17.0", "5.23.0", "6", "5.17.0.dev1"])
def test_what_is_new_enough_is_used(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, torch="2.13.0+cpu", transformers=version, onnx="1.0", numpy="1.0")
    versions.require()


@pytest.mark.parametrize("version", ["5.3.0", "4.57.1", "5.16.9", "5"])
def test_what_is_too_old_is_refused_by_name(
    version: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    installed(monkeypatch, torch="2.13.0+cpu", transformers=version)
    monkeypatch.delitem(sys.modules, "edge.session", raising=False)
    with pytest.raises(
        DeviceError, match=rf"transformers {version} is installed; expected 5\.17 or newer; pip install"
    ):
        _ = edge.load
    model = str(tmp_path / "model")
    (tmp_path / "model").mkdir()
    book = tmp_path / "book.txt"
    book.write_text("It was a dark night.")
    for args in (["score", str(book), "--model", model], ["quantize", model, str(tmp_path / "out")]):
        assert cli.main(args) == 6
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1 and f"transformers {version} is installed" in said[0]
    assert not (tmp_path / "out").exists()


def test_sources_that_were_not_installed_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def requires(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    assert list(versions.too_old()) == []
