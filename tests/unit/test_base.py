"""Model references, 4-bit folders, damaged files."""

from __future__ import annotations

import json
import shutil
import struct
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import edge
from edge import cli, settings
from edge.errors import ModelError, StorageError, TemploraError
from edge.machine import allocator, device, held
from edge.model import base
from edge.store import embedded, sources
from edge.weights import checkpoint, packed, quantize
from tests import tiny

SETTINGS = settings.load("economical", tiny.WINDOW)


@pytest.fixture(scope="module")
def four_bit(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    full = tiny.folder(root / "full", "gemma3_text")
    quantize.quantize_to_folder(str(full), root / "nf4")
    return full, root / "nf4"


def test_four_bit_folder_loads_as_what_was_quantised(four_bit: tuple[Path, Path]) -> None:
    full, folder = four_bit
    ours, direct = base.load(sources.resolve(str(folder)), SETTINGS), base.load(sources.resolve(str(full)), SETTINGS)
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.allclose(ours.decoder(input_ids=ids)[0], direct.decoder(input_ids=ids)[0], atol=1e-5)
    assert sum(1 for _, m in ours.linears() if m.weight.dtype == torch.uint8) == 14
    assert len(ours.fingerprint()) == 64 and ours.fingerprint() != direct.fingerprint()


def test_four_bit_folder_is_a_transformers_checkpoint(four_bit: tuple[Path, Path]) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(four_bit[1], device_map="cpu")
    base.keep_packed_layout(theirs)  # bitsandbytes' kernel for CPUs with AVX-512 BF16 rounds to it
    ours = base.load(sources.resolve(str(four_bit[1])), SETTINGS)
    ids = torch.arange(2, 40)[None]
    with torch.no_grad():
        assert torch.allclose(theirs(input_ids=ids).logits, ours.model(input_ids=ids).logits, atol=1e-4)


def test_stored_dtype_is_kept_and_exact(tmp_path: Path) -> None:
    made = tiny.model("gemma3_text").bfloat16()
    made.save_pretrained(tmp_path / "bf16")
    tiny.tokenizer().save_pretrained(tmp_path / "bf16")
    quantize.quantize_to_folder(str(tmp_path / "bf16"), tmp_path / "nf4")
    ours = base.load(sources.resolve(str(tmp_path / "nf4")), SETTINGS)
    assert ours.head.weight.dtype == torch.bfloat16
    ids = torch.arange(2, 40)[None]
    wide = base.load(sources.resolve(str(tmp_path / "bf16")), SETTINGS)  # everything converted to float32
    with torch.no_grad():
        assert torch.allclose(ours.decoder(input_ids=ids)[0], wide.decoder(input_ids=ids)[0], atol=1e-5)
        assert torch.allclose(ours.model(input_ids=ids).logits, wide.model(input_ids=ids).logits, atol=1e-4)


@pytest.mark.parametrize("damage", ["cut", "header", "missing", "flipped length"])
def test_damaged_weights(four_bit: tuple[Path, Path], tmp_path: Path, damage: str) -> None:
    import shutil

    for index, source in enumerate(four_bit):
        folder = tmp_path / str(index)
        shutil.copytree(source, folder)
        weights = folder / "model.safetensors"
        data = weights.read_bytes()
        if damage == "cut":
            weights.write_bytes(data[: len(data) // 2])
        elif damage == "header":
            weights.write_bytes(data[:8] + b"{" * 50 + data[58:])
        elif damage == "flipped length":
            weights.write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
        else:
            weights.unlink()
        with pytest.raises(ModelError) as caught:
            base.load(sources.resolve(str(folder)), SETTINGS)
        assert str(folder) in caught.value.line()


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_safetensors_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(data)
    try:
        list(checkpoint.read_safetensors(path))
    except TemploraError:
        pass


@pytest.mark.parametrize(
    ("name", "words"),
    [("/no/such/folder", "there is no model"), ("./nothing", "there is no model"), ("demoo", "there is no model"),
     ("owner/model-that-is-not-here", "not on this disk|not to be had|neither")],
)  # fmt: skip
def test_unknown_references(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        base.load(sources.resolve(name), SETTINGS)


def test_folder_without_config_and_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        sources.resolve(str(tmp_path))
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="gguf"):
        sources.resolve(str(tmp_path / "weights.bin"))


@pytest.mark.parametrize(
    "name, value", [("hidden_size", 1_000_000), ("vocab_size", 50_000_000), ("intermediate_size", 10**8)]
)
def test_a_config_of_a_far_larger_model_is_refused_before_that_is_made(
    name: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    folder = tiny.folder(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *args, **more: 1 / 0)
    with pytest.raises(ModelError, match=r"speaks of matrices of .* numbers, and the weights hold 115,008"):
        base.load(sources.resolve(str(folder)), SETTINGS)


@pytest.mark.parametrize(
    ("said", "by"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"), ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8"}, "fp8"), ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed-tensors"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes"), ({"quant_method": "new"}, "new"),
        ({"bits": 4}, "no method"), ("yes", "yes"),
    ],
)  # fmt: skip
def test_weights_that_were_quantised_in_another_way_are_refused_by_its_name(
    said: Any, by: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every verb, before anything is loaded or made."""
    folder = tiny.folder(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    (tmp_path / "t.txt").write_text("A word.")
    for verb in (["plan", "--model"], ["score", str(tmp_path / "t.txt"), "--model"], ["quantize"]):
        out = [str(tmp_path / "new")] if verb == ["quantize"] else []
        assert cli.main([*verb, str(folder), *out]) == 4
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("error: ") and (
            f"weights quantised by {by};" in line or (by == "yes" and "cannot be used" in line)
        )
    assert not (tmp_path / "new").exists()


def test_numbers_of_a_type_that_is_not_known_are_named(tmp_path: Path) -> None:
    """As of a model in FP8 whose config does not say so."""
    from safetensors.torch import load_file, save_file

    folder = tiny.folder(tmp_path / "m", "llama")
    held = load_file(folder / "model.safetensors")
    held["model.layers.0.mlp.up_proj.weight"] = held["model.layers.0.mlp.up_proj.weight"].to(torch.float8_e4m3fn)
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="holds numbers of type F8_E4M3; expected full precision"):
        quantize.quantize_to_folder(str(folder), tmp_path / "new")


def test_gguf_magic_and_checksum(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"NOPE" + bytes(100))
    with pytest.raises(ModelError, match="GGUF"):
        sources.resolve(str(path))
    path.write_bytes(b"GGUF" + bytes(100))
    (tmp_path / "m.gguf.sha256").write_text("0" * 64 + "  m.gguf\n")
    with pytest.raises(ModelError, match="sha256"):
        sources.resolve(str(path))
    (tmp_path / "m.gguf.sha256").write_text(sources.sha256_file(path))
    assert sources.resolve(str(path)).kind == "gguf"
    with pytest.raises(ModelError, match="no usable header"):
        base.load(sources.resolve(str(path)), SETTINGS)


def test_demo_with_a_wrong_checksum_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path))
    monkeypatch.setitem(embedded.ENTRIES, "demo", replace(embedded.entry("demo"), sha256="0" * 64))
    notices: list[str] = []
    with pytest.raises(ModelError, match="sha256"):
        sources.resolve("demo", notice=notices.append)
    assert "Gemma Terms" in notices[0]
    assert list((tmp_path / "demo").iterdir()) == []


def test_no_room_for_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1000))
    with pytest.raises(StorageError, match="1 kB free"):
        sources.resolve("demo", notice=lambda line: None)
    assert not (tmp_path / "cache").exists()


def test_quantize_refuses_a_taken_folder_and_four_bit_input(four_bit: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="already exists"):
        quantize.quantize_to_folder(str(four_bit[0]), four_bit[1])
    with pytest.raises(ModelError, match="already 4-bit"):
        quantize.quantize_to_folder(str(four_bit[1]), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_matmul_units_follow_capability() -> None:
    assert device.cpu_matmul("flags: avx2 fma") == "float32"
    assert device.cpu_matmul("flags: avx512_bf16") == "float32"
    assert device.cpu_matmul("flags: amx_tile amx_bf16") == "bfloat16"
    assert device.choose("cpu").dtype == "float32"
    assert device.choose("cpu", "bfloat16").matmul == "float32"  # its own operands need no rounding


def test_matmul_units_are_left_as_they_were_found() -> None:
    narrow = device.Device("cpu", "cpu", "float32", "bfloat16")
    with device.matmul_units(narrow):
        assert torch.get_float32_matmul_precision() == "medium"
    with device.matmul_units(device.Device("cpu", "cpu", "float32")):
        assert torch.get_float32_matmul_precision() == "highest"
    assert torch.get_float32_matmul_precision() == "highest"


def test_peak_meter_sees_what_came_and_went() -> None:
    allocator.release_memory()  # else a large free piece of the heap, resident already, serves the block
    meter = held.PeakMeter(tiny.CPU)
    with meter.phase("big"):
        block = torch.ones(50_000_000)
        del block
    with meter.phase("small"):
        pass
    assert meter.peaks["big"] - meter.peaks["small"] > 150_000_000
    assert held.peak_resident_memory() >= meter.peaks["big"]  # others read the kernel's mark too: it is never reset


def test_a_phase_below_an_earlier_peak_is_measured_too() -> None:
    meter = held.PeakMeter(tiny.CPU)
    with meter.phase("high"):
        block = torch.ones(60_000_000)
        del block
    allocator.release_memory()
    with meter.phase("low"):
        low = held.resident_memory()
        block = torch.ones(20_000_000)
        time.sleep(0.1)
        del block
    assert 70_000_000 < meter.peaks["low"] - low < 100_000_000
    assert meter.peaks["low"] < meter.peaks["high"]


def test_public_names() -> None:
    errors = {name for name in vars(edge.errors) if name.endswith("Error")} | {"Interrupted"}
    records = {"ChunkRead", "ChunkScore", "ChunkWritten", "Learned", "TextPiece", "perplexity"}
    assert set(edge.__all__) == errors | records | {"Runtime", "Session", "Settings", "load", "__version__"}
    for name in edge.__all__:
        assert getattr(edge, name) is not None
    with pytest.raises(AttributeError):
        edge.nothing


def test_packed_weights_of_another_shape_than_the_configs_are_refused() -> None:
    made = tiny.model("llama")
    quantize.quantize_in_place(made, "cpu", torch.float32)
    made.model.layers[0].mlp.gate_proj.out_features = 1_000_000
    with pytest.raises(ModelError, match=r"gate_proj is \(128, 64\), its config says otherwise"):
        base.from_model(made, tiny.tokenizer(), tiny.CPU)


@pytest.mark.parametrize(
    ("capability", "dtype"), [((6, 1), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((8, 7), "bfloat16")]
)
def test_a_gpu_computes_in_the_sixteen_bits_that_it_has_units_for(
    capability: tuple[int, int], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda name: capability)
    assert device.cuda_dtype("cuda:0") == dtype


def test_a_family_whose_activations_float16_cannot_hold_keeps_float32() -> None:
    half = device.Device("cuda", "cuda:0", "float16")
    assert base.wide_enough(half, "gemma3_text").dtype == "float32"
    assert base.wide_enough(half, "qwen2").dtype == "float16"
    assert base.wide_enough(replace(half, dtype="bfloat16"), "gemma3_text").dtype == "bfloat16"


def test_what_one_plan_may_hold_of_a_gpu_is_free_again_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the next plan's weights, which are made between its phases, would not find room."""
    told: list[float] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda name: namedtuple("Card", "total_memory")(1000))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, name: told.append(share))
    gpu = device.Device("cuda", "cuda:0", "bfloat16")
    with held.capped(gpu, 500):
        with pytest.raises(RuntimeError), held.capped(gpu, 250):
            raise RuntimeError("out of memory")
        assert told == [0.5, 0.25, 0.5]
    assert told[-1] == 1.0


def test_a_gpu_dequantises_into_the_compute_dtype_and_a_cpu_as_the_folder_says() -> None:
    class State:
        dtype = torch.float32

    class Weight:
        def __init__(self, place: str) -> None:
            self.device = torch.device(place)
            self.quant_state = State()

    model = torch.nn.ModuleList([torch.nn.Identity(), torch.nn.Identity()])
    for layer, place in zip(model, ("cuda:0", "cpu"), strict=True):
        layer.weight = Weight(place)  # type: ignore[assignment]
        layer.compute_dtype = torch.bfloat16  # type: ignore[assignment]
    packed.widen_at_once(model)
    assert [layer.weight.quant_state.dtype for layer in model] == [torch.bfloat16, torch.float32]


def test_a_gpus_clock_waits_for_nothing_and_keeps_only_what_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        waited = 0

        def __init__(self, number: int) -> None:
            self.number = number

        def query(self) -> bool:
            return self.number < ended

        def synchronize(self) -> None:
            Event.waited += not self.query()

        def elapsed_time(self, other: Event) -> float:
            return 1000.0 * (other.number - self.number)

    clock = device.Clock(("one", "two"), device.Device("cuda", "cuda:0", "bfloat16"))
    made: list[Event] = []
    monkeypatch.setattr(clock, "_event", lambda: made.append(Event(len(made))) or made[-1])
    ended = 0
    for _ in range(50):
        for name in ("one", "two"):
            with clock.phase(name):
                pass
        ended = max(0, len(made) - 4)
    assert len(clock._open) <= 4 and Event.waited == 0
    assert clock.seconds == {"one": 50.0, "two": 50.0} and Event.waited > 0
