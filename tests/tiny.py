"""Tiny random models of each supported architecture, with a byte-level tokenizer: made in memory, seeded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from edge import settings
from edge.machine.device import Device
from edge.model import base as bases
from edge.session import Runtime
from edge.weights import quantize

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


GGUF_NAMES = {
    "gemma3_text": "gemma3",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "gpt_oss": "gpt-oss",
}  # what a GGUF file calls an architecture, where it differs


def gguf(
    path: Path,
    architecture: str = "llama",
    kind: str = "F32",
    *,
    more: Callable[[Any], None] | None = None,
    **changes: Any,
) -> Path:
    """The same model as a whole GGUF file; the last words of its vocabulary are marked as unused.

    `kind`: how its matrices are stored. Where gguf cannot pack a kind, the numbers are random ones of that kind.
    `more`: adds to the header, or tensors.
    """
    import gguf as format

    made = model(architecture, **changes)
    config = made.config
    called = GGUF_NAMES.get(architecture, architecture)
    out = format.GGUFWriter(str(path), called)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_block_count(config.num_hidden_layers)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if architecture in ("gemma2", "gemma3_text", "qwen3", "qwen3_moe"):
        out.add_key_length(head)
        out.add_value_length(head)
    if architecture in ("gemma2", "gemma3_text"):
        out.add_sliding_window(config.sliding_window)
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    if experts:
        out.add_expert_count(experts)
        out.add_expert_used_count(config.num_experts_per_tok)
        out.add_expert_feed_forward_length(getattr(config, "moe_intermediate_size", config.intermediate_size))
        if hasattr(config, "shared_expert_intermediate_size"):
            out.add_expert_shared_feed_forward_length(config.shared_expert_intermediate_size)
    out.add_rope_dimension_count(head)
    out.add_rope_freq_base(10_000.0)
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    add_words(out, config.vocab_size)
    arch = {value: key for key, value in format.MODEL_ARCH_NAMES.items()}[called]
    table = format.get_tensor_name_map(arch, config.num_hidden_layers)
    tied = config.tie_word_embeddings
    for name, tensor in _parted(made.state_dict()):
        if not (tied and name == "lm_head.weight"):
            _add_tensor(
                out, table.get_name(name, try_suffixes=(".weight", ".bias")), tensor.numpy(), called, config, kind
            )
    if more is not None:
        more(out)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def add_words(out: Any, size: int) -> None:
    """The tokenizer of `tokenizer`, with one merge; all of the vocabulary that it does not use is marked so."""
    words = tokenizer().get_vocab()
    names = [*sorted(words, key=words.__getitem__), "ab"]
    unused = size - len(names)
    out.add_vocab_size(size)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("default")
    out.add_token_list([*names, *(f"<unused{i}>" for i in range(unused))])
    out.add_token_types([3, 3, *[1] * (len(names) - 2), *[5] * unused])
    out.add_token_merges(["a b"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    out.add_pad_token_id(1)
    out.add_add_bos_token(True)


def _parted(state: dict[str, Any]) -> Any:
    """Gate and up of experts by themselves, (out, in), as such a file has them."""
    for full, tensor in state.items():
        kind = ".bias" if full.endswith("_bias") else ".weight"
        name = full.removesuffix("_bias").removesuffix("_proj") if ".experts." in full else full
        if name.endswith(".experts.gate_up"):
            apart = f"{name[: -len('gate_up')]}gate_proj{kind}", f"{name[: -len('gate_up')]}up_proj{kind}"
            if f"{name}_proj_bias" in state:  # gpt_oss's: (in, out), features of both by turns
                for at, part in enumerate(apart):
                    yield part, tensor[..., at::2].mT if tensor.ndim == 3 else tensor[..., at::2]
            else:
                yield from zip(apart, tensor.chunk(2, 1), strict=True)
        elif name.endswith(".experts.down"):
            yield f"{name}_proj{kind}", tensor.mT if tensor.ndim == 3 and f"{name}_proj_bias" in state else tensor
        else:
            yield full, tensor[0] if full.endswith("shared_expert_gate.weight") else tensor


def _add_tensor(out: Any, name: str, numbers: Any, called: str, config: Any, kind: str) -> None:
    """As llama.cpp's own converter writes it: rotary halves of a Llama interleaved, norms of a Gemma plus one."""
    import gguf as format
    import numpy as np

    if called == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        halves = numbers.reshape(heads, 2, -1, *numbers.shape[1:])
        numbers = halves.swapaxes(1, 2).reshape(numbers.shape)
    if called.startswith("gemma") and name.endswith("norm.weight"):
        numbers = numbers + 1
    packing = format.GGMLQuantizationType[kind]
    if numbers.ndim < 2 or kind == "F32":
        out.add_tensor(name, np.ascontiguousarray(numbers))
        return
    try:
        data = format.quantize(numbers, packing)
    except NotImplementedError:
        block, width = format.GGML_QUANT_SIZES[packing]
        random = np.random.default_rng(len(name))
        data = random.integers(0, 256, (len(numbers), numbers.shape[1] // block, width), dtype=np.uint8)
        for at in {"Q4_K": (0, 2), "Q6_K": (208,)}[kind]:  # the scales, which are halves
            data[..., at : at + 2] = np.frombuffer(np.float16(0.01).tobytes(), np.uint8)
        data = data.reshape(len(numbers), -1)
    out.add_tensor(name, data, raw_dtype=packing)
