"""An export holds one layer's weight beside the base, and the graph is compared when the base is gone."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.model.base import Base
from export import check, exporter, manifest, nf4
from export.check import Said
from tests import tiny


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_weights_are_written_one_after_the_other(
    precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[torch.Tensor]] = []
    most = 0
    real = nf4.matrix_of

    def watched(*args: Any) -> nf4.Matrix:
        nonlocal most
        most = max(most, sum(tensor() is not None for tensor in made))
        matrix = real(*args)
        assert isinstance(matrix, nf4.Int8 | nf4.Full)
        made.append(weakref.ref(matrix.tensors()[0]))
        return matrix

    monkeypatch.setattr(nf4, "matrix_of", watched)
    exporter.export(tiny.runtime("llama").base, tmp_path / "graph", precision)
    assert len(made) > 7
    assert most <= 1


def test_the_base_is_gone_when_the_graph_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[weakref.ref[Any]] = []
    real = check.parity

    def load() -> Base:
        base = tiny.runtime("llama").base
        models.append(weakref.ref(base.model))
        return base

    def alone(folder: Path, said: Said) -> dict[str, float]:
        assert models[0]() is None
        return real(folder, said)

    monkeypatch.setattr(check, "parity", alone)
    made = exporter.export_from(load, tmp_path / "graph", "int8")
    assert models
    assert set(made.parity) == {"adapter", "base", "nats"}
    assert manifest.read(tmp_path / "graph").parity == made.parity


def test_what_rounding_costs_is_measured_on_two_thousand_labels() -> None:
    base = tiny.runtime("llama").base
    pieces = check._pieces(base)
    assert sum(len(piece) - 1 for piece in pieces) >= 2000
    bos = base.tokenizer.bos_token_id
    assert all(int(piece[0]) == bos and int(piece[1]) != bos for piece in pieces)
