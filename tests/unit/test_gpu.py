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


@pytest.mark.parametrize("rows", [1, 4, 8])
def test_our_kernel_multiplies_as_bitsandbytes_widens(rows: int) -> None:
    from bitsandbytes import functional as F

    from edge.model import kernels

    torch.manual_seed(0)
    weight = torch.randn(1000, 4096, device="cuda", dtype=torch.bfloat16)
    packed, state = F.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)
    x = torch.randn(rows, 4096, device="cuda", dtype=torch.bfloat16)
    lora = (torch.randn(16, 4096).to(x).T, torch.randn(1000, 16).to(x).T, 0.5)
    wanted = x.double() @ F.dequantize_4bit(packed, state).double().T
    wanted += 0.5 * (x @ lora[0]).double() @ lora[1].double()
    for form in kernels.FORMS:
        ours = kernels.product(x, packed, state, None, lora, form)
        assert float((ours.double() - wanted).square().mean().sqrt() / wanted.std()) < 0.01
