"""A model's dimensions, from its config or its GGUF header alone: nothing is loaded.

Owns: reading `config.json` and GGUF headers, which linear layers an architecture has, what its blocks keep.
Does not know: torch, settings, how much memory there is.
Units: numbers of features, layers and heads; bytes per number.
"""

from __future__ import annotations

import dataclasses
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, describe
from ..store.sources import Source
from . import families, gguf, mixture

KNOWN = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "phi3")
# Their blocks hold the linear layers of a Llama's block, and are computed as one is.
_LIKE_LLAMA = (
    "ministral3", "ministral", "smollm3", "granite", "seed_oss", "ernie4_5", "hunyuan_v1_dense", "qwen3_vl_text",
    "olmo2", "olmo3", "exaone4",
)  # fmt: skip
_NAMES = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads"}
_MLP = (
    "intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "intermediate_size_mlp",
    "shared_intermediate_size", "shared_expert_intermediate_size",
)  # fmt: skip
_NAME = re.compile(r"[\w.-]{0,64}", re.ASCII)  # of a family
_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
# Architectures of GGUF files, each tested against the model's own folder (`weights/README.md` has the table).
GGUF = {
    "llama": "llama", "gemma2": "gemma2", "gemma3": "gemma3_text", "qwen2": "qwen2", "qwen3": "qwen3",
    "phi3": "phi3", "qwen2moe": "qwen2_moe", "qwen3moe": "qwen3_moe", "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text", "lfm2": "lfm2", "starcoder2": "starcoder2", "stablelm": "stablelm",
    "nemotron": "nemotron",
}  # fmt: skip
_STATES = {  # Qwen3.5's linear attention, as a header names its numbers
    "linear_num_key_heads": "ssm.group_count", "linear_num_value_heads": "ssm.time_step_rank",
    "linear_key_head_dim": "ssm.state_size", "linear_conv_kernel_dim": "ssm.conv_kernel",
}  # fmt: skip
_HEADERS = 1 << 20  # bytes
_WORTH_COUNTING = 0.02  # of a folder's bytes: norms, biases and headers are less
MAX_LAYERS = 10_000  # far above any model's; a damaged or hostile header says more
MAX_SIZE = 1 << 30


@dataclass(frozen=True)
class Shape:
    """What the planner needs to know of a decoder-only transformer.

    Attributes:
        architecture: transformers' `model_type`.
        exact: False where the blocks are not known one by one, and are counted from above (`families.Beside`).
        heads, groups, head_dim: query heads, key-value heads, features of each.
        sliding: number of blocks with sliding-window attention, each token seeing `window` tokens.
        tied: the head is the embedding matrix.
        stored: bytes of one number of embeddings and norms on disk.
        packed: the folder already holds 4-bit weights, made by templora.
        repaired: it holds a repair, too, which layers carry that do not learn.
        mixture: its experts, where a block has them in the place of one MLP.
        more: name, inputs and outputs of linear layers that a Llama's block has not, or not as large.
        whole: numbers that stay unquantised beside embeddings and head.
        copies: hidden states of each token.
        scanned: features of each token that a layer with a state makes.
        matrices: attention makes its whole matrix of scores.
        anew: why no keys and values can be kept from one window to the next; empty where they can.
    """

    architecture: str
    exact: bool
    layers: int
    hidden: int
    intermediate: int
    heads: int
    groups: int
    head_dim: int
    vocab: int
    window: int | None
    sliding: int
    tied: bool
    stored: int
    packed: bool
    repaired: bool = False
    mixture: mixture.Mixture | None = None
    more: tuple[tuple[str, int, int], ...] = ()
    whole: int = 0
    copies: int = 1
    scanned: int = 0
    matrices: bool = False
    anew: str = ""

    @property
    def queries(self) -> int:
        """Features of all query heads."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Features of all key heads."""
        return self.groups * self.head_dim

    @property
    def sandwich(self) -> bool:
        """Whether attention and MLP have a norm after them too."""
        return self.architecture in ("gemma2", "gemma3_text") or not self.exact

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normalised."""
        return self.architecture in ("qwen3", "gemma3_text", *_LIKE_LLAMA) or not self.exact

    @property
    def softcapped(self) -> bool:
        """Whether attention scores are soft-capped."""
        return self.architecture == "gemma2"

    @property
    def fused(self) -> bool:
        """Whether one layer makes queries, keys and values, and one gate and up."""
        return self.architecture == "phi3"

    def linears(self) -> dict[str, tuple[int, int]]:
        """(inputs, outputs) of each linear layer of one block."""
        h, i, q, k = self.hidden, self._dense, self.queries, self.keys
        if self.fused:
            return {"qkv_proj": (h, q + 2 * k), "o_proj": (q, h), "gate_up_proj": (h, 2 * i), "down_proj": (i, h)}
        attention = {"q_proj": (h, q), "k_proj": (h, k), "v_proj": (h, k), "o_proj": (q, h)}
        mlp = {"gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)} if i else {}
        return attention | mlp | {name: (inputs, outputs) for name, inputs, outputs in self.more}

    @property
    def _dense(self) -> int:
        """Features of the widest MLP of linear layers: with experts the shared one's, or a block's without experts."""
        if self.mixture is None or self.mixture.blocks < self.layers:
            return self.intermediate
        return self.mixture.shared

    @property
    def wide(self) -> int:
        """Features of an MLP whose activations take as much as the largest block's."""
        dense = self._dense
        return dense if self.mixture is None else max(dense, self.mixture.width(self.hidden))

    @property
    def spread(self) -> int:
        """Features of a token's copies, where each expert has one."""
        return 0 if self.mixture is None else self.mixture.spread(self.hidden)

    @property
    def linear_parameters(self) -> int:
        """Weights of all blocks' linear layers; experts are none."""
        one = sum(inputs * outputs for inputs, outputs in self.linears().values())
        mix = self.mixture
        less = 0 if mix is None else mix.blocks * 3 * self.hidden * (self._dense - mix.shared)
        return self.layers * one - less

    @property
    def expert_parameters(self) -> int:
        """Weights of all experts."""
        return 0 if self.mixture is None else self.mixture.weights(self.hidden)

    @property
    def active_parameters(self) -> int:
        """Weights that one token is multiplied with: of linear layers, and of the experts that it is sent to."""
        return self.linear_parameters + (0 if self.mixture is None else self.mixture.active(self.hidden))


def read(source: Source) -> Shape:
    """The shape of a model on this disk.

    Raises:
        ModelError: config or header are missing, damaged, or of something else than a decoder.
    """
    if source.kind == "gguf":
        return _from_gguf(source.path)
    path = source.path / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        manifest = source.path / "templora.json"
        packed = manifest.is_file()
        found = from_config(config, packed=packed)
        if not found.exact and "text_config" not in config:  # a tower beside the language model is not read
            held = sum(file.stat().st_size for file in source.path.glob("model*.safetensors"))
            found = dataclasses.replace(found, whole=found.whole + _uncounted(found, held))
        return dataclasses.replace(found, repaired=packed and "repair" in json.loads(manifest.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be used ({describe(error)})", "a decoder-only transformer's config", "check the folder"
        ) from error


def _uncounted(found: Shape, held: int) -> int:
    """Numbers that a folder's files hold beyond those that its config is known to speak of: counted unquantised.

    A family that is not known one block by one may have layers, or call its experts, as no other does.
    """
    narrow = found.linear_parameters + found.expert_parameters
    wide = found.vocab * found.hidden * (1 if found.tied else 2) + found.whole
    expected = narrow * (0.55 if found.packed else found.stored) + wide * found.stored
    missing = held - int(expected)
    return missing // found.stored if missing > max(_HEADERS, _WORTH_COUNTING * held) else 0


def from_config(config: Mapping[str, Any], *, packed: bool = False) -> Shape:
    """The shape that a transformers config describes; of a model for images or speech, that of the language model
    inside.

    Raises:
        KeyError, TypeError, ValueError: a needed value is missing or no number.
        ModelError: a family that cannot be used.
    """
    config = _whole(config)
    kind = str(config.get("model_type", ""))
    why = families.refusal(config)
    if why:
        raise ModelError(f"a {kind} model: {why}", "a decoder-only transformer", "use another model")
    by = families.quantised(config)
    if by:
        raise ModelError(
            f"weights quantised by {by}", "full precision, or bitsandbytes' 4 bits", "use the model in full precision"
        )
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    layers = int(config["num_hidden_layers"])
    window = config.get("sliding_window")
    if kind in ("qwen2", "qwen3") and not config.get("use_sliding_window", False):
        window = None
    kinds = config.get("layer_types")
    if kinds is not None:
        sliding = sum(1 for name in kinds if name == "sliding_attention")
    else:
        sliding = layers if window is not None and kind in ("mistral", "phi3") else 0
    dtype = str(config.get("dtype") or config.get("torch_dtype") or "float32")
    head_dim = max(int(config.get("head_dim") or hidden // heads), families.largest(config.get("global_head_dim")))
    beside = families.beside(config, hidden, layers, heads, head_dim)
    shape = Shape(
        architecture=kind,
        exact=kind in (*KNOWN, *_LIKE_LLAMA),
        layers=layers,
        hidden=hidden,
        intermediate=families.width(config) or max(families.largest(config.get(name)) for name in _MLP) or 4 * hidden,
        heads=heads,
        groups=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        vocab=int(config["vocab_size"]),
        window=int(window) if window and sliding else None,
        sliding=sliding if window else 0,
        tied=bool(config.get("tie_word_embeddings", kind.startswith("gemma"))),
        stored=2 if "16" in dtype else 4,
        packed=packed,
        mixture=mixture.from_config(config, layers) if 1 <= layers <= MAX_LAYERS else None,
        more=tuple((name, *dims) for name, dims in beside.linears.items()),
        whole=beside.whole,
        copies=beside.copies,
        scanned=beside.scanned,
        matrices=beside.matrices,
        anew=families.anew(families.kinds(config), kind),
    )
    sizes = (
        shape.hidden,
        shape.intermediate,
        shape.heads,
        shape.groups,
        shape.head_dim,
        shape.vocab,
        shape.window or 1,
    )
    if min(*sizes, layers) < 1:
        raise ValueError("a size below 1")
    if layers > MAX_LAYERS or max(sizes) > MAX_SIZE:
        raise ValueError(f"a size of {max(*sizes, layers)}, which no model has")
    return shape


def _whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's values under their usual names; what a config leaves to its family's defaults is looked up
    there."""
    inner = config.get("text_config")
    if inner:  # of the outer values only those count that belong to both
        config = {**{name: value for name, value in config.items() if name not in _NEEDED}, **inner}
    config = {**{_NAMES[name]: value for name, value in config.items() if name in _NAMES}, **config}
    kind = str(config.get("model_type", ""))
    if not _NAME.fullmatch(kind):
        raise ValueError("a model_type that is no name")
    if inner or any(name not in config for name in _NEEDED):
        config = {**config, **_defaults(kind, inner or config)}
    return dict(config)


def _defaults(kind: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values with the defaults of transformers' own config; empty where it has none.

    Takes a second, and no torch.

    Raises:
        ValueError: the values are none that this config can have.
    """
    from transformers import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        return {}
    try:
        return dict(CONFIG_MAPPING[kind].from_dict(dict(values)).to_dict())
    except Exception as error:  # the library's own checks have no common class
        raise ValueError(describe(error)) from error


# --- GGUF ---


def _from_gguf(path: Path) -> Shape:
    try:
        with path.open("rb") as file:
            header = gguf.read(file, ["lfm2.attention.head_count_kv"])
        kind = str(header.values["general.architecture"])
        if not _NAME.fullmatch(kind):
            raise ValueError("an architecture that is no name")
        if int(header.values.get("split.count", 1)) > 1:
            raise ModelError(
                f"{path.name} is one of {header.values['split.count']} parts of a model", "a GGUF file in one part",
                "join them first: llama-gguf-split --merge FIRST OUT",
            )  # fmt: skip
        if kind not in GGUF or (kind == "llama" and header.values.get("llama.expert_count")):
            raise ModelError(
                f"{path.name} is a GGUF file of a {kind[:40]} model{' with experts' if kind in GGUF else ''}",
                f"one of {', '.join(GGUF)}", "use the model's own folder with safetensors instead",
            )  # fmt: skip
        return from_config(_header_config(header, kind))
    except (OSError, ValueError, KeyError, TypeError, struct.error, MemoryError, ArithmeticError) as error:
        raise ModelError(
            f"{path} has no usable header ({describe(error)})", "a GGUF language model", "download it again"
        ) from error


def _header_config(header: gguf.Header, kind: str) -> dict[str, Any]:
    """The values of a GGUF header under the names of transformers' config."""

    def value(name: str, default: Any = None) -> Any:
        return header.values.get(f"{kind}.{name}", default)

    layers = int(value("block_count")) - int(value("nextn_predict_layers", 0))
    window = value("attention.sliding_window")
    groups = value("attention.head_count_kv")
    if not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{layers} blocks, which no model has")
    config = {
        "model_type": GGUF[kind],
        "num_hidden_layers": layers,
        "hidden_size": value("embedding_length"),
        "intermediate_size": value("feed_forward_length"),
        "num_attention_heads": value("attention.head_count"),
        "num_key_value_heads": max(groups) if isinstance(groups, list) else groups,
        "head_dim": value("attention.key_length"),
        "vocab_size": header.tensors["token_embd.weight"].dims[-1],
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "dtype": "bfloat16",
        "sliding_window": window,
        "num_experts": value("expert_count"),
        "num_experts_per_tok": value("expert_used_count"),
        "moe_intermediate_size": value("expert_feed_forward_length"),
        "shared_expert_intermediate_size": value("expert_shared_feed_forward_length"),
    }
    if window:  # every second block of Gemma 2 sees all tokens, every sixth of Gemma 3
        period = {"gemma2": 2, "gemma3": 6}.get(kind, layers + 1)
        config["layer_types"] = [
            "full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(layers)
        ]
    if isinstance(groups, list):  # none in LFM2's convolutions
        config["layer_types"] = ["full_attention" if count else "conv" for count in groups[:layers]]
        config |= {"conv_L_cache": value("shortconv.l_cache"), "block_auto_adjust_ff_dim": False}
    if value("full_attention_interval"):
        config |= {name: value(key) for name, key in _STATES.items()}
        config["linear_value_head_dim"] = int(value("ssm.inner_size")) // int(value("ssm.time_step_rank"))
        config["layer_types"] = [
            "linear_attention" if (i + 1) % value("full_attention_interval") else "full_attention"
            for i in range(layers)
        ]
    return config
