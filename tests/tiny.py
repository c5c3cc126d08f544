"""Tiny random models of each supported architecture, with a byte-level tokenizer: made in memory, seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edge import base as bases
from edge import quantize, settings
from edge.device import Device
from edge.runtime import Runtime

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma3_text", "gemma2", "mistral", "phi3")
CPU = Device("cpu", "cpu", "float32")
WINDOW = ["window.chunk=24", "window.size=64", "adapter.rank=4", "adapter.alpha=4", "learn.lr=1e-2", "learn.epochs=2",
          "learn.prefix=full"]  # fmt: skip

TEXT = (
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and "
    "nothing particular to interest me on shore, I thought I would sail about a little and see the watery part of "
    "the world. It is a way I have of driving off the spleen and regulating the circulation. "
)


def tokenizer(*, bos: bool = True) -> Any:
    """One token per byte; `bos` decides whether a text starts with <s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<s>": 0, "</s>": 1, **{letter: i + 2 for i, letter in enumerate(alphabet)}}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special: dict[str, str] = {"eos_token": "</s>"}
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
        special["bos_token"] = "<s>"
    return PreTrainedTokenizerFast(tokenizer_object=inner, **special)


def model(architecture: str, *, seed: int = 0, layers: int = 2, **changes: Any) -> Any:
    """A random full-precision causal LM, hidden size 64, vocabulary 320."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        architecture,
        **{
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 320,
            "max_position_embeddings": 512,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
            **(
                {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * (layers // 2)}
                if architecture in ("gemma2", "gemma3_text")
                else {}
            ),
            **changes,
        },
    )
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # livelier than the usual initialisation, so that differences show
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return made.eval()


def runtime(
    architecture: str = "llama", *overrides: str, nf4: bool = True, bos: bool = True, seed: int = 0, **changes: Any
) -> Runtime:
    """A runtime on a tiny model."""
    made = model(architecture, seed=seed, **changes)
    if nf4:
        quantize.quantize_in_place(made, "cpu", torch.float32)
    chosen = settings.load("economical", [*WINDOW, *overrides])
    return Runtime(bases.from_model(made, tokenizer(bos=bos), CPU, architecture), chosen)


def folder(path: Path, architecture: str = "llama", *, bos: bool = True, **changes: Any) -> Path:
    """A full-precision model folder on disk."""
    made = model(architecture, **changes)
    made.save_pretrained(path)
    tokenizer(bos=bos).save_pretrained(path)
    return path


def gguf(path: Path, *, seed: int = 0) -> Path:
    """A random Llama of two blocks in one GGUF file, as other programs write it, with a byte-level tokenizer inside."""
    import numpy as np
    from gguf import GGUFWriter, TokenType
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", *letters, "th"]
    width, inner, keys = 64, 128, 32
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(2048)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_rope_dimension_count(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL, TokenType.CONTROL, *[TokenType.NORMAL] * (len(tokens) - 2)])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {"token_embd": (len(tokens), width), "output": (len(tokens), width), "output_norm": (width,)}
    for block in ("blk.0", "blk.1"):
        shapes |= {
            f"{block}.attn_norm": (width,), f"{block}.ffn_norm": (width,), f"{block}.attn_q": (width, width),
            f"{block}.attn_k": (keys, width), f"{block}.attn_v": (keys, width), f"{block}.attn_output": (width, width),
            f"{block}.ffn_gate": (inner, width), f"{block}.ffn_up": (inner, width), f"{block}.ffn_down": (width, inner),
        }  # fmt: skip
    numbers = np.random.default_rng(seed)
    for name, shape in shapes.items():
        values = numbers.normal(0, 0.2, shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(f"{name}.weight", values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
