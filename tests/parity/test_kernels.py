"""Our own GPU kernels: their numbers under Triton's interpreter, their code for real GPUs, and when they are chosen."""

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
from edge.model.nf4_kernel import UNPACK, WIDEN
from tests.parity.test_step import IDS, gap, made

SHAPES = [(40, 64), (70, 192), (64, 256), (33, 1088)]  # (N, K)


@pytest.mark.parametrize("form", [None, Form(16, 2, 4)], ids=["those that are tried", "another"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernels_multiply_with_what_bitsandbytes_widens(shape: tuple[int, int], form: Form | None) -> None:
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
        for tried in kernels.forms(rows) if form is None else (form,):
            ours = kernels.product(x, packed, state, bias, lora, tried)
            assert ours.shape == wanted.shape and ours.dtype == x.dtype
            assert float((ours.double() - wanted).abs().max()) < 1e-5 * float(wanted.abs().max())
            if lora is not None:  # x A^T of several layers at once, of which this one's is a part
                beside = torch.cat([torch.ones(rows, 3), x @ lora[0]], 1)[:, 3:]
                assert gap(kernels.product(x, packed, state, bias, lora, tried, beside), ours) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bytes_are_unpacked_as_their_codes_say(dtype: torch.dtype) -> None:
    """What the PTX does, instruction by instruction, with every byte at every place."""
    code = F.quantize_4bit(torch.randn(64, 64), quant_type="nf4")[1].code
    values = code.to(dtype)
    tables = [number & 0xFFFFFFFF for number in kernels._table(code, dtype)[3].tolist()]
    for start in range(256):
        four = [(start + 71 * place) % 256 for place in range(4)]
        wanted = [float(values[nibble]) for byte in four for nibble in (byte >> 4, byte & 15)]
        word = sum(byte << 8 * place for place, byte in enumerate(four))
        narrow = run(UNPACK.value, 4, word, tables)
        assert torch.tensor(narrow, dtype=torch.uint32).view(dtype).tolist() == wanted
        if dtype is torch.bfloat16:
            wide = run(WIDEN.value, 8, word, tables)
            assert torch.tensor(wide, dtype=torch.uint32).view(torch.float32).tolist() == wanted


def run(ptx: str, outputs: int, word: int, tables: list[int]) -> list[int]:
    """The registers that a text in PTX leaves, of the few instructions that are used here."""
    registers = {f"${outputs}": word}
    for table, number in enumerate(tables):
        registers |= {f"${outputs + 1 + 4 * table + copy}": number for copy in range(4)}

    def of(name: str) -> int:
        return registers[name] if name in registers else int(name, 0)

    for line in ptx.strip("{}\n").split("\n"):
        what, _, rest = line.rstrip(";").partition(" ")
        if what == ".reg":
            continue
        target, *given = rest.split(", ")
        a, b, *others = map(of, given)
        if what == "and.b32":
            found = a & b
        elif what == "shr.u32":
            found = a >> b
        elif what == "shl.b32":
            found = a << b & 0xFFFFFFFF
        elif what == "lop3.b32":
            c, truth = others
            assert truth == 0xCA  # a ? b : c
            found = a & b | ~a & c
        else:
            assert what == "prmt.b32"
            bytes_of = (a | b << 32).to_bytes(8, "little")
            places = [others[0] >> 4 * place & 15 for place in range(4)]
            assert all(place < 8 for place in places)  # 8 and more would spread a sign
            found = int.from_bytes(bytes(bytes_of[place] for place in places), "little")
        registers[target] = found
    return [registers[f"${number}"] for number in range(outputs)]


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
                line.use(Form(64, 2, 4), rows)
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
    right = [torch.randn(1, 50), torch.randn(1, 50)]

    def chosen(ours: Callable[[Form], Sequence[Tensor]], *times: float) -> Form | None:
        order = iter(times)
        return kernels.choose(lambda: right, ours, lambda way: next(order))

    _, second, third = kernels.forms(1)
    assert chosen(lambda form: right, 1.0, 0.9, 0.5, 0.7) == second
    assert chosen(lambda form: right, 1.0, 1.1, 1.2, 1.3) is None
    wrong = [right[0], right[1] * 1.1]
    assert chosen(lambda form: wrong if form == second else right, 1.0, 0.9, 0.7) == third
    assert chosen(lambda form: [right[0], right[1] * torch.nan], 1.0) is None

    def broken(form: Form) -> Sequence[Tensor]:
        raise RuntimeError("no ptxas")

    assert chosen(broken, 1.0) is None
    errors = (RuntimeError("out of resource: shared memory"), None, None)

    def partly(form: Form) -> Sequence[Tensor]:  # a form that is too large is no word against the others
        error = errors[kernels.forms(1).index(form)]
        if error is not None:
            raise error
        return right

    assert chosen(partly, 1.0, 0.9, 0.7) == third

    def short(form: Form) -> Sequence[Tensor]:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    with pytest.raises(RuntimeError, match="out of memory"):  # which is no word against a kernel
        chosen(short, 1.0)
    choices = kernels.Choices()
    kind = kernels.Kind(50, 64, 1, adapter=False, copied=False)
    order = iter((1.0, 0.9, 0.5, 0.7))
    told = {"timed": lambda form, seconds: choices.timed(kind, form, seconds)}
    assert kernels.choose(lambda: right, lambda form: right, lambda way: next(order), **told) == second
    assert list(choices.seconds[kind].items()) == [(None, 1.0), *zip(kernels.forms(1), (0.9, 0.5, 0.7), strict=True)]
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
from edge.model import kernels, nf4_kernel, row_kernels

WIDE = {"table_at": "*i32", "code_at": "*fp32", "inner_code_at": "*fp32", "inner_scales_at": "*fp32",
        "offset_at": "*fp32", "sums_at": "*fp32", "tops_at": "*fp32", "at_at": "*i64", "packed_at": "*u8",
        "scales_at": "*u8"}
REAL = ("scaling", "softcap", "after_eps", "eps", "query_eps", "key_eps")
cases = [
    (nf4_kernel.nf4_row if rows == 1 else nf4_kernel.nf4_rows, {"num_warps": form.warps, "num_stages": 1},
     dict(RANK=64, HAS_BIAS=False, TILE=form.tile, BLOCKS=form.blocks, RANKS=64, PTX=True))
    for rows in (1, 4) for form in kernels.forms(rows)[:2]
] + [
    (row_kernels.add_and_norm, {"num_warps": 16}, dict(HAS_ROW=True, HAS_AFTER=True, WIDTH=4096)),
    (row_kernels.turn_and_keep, {"num_warps": 1}, dict(D=128, WIDTH=128, HAS_NORM=True)),
    (row_kernels.attend, {}, dict(GROUPS=8, EACH=4, EACH_WIDTH=16, D=128, WIDTH=128, TURN=64, CAPPED=True)),
    (row_kernels.gather, {}, dict(HEADS=32, EACH=4, D=128, WIDTH=128, PARTS=32)),
    (row_kernels.times_a, {}, dict(COUNT=4, PIECE=1024)),
    (row_kernels.silu_times, {}, dict(PIECE=1024)),
]
for capability in (75, 87, 90):
    narrow = "*fp16" if capability < 80 else "*bf16"
    for kernel, options, constants in cases:
        kinds = {}
        for name in kernel.arg_names:
            pointer = WIDE.get(name, narrow) if name.endswith("_at") else "i32"
            kinds[name] = "constexpr" if name in constants else "fp32" if name in REAL else pointer
        aligned = [n for n, (name, kind) in enumerate(kinds.items()) if kind == "i32" or kind[0] == "*"]
        source = ASTSource(fn=kernel, signature=kinds, constexprs=constants,
                           attrs={(number,): [["tt.divisibility", 16]] for number in aligned})
        made = compile(source, target=GPUTarget("cuda", capability, 32), options=options)
        wide = [line for line in made.asm["ptx"].splitlines() if "ld.global.v4.b32" in line]
        print(capability, kernel.__name__, len(made.asm["cubin"]) > 0, len(wide), made.metadata.shared)
"""


def test_the_kernels_compile_for_the_gpus_that_they_are_meant_for() -> None:
    """Turing to Hopper, Jetson's Orin among them; weights, keys and values are read 16 bytes at a time."""
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False, env=_plain())
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 3 * 10
    assert all(row[2] == "True" for row in rows)
    assert all(int(row[4]) <= {"75": 64, "87": 163, "90": 227}[row[0]] << 10 for row in rows)  # of shared memory
    assert all(int(row[3]) >= 1 for row in rows if row[1] in ("nf4_row", "attend", "times_a"))


def _plain() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
