"""Our own GPU kernel: its numbers under Triton's interpreter, its code for real GPUs, and when it is chosen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from bitsandbytes import functional as F
from torch import Tensor, nn

from edge.model import kernels
from edge.model.kernels import Form
from tests.parity.test_step import IDS, gap, made

SHAPES = [(40, 64), (70, 192), (64, 256), (33, 1088)]  # (N, K)


@pytest.mark.parametrize("form", [*kernels.FORMS, Form(16, 2, 4)])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_multiplies_with_what_bitsandbytes_widens(shape: tuple[int, int], form: Form) -> None:
    torch.manual_seed(0)
    packed, state = F.quantize_4bit(torch.randn(shape), quant_type="nf4", blocksize=64, compress_statistics=True)
    weight = F.dequantize_4bit(packed, state).double()
    assert kernels.takes(state)
    for rows, rank, biased in ((1, 0, False), (1, 8, False), (3, 5, True), (8, 16, True)):
        x = torch.randn(rows, shape[1])
        bias = torch.randn(shape[0]) if biased else None
        lora = (torch.randn(rank, shape[1]).T, torch.randn(shape[0], rank).T, 0.5) if rank else None
        wanted = x.double() @ weight.T
        if bias is not None:
            wanted += bias.double()
        if lora is not None:
            wanted += 0.5 * (x.double() @ lora[0].double()) @ lora[1].double()
        ours = kernels.product(x, packed, state, bias, lora, form)
        assert ours.shape == wanted.shape and ours.dtype == x.dtype
        assert float((ours.double() - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
        if lora is not None:  # x A^T of several layers at once, of which this one's is a part
            beside = torch.cat([torch.ones(rows, 3), x @ lora[0]], 1)[:, 3:]
            assert gap(kernels.product(x, packed, state, bias, lora, form, beside), ours) < 1e-5


def test_only_weights_that_it_knows_are_taken() -> None:
    weight = torch.randn(64, 128)
    nested = F.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=True)[1]
    assert kernels.takes(nested)
    for other in (
        F.quantize_4bit(weight, quant_type="fp4", blocksize=64, compress_statistics=True)[1],
        F.quantize_4bit(weight, quant_type="nf4", blocksize=128, compress_statistics=True)[1],
        F.quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=False)[1],
        F.quantize_4bit(torch.randn(64, 96), quant_type="nf4", blocksize=64, compress_statistics=True)[1],
        None,
    ):
        assert not kernels.takes(other)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_step_with_the_kernel_decodes_what_one_without_it_does(family: str) -> None:
    """The tokens of three texts, with the adapter and without, every product by the kernel."""
    plain, ours = made(family), made(family)
    for forward in (plain, ours):
        forward.decode(5, forward.prefill(IDS[:4])[1])  # both ways are compared
    assert ours.step is not None
    for adapter in (None, ours.adapter):
        for line in [line for block in ours.step._lines(adapter).lines for line in block]:
            assert kernels.takes(line.state)
            for rows in (1, 3):
                line.use(Form(128, 2, 4), rows)
    for adapted in (True, False) if family == "llama" else (True,):
        found = []
        for forward in (ours, plain):
            logits, cache = forward.prefill(IDS[:20], adapter=adapted)
            one = [forward.decode(int(token), cache, adapter=adapted).clone() for token in IDS[20:22]]
            lines = forward.lines(cache, 3, 4)
            assert lines is not None
            three = [forward.decode_lines([7, 8, 9 + step], lines, adapter=adapted).clone() for step in range(2)]
            found.append(torch.cat([logits[None], *(row[None] for row in one), *three]))
        assert gap(*found) < 1e-4


def test_the_fastest_way_is_taken_and_a_wrong_or_broken_one_never() -> None:
    right = [torch.randn(2, 50), torch.randn(2, 50)]

    def chosen(ours: Callable[[Form], Sequence[Tensor]], *times: float) -> Form | None:
        order = iter(times)
        return kernels.choose(lambda: right, ours, lambda way: next(order))

    _, second, third = kernels.FORMS
    assert chosen(lambda form: right, 1.0, 0.9, 0.5, 0.7) == second
    assert chosen(lambda form: right, 1.0, 1.1, 1.2, 1.3) is None
    wrong = [right[0], right[1] * 1.1]
    assert chosen(lambda form: wrong if form == second else right, 1.0, 0.9, 0.7) == third
    assert chosen(lambda form: [right[0], right[1] * torch.nan], 1.0) is None

    def broken(form: Form) -> Sequence[Tensor]:
        raise RuntimeError("no ptxas")

    assert chosen(broken, 1.0) is None
    choices = kernels.Choices()
    assert kernels.choose(lambda: right, broken, lambda way: 1.0, failed=choices.failed) is None
    assert choices.failure == "RuntimeError: no ptxas"


def test_choices_are_measured_once_and_lines_keep_them(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = made("llama")
    forward.decode(5, forward.prefill(IDS[:4])[1])
    step = forward.step
    assert step is not None
    asked: list[object] = []
    form = Form(16, 2, 4)
    monkeypatch.setattr(kernels, "choose", lambda usual, ours, **told: (asked.append(len(usual())), form)[1])
    for adapter in (None, forward.adapter):
        for rows in (1, 3, 1):
            step._choose(step._lines(adapter), rows)
    shapes = {tuple(layer.weight.quant_state.shape) for block in step.blocks for layer in _inner(block.linears)}
    assert len(asked) == 4 * len(shapes)  # with and without the adapter, for one row and for three
    for line in [line for block in step._lines(forward.adapter).lines for line in block]:
        assert line.forms == {1: form, 3: form}


def test_copies_of_weights_are_no_reason_against_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "choose", lambda usual, ours, **told: None)  # measures on a GPU
    forward = made("llama")
    forward.base.cache_weights()
    forward.decode(5, forward.prefill(IDS[:4])[1])
    step = forward.step
    assert step is not None
    lines = [line for block in step._lines(forward.adapter).lines for line in block]
    assert all(line.weight is not None and kernels.takes(line.state) for line in lines)
    x = torch.randn(1, lines[0].state.shape[1])
    with torch.inference_mode():
        usual = lines[0](x).clone()
        lines[0].use(Form(16, 2, 4), 1)
        assert gap(lines[0](x), usual) < 1e-5
    step._choose(step._lines(forward.adapter), 1)
    assert {kind.copied for kind, _ in step.choices} == {True}


def _inner(layers: Sequence[nn.Module]) -> list[nn.Module]:
    return [getattr(layer, "base_layer", layer) for layer in layers]


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from edge.model import kernels
from edge.model.nf4_kernel import nf4_rows

pointers = {"x_at": "*bf16", "packed_at": "*u8", "code_at": "*fp32", "scales_at": "*u8", "inner_code_at": "*fp32",
            "inner_scales_at": "*fp32", "offset_at": "*fp32", "bias_at": "*bf16", "low_at": "*bf16", "b_at": "*bf16",
            "out_at": "*bf16"}
numbers = {"scaling": "fp32", "N": "i32", "K": "i32", "low_step": "i32", "b_step": "i32"}
for capability in (75, 87, 90):
    for form in kernels.FORMS[:2]:
        for rows in (1, 4):
            constants = {"ROWS": rows, "RANK": 64, "HAS_BIAS": False, "TILE": form.tile, "BLOCKS": form.blocks,
                         "PADDED": rows, "RANKS": 64}
            names = nf4_rows.arg_names
            aligned = [*pointers, "N", "K", "low_step", "b_step"]
            source = ASTSource(
                fn=nf4_rows, signature={**pointers, **numbers, **dict.fromkeys(constants, "constexpr")},
                constexprs=constants, attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
            )
            made = compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": form.warps})
            wide = [line for line in made.asm["ptx"].splitlines() if "ld.global.v4.b32" in line]
            print(capability, rows, len(made.asm["cubin"]) > 0, len(wide))
"""


def test_the_kernel_compiles_for_the_gpus_that_it_is_meant_for() -> None:
    """Turing to Hopper, Jetson's Orin among them; weights are read 16 bytes at a time."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False, env=_plain())
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 3 * 2 * 2
    assert all(row[2] == "True" and int(row[3]) >= 1 for row in rows)


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
