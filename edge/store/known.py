"""Models of the hub whose families were tested here: what they are, their licence, and their dimensions.

Owns: that table; where the hub's client keeps a model. Does not know: torch, what a plan is, how a model is fetched
(`sources.py`). `edge/model/README.md` says what was tested of each family, with tiny models; those below were planned,
not run. Units: features, layers, tokens. Dimensions are those of each model's own config.json.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .embedded import APACHE, GEMMA

LLAMA_31 = "Llama 3.1 Community License", "https://www.llama.com/llama3_1/license/"
LLAMA_32 = "Llama 3.2 Community License", "https://www.llama.com/llama3_2/license/"
MIT = "MIT License", "https://opensource.org/license/mit"
LFM = "LFM Open License v1.0", "https://www.liquid.ai/lfm-license"

_NAMES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


@dataclass(frozen=True)
class Known:
    """A model of the hub.

    Attributes:
        name: its id there; what --model takes.
        licence: its name and its address.
        gated: whether its licence has to be accepted on its page before it can be fetched.
        config: what a plan reads of its config.json.
    """

    name: str
    licence: tuple[str, str]
    gated: bool
    config: Mapping[str, Any]


def _known(
    name: str, family: str, licence: tuple[str, str], sizes: tuple[int, ...], vocab: int, *, tied: bool,
    gated: bool = False, **more: Any,
) -> Known:  # fmt: skip
    config = {"model_type": family, **dict(zip(_NAMES, sizes, strict=True)), "vocab_size": vocab, "dtype": "bfloat16"}
    return Known(name, licence, gated, {**config, "tie_word_embeddings": tied, **more})


def _gemma(layers: int, window: int) -> dict[str, Any]:
    """Every sixth layer sees all tokens."""
    kinds = ["full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(layers)]
    return {"head_dim": 256, "sliding_window": window, "layer_types": kinds}


_QWEN3: dict[str, Any] = {"head_dim": 128}
_EXPERTS: dict[str, Any] = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
_CONV: dict[str, Any] = {
    "conv_L_cache": 3,
    "block_multiple_of": 256,
    "layer_types": ["full_attention" if i in (2, 5, 8, 10, 12, 14) else "conv" for i in range(16)],
}
ALL = (
    _known("Qwen/Qwen3-0.6B", "qwen3", APACHE, (1024, 3072, 28, 16, 8), 151_936, tied=True, **_QWEN3),
    _known("google/gemma-3-1b-it", "gemma3_text", GEMMA, (1152, 6912, 26, 4, 1), 262_144, tied=True, gated=True,
           **_gemma(26, 512)),
    _known("LiquidAI/LFM2-1.2B", "lfm2", LFM, (2048, 12288, 16, 32, 8), 65_536, tied=True, **_CONV),
    _known("meta-llama/Llama-3.2-1B-Instruct", "llama", LLAMA_32, (2048, 8192, 16, 32, 8), 128_256, tied=True,
           gated=True, head_dim=64),
    _known("allenai/OLMo-2-0425-1B-Instruct", "olmo2", APACHE, (2048, 8192, 16, 16, 16), 100_352, tied=False),
    _known("Qwen/Qwen2.5-1.5B-Instruct", "qwen2", APACHE, (1536, 8960, 28, 12, 2), 151_936, tied=True),
    _known("Qwen/Qwen3-1.7B", "qwen3", APACHE, (2048, 6144, 28, 16, 8), 151_936, tied=True, **_QWEN3),
    _known("HuggingFaceTB/SmolLM3-3B", "smollm3", APACHE, (2048, 11008, 36, 16, 4), 128_256, tied=True),
    _known("meta-llama/Llama-3.2-3B-Instruct", "llama", LLAMA_32, (3072, 8192, 28, 24, 8), 128_256, tied=True,
           gated=True, head_dim=128),
    _known("microsoft/Phi-4-mini-instruct", "phi3", MIT, (3072, 8192, 32, 24, 8), 200_064, tied=True),
    _known("google/gemma-3-4b-it", "gemma3_text", GEMMA, (2560, 10240, 34, 8, 4), 262_208, tied=True, gated=True,
           **_gemma(34, 1024)),
    _known("Qwen/Qwen3-4B", "qwen3", APACHE, (2560, 9728, 36, 32, 8), 151_936, tied=True, **_QWEN3),
    _known("mistralai/Mistral-7B-Instruct-v0.3", "mistral", APACHE, (4096, 14336, 32, 32, 8), 32_768, tied=False),
    _known("Qwen/Qwen2.5-7B-Instruct", "qwen2", APACHE, (3584, 18944, 28, 28, 4), 152_064, tied=False),
    _known("meta-llama/Llama-3.1-8B-Instruct", "llama", LLAMA_31, (4096, 14336, 32, 32, 8), 128_256, tied=False,
           gated=True),
    _known("Qwen/Qwen3-8B", "qwen3", APACHE, (4096, 12288, 36, 32, 8), 151_936, tied=False, **_QWEN3),
    _known("Qwen/Qwen3-30B-A3B", "qwen3_moe", APACHE, (2048, 6144, 48, 32, 4), 151_936, tied=False, **_QWEN3,
           **_EXPERTS),
)  # fmt: skip


def snapshot(name: str) -> Path | None:
    """The newest copy of a hub's model on this disk, as far as it is there; None where there is none."""
    home = (
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    )
    hub = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    copies = [path.parent for path in hub.glob(f"models--{name.replace('/', '--')}/snapshots/*/config.json")]
    return max(copies, key=lambda path: path.stat().st_mtime, default=None)
