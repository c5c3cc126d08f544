"""The language model inside a folder that holds a vision tower, too: found, read and adapted alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

import edge
from edge.errors import ModelError
from edge.machine import allocator
from edge.machine.held import PeakMeter
from edge.memory import shape
from edge.model import base
from edge.store import sources
from edge.weights import language, originals, quantize
from tests import families, tiny

SETTINGS = edge.settings.load("economical", tiny.WINDOW)
FULL = edge.settings.load("economical", [*tiny.WINDOW, "base.precision=full"])
IDS = torch.arange(2, 60)[None]
# model_type of the folder -> that of the language model inside, and the vision tower's own values
LARGER: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3": ("gemma3_text", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                               "image_size": 28, "patch_size": 14}),
    "mistral3": ("ministral3", {"model_type": "pixtral", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                                "num_attention_heads": 2, "head_dim": 16, "image_size": 28, "patch_size": 14}),
    "qwen3_vl": ("qwen3_vl_text", {"hidden_size": 32, "intermediate_size": 64, "depth": 1, "num_heads": 2, "out_hidden_size": 64,
                                   "deepstack_visual_indexes": [0], "num_position_embeddings": 16}),
    "qwen3_5": ("qwen3_5_text", {"hidden_size": 32, "intermediate_size": 64, "depth": 1, "num_heads": 2, "out_hidden_size": 64,
                                 "num_position_embeddings": 16}),
    "llama4": ("llama4_text", {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
                               "image_size": 28, "patch_size": 14, "vision_output_dim": 64, "projector_input_dim": 64,
                               "projector_output_dim": 64}),
    "gemma4": ("gemma4_text", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                               "num_key_value_heads": 2, "head_dim": 16, "patch_size": 16, "position_embedding_size": 64}),
    "llava": ("llama", {"model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
                        "num_attention_heads": 2, "image_size": 28, "patch_size": 14}),
    "smolvlm": ("llama", {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
                          "image_size": 28, "patch_size": 14}),
}  # fmt: skip


def _folder(path: Path, kind: str) -> tuple[Path, Any]:
    """A folder of that kind with a tiny vision tower, and its language model alone."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    text, vision = LARGER[kind]
    alone = families.language_model(text)
    given = alone.config.to_dict()
    config = AutoConfig.for_model(kind, text_config=given, vision_config=vision, audio_config=None)
    config.tie_word_embeddings = bool(getattr(alone.config, "tie_word_embeddings", False))
    whole = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    inner = whole.get_decoder()
    if type(inner) is type(alone):  # Llama 4's decoder has a head of its own
        inner.load_state_dict(alone.state_dict())
    else:
        inner.load_state_dict(alone.model.state_dict())
        whole.lm_head.load_state_dict(alone.lm_head.state_dict())
    whole.save_pretrained(path)
    published = json.loads((path / "config.json").read_text())
    published.pop("tie_word_embeddings", None)  # many configs do not say it
    (path / "config.json").write_text(json.dumps(published))
    words = tiny.tokenizer()
    words.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    words.save_pretrained(path)
    return path, alone


def _names(path: Path) -> list[str]:
    data = (path / "model.safetensors").read_bytes()
    return [name for name in json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]]) if name != "__metadata__"]


@pytest.mark.parametrize("kind", LARGER)
def test_the_language_model_is_loaded_alone(kind: str, tmp_path: Path) -> None:
    folder, alone = _folder(tmp_path / kind, kind)
    assert any("vis" in name for name in _names(folder))
    loaded = base.load(sources.resolve(str(folder)), FULL)
    assert loaded.config.model_type == LARGER[kind][0]
    assert not any("vis" in name for name, _ in loaded.model.named_parameters())
    assert sum(p.numel() for p in loaded.model.parameters()) == sum(p.numel() for p in alone.parameters())
    with torch.no_grad():
        theirs = alone(input_ids=IDS).logits
        assert torch.allclose(loaded.model(input_ids=IDS).logits, theirs, atol=2e-4 * float(theirs.std()))
    assert loaded.tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == "<user>a"
    assert shape.read(sources.resolve(str(folder))).architecture == LARGER[kind][0]


@pytest.mark.parametrize("kind", LARGER)
def test_a_4_bit_folder_of_it_holds_the_language_model_and_nothing_else(kind: str, tmp_path: Path) -> None:
    folder, _ = _folder(tmp_path / kind, kind)
    quantize.quantize_to_folder(str(folder), tmp_path / "nf4")
    assert not any("vis" in name for name in _names(tmp_path / "nf4"))
    ours, direct = (base.load(sources.resolve(str(path)), SETTINGS) for path in (tmp_path / "nf4", folder))
    with torch.no_grad():
        one, other = (made.decoder(input_ids=IDS)[0] for made in (ours, direct))
    assert torch.allclose(one, other, atol=1e-4 * float(other.std()))
    assert ours.tokenizer.chat_template


@pytest.mark.parametrize("kind", [kind for kind in LARGER if kind != "llama4"])  # its experts are read whole
def test_it_is_converted_tensor_by_tensor_to_the_same_bytes(kind: str, tmp_path: Path) -> None:
    """Nothing else of the folder is read: the towers' tensors are not even asked for."""
    folder, _ = _folder(tmp_path / kind, kind)
    found = originals.of(folder)
    assert set(found.tensors) <= set(found.model.state_dict()) and not any("vis" in name for name in found.tensors)
    source = sources.resolve(str(folder))
    quantize._in_pieces(source, tmp_path / "new", False, False, "cpu", None, lambda done, total: None, None)
    quantize._at_once(source, tmp_path / "old", False, False, None, None)
    for name in ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json"):
        new, old = tmp_path / "new" / name, tmp_path / "old" / name
        assert new.is_file() == old.is_file() and (not new.is_file() or new.read_bytes() == old.read_bytes()), name


def test_both_ways_of_naming_its_tensors_are_known() -> None:
    for stored in ("language_model.model.layers.0.mlp.up_proj.weight", "model.language_model.layers.0.mlp.up_proj.weight",
                   "model.layers.0.mlp.up_proj.weight"):  # fmt: skip
        assert language.alone(stored) == "model.layers.0.mlp.up_proj.weight"
    for stored in ("language_model.lm_head.weight", "lm_head.weight"):
        assert language.alone(stored) == "lm_head.weight"
    for stored in ("vision_tower.a.weight", "model.visual.b.weight", "multi_modal_projector.c", "model.audio_tower.d"):
        assert language.alone(stored) is None


def test_a_large_vision_tower_changes_neither_peak_nor_adapter(tmp_path: Path) -> None:
    """Its file is a gigabyte that nobody has written: reading it would show in what this process holds."""
    folder, alone = _folder(tmp_path / "whole", "gemma3")
    alone.save_pretrained(tmp_path / "alone")
    tiny.tokenizer().save_pretrained(tmp_path / "alone")
    names, numbers = _names(folder), 250_000_000
    head = {"model.vision_tower.large": {"dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers]}}
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model-vision.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + 4 * numbers)
    index = dict.fromkeys(names, "model.safetensors") | dict.fromkeys(head, "model-vision.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    adapters, peaks = [], []
    for path in (tmp_path / "alone", folder, tmp_path / "alone"):
        allocator.release_memory()
        meter = PeakMeter(tiny.CPU)
        with meter.phase("load"):
            runtime = edge.load(str(path), settings=SETTINGS)
        peaks.append(meter.peaks["load"])
        with runtime.session() as session:
            assert session.adapter is not None
            adapters.append(dict(session.adapter.snapshot()))
    assert abs(peaks[1] - peaks[2]) < 60_000_000 < 4 * numbers / 10
    one, other = adapters[:2]
    assert one.keys() == other.keys() and all(one[name].shape == other[name].shape for name in one)


def test_a_config_that_leaves_values_to_its_family_is_planned_with_them() -> None:
    """As published: Gemma 3 4B names no heads, no vocabulary and no head size for its language model."""
    found = shape.from_config({
        "model_type": "gemma3", "dtype": "bfloat16", "vision_config": {"hidden_size": 1152, "num_attention_heads": 16},
        "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
                        "sliding_window": 1024},
    })  # fmt: skip
    assert (found.heads, found.groups, found.head_dim, found.vocab, found.layers) == (8, 4, 256, 262_208, 34)
    assert found.tied and found.exact and found.window == 1024 and found.sliding > 20


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny.folder(tmp_path / "llama", "llama")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"has no model\.layers\.1\.mlp\.up_proj\.weight"):
        base.load(sources.resolve(str(folder)), SETTINGS)
