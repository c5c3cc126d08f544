"""What a GGUF header says of positions, heads, caps and scales is what the model computes with, or the file is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge.errors import ModelError
from edge.memory import conversion, shape
from edge.store import sources
from edge.weights import alone, originals, pieces, quantize
from tests import ggufs, tiny

IDS = torch.arange(2, 202)[None]
More = Callable[[Any], None]


def factors(factor: float) -> Any:
    """llama.cpp's, of a head of 16 features at base 10,000 (`convert_hf_to_gguf.py`, Llama 3.1)."""
    found = []
    for index in range(8):
        wave = 2 * math.pi * 10_000 ** (index / 8)
        smooth = (8192 / wave - 1) / 3
        found.append(1 if wave < 2048 else factor if wave > 8192 else 1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


def scaled(kind: str, factor: float, trained: int | None = None) -> More:
    def more(out: Any) -> None:
        import gguf

        out.add_rope_scaling_type(gguf.RopeScalingType(kind))
        out.add_rope_scaling_factor(factor)
        if trained:
            out.add_rope_scaling_orig_ctx_len(trained)

    return more


def long(out: Any) -> None:
    out.add_rope_scaling_orig_ctx_len(128)
    out.add_tensor("rope_factors_long.weight", np.linspace(1, 9, 8, dtype=np.float32))
    out.add_tensor("rope_factors_short.weight", np.linspace(1, 2, 8, dtype=np.float32))


LONG = {"rope_type": "longrope", "long_factor": np.linspace(1, 9, 8, dtype=np.float32).tolist(),
        "short_factor": np.linspace(1, 2, 8, dtype=np.float32).tolist()}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}
CAPS = {"attn_logit_softcapping": 20.0, "final_logit_softcapping": 10.0, "query_pre_attn_scalar": 16}
# what the file says -> the architecture, and what transformers calls it in a folder of the same model
SAID: dict[str, tuple[str, More, dict[str, Any]]] = {
    "Llama 3.1's frequencies": ("llama", lambda out: out.add_tensor("rope_freqs.weight", factors(32.0)),
                                {"rope_scaling": LLAMA3}),
    "no frequencies": ("llama", lambda out: out.add_tensor("rope_freqs.weight", factors(1.0)), {}),
    "linear": ("llama", scaled("linear", 4.0), {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "yarn": ("qwen2", scaled("yarn", 4.0, 128), {"rope_scaling": YARN}),
    "none": ("qwen2", scaled("none", 4.0), {}),
    "Gemma 3 4B's": ("gemma3_text", scaled("linear", 8.0),
                     {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 10_000.0, "query_pre_attn_scalar": 16}),
    "longrope": ("phi3", long, {"rope_scaling": LONG, "original_max_position_embeddings": 128}),
    "caps": ("gemma2", lambda out: [out.add_float32(f"gemma2.{name}", CAPS[name]) for name in list(CAPS)[:2]], CAPS),
    "another head": ("qwen3", lambda out: None, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_it_computes_as_the_folder_does_whose_config_says_the_same(case: str, tmp_path: Path) -> None:
    """Loaded whole, to the same logits; converted, with the same config."""
    from transformers import AutoModelForCausalLM

    architecture, more, given = SAID[case]
    sizes: dict[str, Any] = {"layers": 2}
    if architecture == "gemma3_text":  # of six blocks the file's sixth sees all
        sizes = {"layers": 6}
        given = {**given, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
    path = tiny.gguf(tmp_path / "m.gguf", architecture, more=more, **sizes)
    tiny.model(architecture, **sizes, **given).to(torch.bfloat16).save_pretrained(tmp_path / "full")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "full", dtype=torch.float32)
    ours = alone.load_gguf(path, torch.bfloat16).float()
    with torch.no_grad():
        assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    converted = originals.of(path).model.config
    for name in ("rope_parameters", *CAPS):
        assert getattr(ours.config, name, None) == getattr(theirs.config, name, None), name
        assert getattr(ours.config, name, None) == getattr(converted, name, None), name


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (lambda out: out.add_tensor("rope_freqs.weight", np.linspace(1, 8, 8, dtype=np.float32)), "rope_freqs.weight"),
        (lambda out: out.add_tensor("blk.0.attn_q.bias", np.ones(64, np.float32)), r"a tensor blk\.0\.attn_q\.bias"),
        (lambda out: out.add_float32("llama.attention.scale", 0.5), r"llama\.attention\.scale = 0\.5"),
        (lambda out: out.add_float32("llama.logit_scale", 8.0), r"llama\.logit_scale = 8\.0"),
        (lambda out: out.add_float32("llama.final_logit_softcapping", 30.0), "final_logit_softcapping"),
        (lambda out: out.add_float32("llama.rope.scaling.yarn_log_multiplier", 0.1), "yarn_log_multiplier"),
        (scaled("longrope", 4.0), r"rope_factors_long\.weight"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("way", ["whole", "converted"])
def test_what_changes_the_numbers_and_is_not_known_is_refused(more: More, says: str, way: str, tmp_path: Path) -> None:
    path = tiny.gguf(tmp_path / "m.gguf", more=more)
    with pytest.raises(ModelError, match=says) as caught:
        if way == "whole":
            alone.load_gguf(path, torch.bfloat16)
        else:
            quantize.quantize_to_folder(str(path), tmp_path / "nf4")
    assert caught.value.exit_code == 4 and "\n" not in caught.value.line() and "safetensors" in caught.value.line()
    assert not (tmp_path / "nf4").exists()


def test_a_conversion_from_before_is_made_again_where_it_computes_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    source = sources.resolve(str(tiny.gguf(tmp_path / "m.gguf", more=scaled("linear", 4.0))))
    folder = quantize.convert_once(source).path
    config = json.loads((folder / "config.json").read_text())
    manifest = json.loads((folder / "templora.json").read_text())
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert manifest.pop("values")
    (folder / "templora.json").write_text(json.dumps(manifest))
    assert sources.converted(source) == source
    quantize.convert_once(source)
    assert (folder / "model.safetensors").stat().st_mtime_ns == before  # as it was: it computes as the file says
    manifest = json.loads((folder / "templora.json").read_text())
    assert manifest.pop("values")
    (folder / "templora.json").write_text(json.dumps(manifest))
    (folder / "config.json").write_text(
        json.dumps({**config, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}})
    )
    assert quantize.convert_once(source).path == folder
    assert json.loads((folder / "config.json").read_text()) == config


@pytest.mark.parametrize("family", ggufs.CALLED)
def test_a_file_of_each_architecture_gives_the_model_that_it_was_made_of(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensor by tensor, experts one by one; its plan is that of the model's own folder."""
    made = ggufs.model(family)
    path = ggufs.write(tmp_path / "m.gguf", family, made)
    made.save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    said: list[str] = []
    quantize.quantize_to_folder(str(tmp_path / "full"), tmp_path / "old", notice=said.append)
    read: list[int] = []
    real = pieces.read
    monkeypatch.setattr(pieces, "read", lambda path, at, count: read.append(count) or real(path, at, count))
    quantize.quantize_to_folder(str(path), tmp_path / "new", notice=said.append)
    assert not said
    assert (tmp_path / "new/model.safetensors").read_bytes() == (tmp_path / "old/model.safetensors").read_bytes()
    if family == "qwen3_5_moe_text":
        assert max(read) <= 4 * 320 * 64 and 4 * 48 * 64 in read and 4 * 4 * 48 * 64 not in read
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("new", "old")]
    for name in ("rope_parameters", "layer_types", "num_experts_per_tok", "sliding_window", "tie_word_embeddings"):
        assert configs[0].get(name) == configs[1].get(name), name
    planned, known = (shape.read(sources.resolve(str(one))) for one in (path, tmp_path / "full"))
    same = (
        "architecture",
        "layers",
        "hidden",
        "heads",
        "groups",
        "head_dim",
        "vocab",
        "tied",
        "mixture",
        "anew",
        "scanned",
    )
    assert [getattr(planned, name) for name in same] == [getattr(known, name) for name in same]
    assert planned.linear_parameters == known.linear_parameters
    predicted = conversion.predict(sources.resolve(str(path)))
    assert predicted.peak() < 0.6e9
    if family == "qwen3_5_text":  # queries, keys and values of linear attention, whose rows change their places
        assert predicted.phases["convert"]["largest tensors"] == 18 * 64 * (2 * 2 * 16 + 4 * 16)


@pytest.mark.parametrize("called", ["granite", "gpt-oss", "gemma4", "falcon"])
def test_a_file_of_an_architecture_that_is_not_tested_is_refused_by_its_name_alone(
    called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gguf

    monkeypatch.setattr(alone, "gguf_config", lambda *_: pytest.fail("it was read"))
    path = tmp_path / "m.gguf"
    out = gguf.GGUFWriter(str(path), called)
    out.add_block_count(2)
    out.add_tensor("token_embd.weight", np.zeros((320, 64), np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    with pytest.raises(
        ModelError, match=f"a GGUF file of a {called} model; expected one of llama, .*safetensors instead"
    ):
        shape.read(sources.resolve(str(path)))
    with pytest.raises(ModelError, match=f"a GGUF file of a {called} model"):
        quantize.quantize_to_folder(str(path), tmp_path / "new")


def test_a_part_of_a_split_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tiny.gguf(tmp_path / "m-00001-of-00002.gguf", more=lambda out: out.add_uint16("split.count", 2))
    with pytest.raises(ModelError, match=r"one of 2 parts of a model; .*join them first: llama-gguf-split"):
        shape.read(sources.resolve(str(path)))


def test_the_table_of_files_has_each_architecture_and_what_it_becomes() -> None:
    readme = (Path(alone.__file__).parent / "README.md").read_text("utf-8")
    rows = [line.split("|") for line in readme.split("<!-- table -->")[1].splitlines() if line.startswith("| `")]
    assert {row[1].strip(" `"): row[2].strip(" `") for row in rows} == shape.GGUF
    tried = {tiny.GGUF_NAMES.get(name, name) for name in (*tiny.ARCHITECTURES, "qwen2_moe", "qwen3_moe")}
    assert tried | {called for called, _ in ggufs.CALLED.values()} == set(shape.GGUF)
