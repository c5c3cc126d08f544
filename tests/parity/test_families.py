"""The table of families in `edge/model/README.md`, cell by cell; what is refused, and how."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import edge
from edge.errors import ModelError
from edge.memory import families as known
from edge.memory import shape
from edge.model.forward import TorchForward
from edge.session import Runtime
from edge.settings import load
from edge.weights import quantize
from edge.weights.paging import MemoryStore
from tests import families, family_rows, tiny

README = (Path(__file__).resolve().parents[2] / "edge/model/README.md").read_text("utf-8")
WORKING = [family for family in families.LANGUAGE if f"| `{family}` | yes | yes | yes |" in README]
HYBRIDS = ("lfm2", "qwen3_5_text", "qwen3_next", "granitemoehybrid", "falcon_h1", "llama4_text")


@pytest.mark.parametrize("family", families.LANGUAGE)
def test_a_family_does_what_its_row_says(family: str) -> None:
    assert family_rows.line(family) in README.splitlines()


def test_the_table_has_a_row_for_each_family_and_the_fused_attention_is_tested_for_each() -> None:
    rows = [line.split("|")[1].strip(" `") for line in README.splitlines() if line.startswith("| `")]
    assert rows == list(families.LANGUAGE) and len(rows) >= 45
    assert set(known.FUSED) <= set(rows) and set(shape.KNOWN) <= set(known.FUSED)


@pytest.mark.parametrize("family", WORKING)
def test_almost_all_linear_and_expert_weights_are_held_in_four_bits(family: str) -> None:
    """Counted by shape alone: every matrix below the head that is no embedding, no convolution, no bias of experts."""
    made = families.language_model(family)
    tables = {id(m.weight) for m in made.modules() if isinstance(m, torch.nn.Embedding)}
    tables.add(id(made.get_output_embeddings().weight))
    counts = {
        name: parameter.numel()
        for name, parameter in made.named_parameters()
        if parameter.ndim > 1 and id(parameter) not in tables and not name.endswith("bias") and "conv" not in name
    }
    quantize.quantize_in_place(made, "cpu", torch.float32)
    kept = {name: counts.get(name, 0) for name, p in made.named_parameters() if p.dtype != torch.uint8}
    assert sum(kept.values()) <= 0.1 * sum(counts.values()), kept
    assert len(WORKING) >= 34


@pytest.mark.parametrize("family", HYBRIDS)
@pytest.mark.parametrize("prefix", ["cached", "frozen"])
def test_kept_keys_are_refused_where_layers_keep_none(family: str, prefix: str) -> None:
    with pytest.raises(ModelError, match=f"learn.prefix={prefix} .*layers of {family}.*leave it at auto"):
        _runtime(family, f"learn.prefix={prefix}")


@pytest.mark.parametrize("family", HYBRIDS)
def test_why_windows_are_computed_anew_is_said_in_one_line(family: str) -> None:
    (note,) = _runtime(family, "learn.prefix=auto").notes
    assert f"layers of {family}" in note and "learn.prefix=full" in note and "\n" not in note


@pytest.mark.parametrize("family", ["falcon_h1", "qwen3_5_text", "gemma4_text"])
def test_a_cache_with_states_is_paged_and_never_rewound_wrongly(family: str) -> None:
    runtime = _runtime(family, "learn.mode=none")
    forward = TorchForward(runtime.base, None, runtime.plan.settings.compute)
    ids = family_rows.IDS
    whole, _ = forward.prefill(ids[:40])
    _, cache = forward.prefill(ids[:30])
    forward.mark(cache)
    pages = MemoryStore()
    forward.page_out(cache, pages)
    forward.page_in(cache, pages)
    after = forward.extend(ids[30:40], cache)
    assert torch.allclose(after, whole, atol=1e-4 * float(whole.std()))
    assert forward.rewind(cache, 30) == (family == "gemma4_text")
    again = forward.extend(ids[30:40], cache if cache.length == 30 else forward.prefill(ids[:30])[1])
    assert torch.equal(again, after)


def test_full_attention_is_refused_where_no_keys_are_kept() -> None:
    with (
        _runtime("lfm2", "learn.mode=none").session() as session,
        pytest.raises(ModelError, match="conv layers of lfm2"),
    ):
        list(session.score_ids(family_rows.IDS.tolist(), full=True))


@pytest.mark.parametrize("family", ["gpt2", "mamba2"])
def test_a_family_that_cannot_work_is_refused_before_its_weights_are_read(family: str, tmp_path: Path) -> None:
    families.language_model(family).config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"a {family} model: .*use another model") as caught:
        edge.load(str(tmp_path))
    assert caught.value.exit_code == 4


def test_a_family_that_cannot_be_planned_is_not_converted(tmp_path: Path) -> None:
    """Its config names its numbers as no other does; a folder in 4 bits would be refused by every verb."""
    from transformers import MptConfig, MptForCausalLM

    MptForCausalLM(MptConfig(d_model=64, n_heads=4, n_layers=1, max_seq_len=64, vocab_size=320)).save_pretrained(
        tmp_path
    )
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"config\.json cannot be used"):
        quantize.quantize_to_folder(str(tmp_path), tmp_path / "nf4")
    assert not (tmp_path / "nf4").exists()


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    from transformers import T5Config

    T5Config(d_model=64, num_layers=1, vocab_size=320).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="t5"):
        edge.load(str(tmp_path))


def test_an_adapter_leaves_mixers_and_routers_alone() -> None:
    with _runtime("falcon_h1").session() as session:
        names = session.adapter.targets
    assert names and not any("mamba" in name for name in names) and any("self_attn" in name for name in names)
    with _runtime("qwen3_next").session() as session:
        kinds = {name.rpartition(".")[2] for name in session.adapter.targets}
    assert "in_proj_qkvz" in kinds and "up_proj" in kinds and not kinds & {"gate", "shared_expert_gate", "in_proj_ba"}


def _runtime(family: str, *overrides: str) -> Runtime:
    from edge.model import base

    made = base.from_model(families.language_model(family), family_rows.TOKENIZER, tiny.CPU, family)
    return Runtime(made, load("economical", [*tiny.WINDOW, *overrides]))
