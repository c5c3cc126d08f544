"""Models of the hub: what is known of them, what fits, what the hub's refusals mean, and other files' conversions in the cache."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import errors

from edge import cli
from edge.commands import models
from edge.errors import ModelError
from edge.memory import planning, shape
from edge.store import known, sources
from edge.weights import quantize
from tests import families, tiny

# Billions of weights as the models' own cards give them.
PUBLISHED = {
    "Qwen/Qwen3-0.6B": 0.596, "google/gemma-3-1b-it": 1.0, "meta-llama/Llama-3.2-1B-Instruct": 1.24,
    "allenai/OLMo-2-0425-1B-Instruct": 1.48, "Qwen/Qwen2.5-1.5B-Instruct": 1.54, "Qwen/Qwen3-1.7B": 1.72,
    "HuggingFaceTB/SmolLM3-3B": 3.08, "meta-llama/Llama-3.2-3B-Instruct": 3.21, "microsoft/Phi-4-mini-instruct": 3.84,
    "google/gemma-3-4b-it": 3.88, "Qwen/Qwen3-4B": 4.02, "mistralai/Mistral-7B-Instruct-v0.3": 7.25,
    "Qwen/Qwen2.5-7B-Instruct": 7.62, "meta-llama/Llama-3.1-8B-Instruct": 8.03, "Qwen/Qwen3-8B": 8.19,
    "Qwen/Qwen3-30B-A3B": 30.5,
}  # fmt: skip


@pytest.mark.parametrize("model", known.ALL, ids=lambda model: model.name)
def test_dimensions_give_the_weights_that_were_published(model: known.Known) -> None:
    dims = shape.from_config(model.config)
    readme = (Path(shape.__file__).parents[1] / "model/README.md").read_text("utf-8")
    assert f"| `{dims.architecture}` | yes | yes | yes |" in readme and dims.architecture in families.LANGUAGE
    weights = models._weights(dims) / 1e9
    if model.name in PUBLISHED:
        assert abs(weights - PUBLISHED[model.name]) < 0.01 * PUBLISHED[model.name]
    else:  # a hybrid is counted from above
        assert model.name == "LiquidAI/LFM2-1.2B" and 1.17 < weights < 1.5


def test_models_that_do_not_fit_are_named_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    here = tmp_path / "hub/models--Qwen--Qwen3-4B/snapshots/abc"
    here.mkdir(parents=True)
    (here / "config.json").write_text("{}")
    monkeypatch.setattr(planning, "free_for_all", lambda *device: 8_000_000_000)
    start = time.monotonic()
    assert cli.main(["models", "--json"]) == 0
    assert time.monotonic() - start < 30
    out = capsys.readouterr().out
    listed = {entry["name"]: entry for entry in json.loads(out.splitlines()[-1])["hub"]}
    assert [name for name, entry in listed.items() if entry["peak_bytes"] is None][-1] == "Qwen/Qwen3-30B-A3B"
    assert listed["meta-llama/Llama-3.1-8B-Instruct"]["peak_bytes"] is None
    assert 1e9 < listed["Qwen/Qwen3-0.6B"]["peak_bytes"] < listed["Qwen/Qwen3-1.7B"]["peak_bytes"] < 8e9
    assert listed["google/gemma-3-1b-it"]["gated"] and "Gemma Terms of Use, to be accepted first" in out
    assert "more than is free" in out and "hf auth login" in out
    assert listed["Qwen/Qwen3-4B"]["path"] == str(here) and listed["Qwen/Qwen3-8B"]["path"] is None


def _error(kind: type[Exception]) -> Exception:
    """The client's own takes the hub's answer, in another form in each version."""
    return kind.__new__(kind, "no")


def _wrapped() -> Exception:
    outer = errors.LocalEntryNotFoundError("not there")
    outer.__cause__ = _error(errors.GatedRepoError)
    return outer


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            _error(errors.GatedRepoError),
            "is gated.*accept its licence at https://huggingface.co/a/b, then.*hf auth login",
        ),
        (_wrapped(), "is gated.*hf auth login"),
        (_error(errors.RepositoryNotFoundError), "nor a public model.*check the name.*hf auth login"),
        (OSError("nobody answers"), r"nor to be had from the hub \(OSError\).*network"),
    ],
)
def test_what_the_hub_refuses_says_what_to_do(error: Exception, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def answer(name: str, local_files_only: bool = False, **options: Any) -> str:
        raise FileNotFoundError("here") if local_files_only else error

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    with pytest.raises(ModelError, match=says) as caught:
        sources.resolve("a/b")
    assert caught.value.exit_code == 4 and "\n" not in caught.value.line()


def test_a_hub_model_without_safetensors_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    def answer(name: str, local_files_only: bool = False, **options: Any) -> str:
        if local_files_only:
            raise FileNotFoundError("here")
        return str(tmp_path)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", answer)
    with pytest.raises(ModelError, match=r"no transformers model in safetensors.*hf download a/b FILE\.gguf"):
        sources.resolve("a/b")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert sources.resolve("a/b").path == tmp_path


def test_conversions_of_other_files_are_listed_and_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    folder = quantize.convert_once(sources.resolve(str(tiny.gguf(tmp_path / "mine.gguf")))).path
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert cli.main(["models", "--json"]) == 0
    out = capsys.readouterr().out
    (listed,) = json.loads(out.splitlines()[-1])["conversions"]
    assert listed == {"name": folder.name, "source": "mine.gguf", "bytes": size} and "mine.gguf" in out
    assert cli.main(["models", "remove", folder.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["removed_bytes"] == {"conversion": size}
    assert not folder.exists()
    assert cli.main(["models", "remove", folder.name]) == 4


def test_a_conv_model_is_counted_with_the_width_that_it_computes() -> None:
    """LFM2's published configs name the width before it is cut to two thirds; transformers' own model is the measure."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    for width, cut in ((96, True), (200, True), (200, False)):
        config = {
            "model_type": "lfm2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64,
            "num_key_value_heads": 2, "block_ff_dim": width, "block_auto_adjust_ff_dim": cut, "block_multiple_of": 16,
            "block_ffn_dim_multiplier": 1.0, "conv_L_cache": 3, "layer_types": ["conv", "full_attention"],
        }  # fmt: skip
        with torch.device("meta"):
            made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**dict(config)))
        real = made.model.layers[0].feed_forward.w1.out_features
        assert shape.from_config(config).intermediate == real
