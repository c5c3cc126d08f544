"""A graph whose weights are more than protobuf's 2 GB."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from edge.model import base as bases
from export import exporter
from export.engine import Engine
from export.manifest import WEIGHTS
from tests import tiny


@pytest.mark.slow
def test_a_billion_parameters_in_float32(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "llama", hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, vocab_size=4096, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.03, 0.03, generator=generator) if parameter.dim() > 1 else parameter.fill_(1)
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    model.tie_weights()
    base = bases.from_model(model, tiny.tokenizer(), tiny.CPU)
    made = exporter.export(base, tmp_path / "graph", "fp32")  # refused unless its logits are the base's
    assert max(made.parity.values()) < 1e-3
    assert (tmp_path / "graph" / WEIGHTS).stat().st_size > 2 << 30
    assert Engine(tmp_path / "graph").manifest.layers == 16
