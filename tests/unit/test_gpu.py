"""On a CUDA device: the same promises as on the CPU. Collected only where there is one."""

from __future__ import annotations

import pytest
import torch

from edge import settings
from edge.machine import device
from edge.model import base as bases
from edge.session import Runtime
from edge.weights import quantize
from tests import tiny

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_cuda_scores_as_the_cpu_does_and_learns(architecture: str) -> None:
    results = []
    for name in ("cpu", "cuda"):
        chosen = device.choose(name, "float32")
        model = tiny.model(architecture)
        quantize.quantize_in_place(model, "cpu", torch.float32)
        base = bases.from_model(model.to(chosen.name), tiny.tokenizer(), chosen, architecture)
        before = base.checksum()
        with Runtime(base, settings.load("economical", tiny.WINDOW)).session() as session:
            results.append(list(session.score(tiny.TEXT * 2)))
        assert base.checksum() == before
    for ours, theirs in zip(*results, strict=True):
        assert ours.base_nll == pytest.approx(theirs.base_nll, rel=1e-3)
    assert results[1][-1].adapter_nll < 0.9 * results[1][-1].base_nll
