"""A decoder -> ONNX graphs, with the KV cache and the adapter's A and B as inputs.

Owns: how a Llama-like decoder is written in ONNX operators, the graphs' inputs and outputs and their names.
Does not know: what runs them (`runtime.py`), whether they are right (`check.py`), the files beside them.
Units: tokens; shapes as noted. Texts of one run, B of them, lie one after the other in S rows, as many of each; the
operators of attention alone know where one ends.

Two graphs on one data file, so that a window's hidden states meet the head in slices and its full logits never exist:

    decoder  embedded (S, H), rows of the embedding matrix; positions (S,) int64; seen (B,) int32 = tokens of each text
             in all - 1, total () int32 = tokens of the longest in all, and the same of what layers with a window hold:
             sliding.seen, sliding.total; past.I.key, past.I.value (B, G, P, D); NAME.lora_a (K, r) and NAME.lora_b
             (r, N), r from 0 up -> hidden (S, H), present.I.key, present.I.value (B, G, max(P, total), D)
    head     hidden (S, H), labels (S,) int64, scoring () bool -> of each part I of the vocabulary: part.I (S, n), its
             logits, or when scoring (S, blocks), logsumexp of the logits of each block; own.I (S,), the
             label's logit or 0

Past and present may be one buffer: GroupQueryAttention then writes in place. Everything is read off the model's own
modules (scales, windows, norms, rotary frequencies), so that what its config says is decided in one place.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.nn import functional as F

from edge.errors import ExportError
from edge.memory.shape import KNOWN
from edge.model.base import Base

from . import nf4
from .manifest import cache_names, head_parts, lora_inputs, part_outputs
from .writer import MS, DataFile, Graph

OPSET = 21
NORMALISER_BLOCK = 1024
_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "silu": ("QuickGelu", {"alpha": 1.0}),
    "gelu_pytorch_tanh": ("FastGelu", {}),
    "gelu": ("Gelu", {}),
}


def require_known(base: Base) -> None:
    """Refuses what these graphs cannot stand for.

    Raises:
        ExportError: the architecture is not one that is tested, or its rotary embedding changes with the length.
    """
    config = base.config
    remedy = "use the torch forward path"
    if config.model_type not in KNOWN:
        raise ExportError(f"architecture '{config.model_type}'", "one of " + ", ".join(KNOWN), remedy)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {str(entry.get("rope_type")) for entry in (rope, *rope.values()) if isinstance(entry, dict)}
    for kind in kinds & {"dynamic", "longrope"}:
        raise ExportError(f"a rotary embedding of type '{kind}'", "angles that do not change with the length", remedy)
    if _activation(config) not in _ACTIVATIONS:
        raise ExportError(f"activation '{_activation(config)}'", "one of " + ", ".join(_ACTIVATIONS), remedy)


def lora_shapes(base: Base) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the layers whose A and B are inputs: every linear layer below the head."""
    return {name: (layer.in_features, layer.out_features) for name, layer in _linears(base)}


def windows(base: Base) -> dict[int, int]:
    """The layers that see only so many tokens, themselves included, and how many."""
    found = {index: _window(block.self_attn, base.config) for index, block in enumerate(base.blocks)}
    return {index: window for index, window in found.items() if window is not None}


def head_size(config: Any) -> int:
    """Features of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


class DecoderGraph:
    """Writes the decoder of one base."""

    def __init__(self, base: Base, data: DataFile, precision: str, *, half: bool = False, wide: bool = False) -> None:
        """`half`: attention and its cache in float16, the only widths that ONNX Runtime's CUDA kernels know.
        `wide`: see `nf4.matrix_of`.
        """
        self.wide = wide
        self.base = base
        self.config = base.config
        self.precision = precision
        self.half = half
        self.graph = Graph(data)
        self.layers = dict(_linears(base))
        self.head_size = head_size(base.config)
        self.names = {id(layer): name for name, layer in base.model.named_modules()}
        self._shapes: dict[tuple[int, ...], str] = {}

    def build(self) -> Graph:
        """The whole graph."""
        graph = self.graph
        states = graph.input("embedded", ["S", self.config.hidden_size])
        graph.input("positions", ["S"], np.int64)
        graph.input("seen", ["B"], np.int32)
        graph.input("total", [], np.int32)
        if windows(self.base):
            graph.input("sliding.seen", ["B"], np.int32)
            graph.input("sliding.total", [], np.int32)
        self._texts = graph.op("Shape", "seen")
        count = graph.op("Squeeze", graph.op("Shape", "positions"))
        rows = graph.op("Range", graph.constant(0), count, graph.constant(1))
        self._rows = self._by_text(rows)  # where the angles of each token lie
        self._angles: dict[str, tuple[str, str]] = {}
        scale = getattr(self.base.model.get_input_embeddings(), "scalar_embed_scale", None)
        if scale is not None:
            states = graph.op("Mul", states, graph.constant(scale, np.float32))
        for index, block in enumerate(self.base.blocks):
            states = self._block(states, index, block)
        states = self._norm(states, self.base.decoder.norm)  # type: ignore[arg-type]
        graph.output(states, "hidden", ["S", self.config.hidden_size])
        for name in cache_names(self.config.num_hidden_layers, "present"):
            graph.output(
                name,
                name,
                ["B", self.config.num_key_value_heads, "T", self.head_size],
                np.float16 if self.half else np.float32,
            )
        return graph

    def _block(self, states: str, index: int, block: Any) -> str:
        """(S, H) after one transformer block; a sandwich block has norms after attention and MLP too."""
        sandwich = hasattr(block, "pre_feedforward_layernorm")
        out = self._attention(self._norm(states, block.input_layernorm), index, block.self_attn)
        if sandwich:
            out = self._norm(out, block.post_attention_layernorm)
        states = self.graph.op("Add", states, out)
        before = block.pre_feedforward_layernorm if sandwich else block.post_attention_layernorm
        out = self._mlp(self._norm(states, before), block.mlp)
        if sandwich:
            out = self._norm(out, block.post_feedforward_layernorm)
        return self.graph.op("Add", states, out)

    def _attention(self, x: str, index: int, attention: Any) -> str:
        graph = self.graph
        config = self.config
        size = self.head_size
        heads = config.num_attention_heads
        groups = config.num_key_value_heads
        if hasattr(attention, "qkv_proj"):
            query, key, value = self._split(
                self._linear(x, attention.qkv_proj), [heads * size, groups * size, groups * size]
            )
        else:
            query, key, value = (self._linear(x, getattr(attention, f"{kind}_proj")) for kind in "qkv")
        turned = []
        for rows, count, norm in ((query, heads, "q_norm"), (key, groups, "k_norm")):
            if hasattr(attention, norm):
                rows = graph.op("Reshape", rows, graph.constant([-1, count, size]))
                rows = self._norm(rows, getattr(attention, norm))
            turned.append(self._rotate(self._by_text(rows, count * size), count, attention))
        value = self._by_text(value, groups * size)
        kind = np.float16 if self.half else np.float32
        past = [graph.input(f"past.{index}.{of}", ["B", groups, f"P{index}", size], kind) for of in ("key", "value")]
        if self.half:
            turned = [graph.op("Cast", rows, to=TensorProto.FLOAT16) for rows in turned]
            value = graph.op("Cast", value, to=TensorProto.FLOAT16)
        window = _window(attention, config)
        held = ["seen", "total"] if window is None else ["sliding.seen", "sliding.total"]
        softcap = getattr(attention, "attn_logit_softcapping", None)
        graph.ops(
            "GroupQueryAttention", [*turned, value, *past, *held],
            [f"attended.{index}", f"present.{index}.key", f"present.{index}.value"], domain=MS,
            num_heads=heads, kv_num_heads=groups, scale=float(attention.scaling),
            local_window_size=-1 if window is None else window, softcap=float(softcap or 0.0),
        )  # fmt: skip
        attended = f"attended.{index}"
        if self.half:
            attended = graph.op("Cast", attended, to=TensorProto.FLOAT)
        rows = graph.op("Reshape", attended, graph.constant([-1, heads * size]))
        return self._linear(rows, attention.o_proj)

    def _by_text(self, rows: str, *width: int) -> str:
        """(S, *width) rows as (B, S / B, *width)."""
        if width not in self._shapes:
            self._shapes[width] = self.graph.op("Concat", self._texts, self.graph.constant([-1, *width]), axis=0)
        return self.graph.op("Reshape", rows, self._shapes[width])

    def _rotate(self, x: str, heads: int, attention: Any) -> str:
        """Rotary embedding (arXiv 2104.09864) of (B, S / B, heads * D)."""
        cos, sin = self._angles_of(attention)
        attributes: dict[str, Any] = {}
        if 2 * self._frequencies != self.head_size:
            attributes = {"rotary_embedding_dim": 2 * self._frequencies}
        return self.graph.op(
            "RotaryEmbedding", x, self._rows, cos, sin, domain=MS, interleaved=0, num_heads=heads, **attributes
        )

    def _angles_of(self, attention: Any) -> tuple[str, str]:
        """Cosine and sine (S, D / 2) of the run's positions, once for each kind of layer."""
        rotary: Any = self.base.decoder.rotary_emb
        kind = str(getattr(attention, "layer_type", ""))
        kind = kind if hasattr(rotary, f"{kind}_inv_freq") else ""
        frequencies = getattr(rotary, f"{kind}_inv_freq" if kind else "inv_freq").float()
        self._frequencies = len(frequencies)
        if kind not in self._angles:
            graph = self.graph
            scaling = getattr(rotary, f"{kind}_attention_scaling" if kind else "attention_scaling")
            column = graph.op("Unsqueeze", graph.op("Cast", "positions", to=TensorProto.FLOAT), graph.constant([1]))
            turns = graph.op("Mul", column, graph.weight(f"{kind}inv_freq", frequencies[None].clone()))
            pair = [graph.op(wave, turns) for wave in ("Cos", "Sin")]
            if scaling != 1.0:
                pair = [graph.op("Mul", wave, graph.constant(scaling, np.float32)) for wave in pair]
            self._angles[kind] = pair[0], pair[1]
        return self._angles[kind]

    def _mlp(self, x: str, mlp: Any) -> str:
        graph = self.graph
        if hasattr(mlp, "gate_up_proj"):
            gate, up = self._split(self._linear(x, mlp.gate_up_proj), [self.config.intermediate_size] * 2)
        else:
            gate = self._linear(x, mlp.gate_proj)
            up = self._linear(x, mlp.up_proj)
        operator, attributes = _ACTIVATIONS[_activation(self.config)]
        gate = graph.op(operator, gate, domain=MS, **attributes)
        return self._linear(graph.op("Mul", gate, up), mlp.down_proj)

    def _split(self, rows: str, widths: list[int]) -> list[str]:
        parts = [f"{rows}.{index}" for index in range(len(widths))]
        self.graph.ops("Split", [rows, self.graph.constant(widths)], parts, axis=1)
        return parts

    def _linear(self, x: str, module: nn.Module) -> str:
        """(S, N) = W x + b + B A x of (S, K)."""
        graph = self.graph
        name = self.names[id(module)]
        layer = self.layers[name]
        out = write_product(graph, x, name, nf4.matrix_of(layer, self.precision, name, wide=self.wide), layer.bias)
        a, b = lora_inputs(name)
        rank = f"rank.{name}"
        graph.input(a, [layer.in_features, rank])
        graph.input(b, [rank, layer.out_features])
        return graph.op("Gemm", graph.op("MatMul", x, a), b, out)

    def _norm(self, x: str, module: nn.Module) -> str:
        """RMS norm over the last dimension."""
        weight, eps = _norm_weight(module)
        held = self.graph.weight(f"{self.names[id(module)]}.weight", weight)
        return self.graph.op("SimplifiedLayerNormalization", x, held, axis=-1, epsilon=eps)


def write_product(
    graph: Graph, x: str, name: str, matrix: nf4.Matrix, bias: Tensor | None, *, shared: bool = False
) -> str:
    """(S, N) = W x + b with W (N, K) held as `matrix`; `shared`: which lies in the data already, or will be asked for
    again.
    """
    held = None if bias is None else graph.weight(f"{name}.bias", bias.float())
    if isinstance(matrix, nf4.Full):
        weight = graph.weight(f"{name}.weight", matrix.weight, shared=shared)
        return graph.op("Gemm", x, weight, *([held] if held else []), transB=1)
    if isinstance(matrix, nf4.Packed):
        operator: str = "MatMulBnb4"
        held_as: dict[str, Any] = {"block_size": matrix.block, "quant_type": 1}
    else:
        operator = "MatMulNBits"
        bits = 4 if isinstance(matrix, nf4.Int4) else 8
        held_as = {"bits": bits, "block_size": matrix.block, "accuracy_level": 4}
    codes = graph.weight(f"{name}.codes", matrix.codes, shared=shared)
    scales = graph.weight(f"{name}.scales", matrix.scales, shared=shared)
    more = [graph.weight(f"{name}.zeros", matrix.zeros)] if isinstance(matrix, nf4.Int4) else []
    out = graph.op(operator, x, codes, scales, *more, domain=MS, N=matrix.rows, K=matrix.columns, **held_as)
    return out if held is None else graph.op("Add", out, held)


def head(base: Base, data: DataFile, matrix: nf4.Plain) -> Graph:
    """Logits of hidden states, softcap(scale * (W x + b)), and what their nats are made of.

    `matrix`: W; where it lies in the data already, whole, its parts lie in it.

    Part by part of the vocabulary, each with results of its own and a logit read by one operator, which ends its life:
    so scoring never holds whole rows of logits, and a runtime which lays weights out again when it loads them holds one
    part twice, not all. (ONNX Runtime computes what is not asked for too, and frees nothing that has a reader left.)
    """
    graph = Graph(data)
    rows = graph.input("hidden", ["S", matrix.columns])
    labels = graph.input("labels", ["S"], np.int64)
    scoring = graph.input("scoring", [], np.bool_)
    for index, (name, start, end) in enumerate(head_parts(matrix.rows)):
        part = matrix.part(start, end)
        logits = _head_logits(graph, base, rows, name, start, part)
        outputs = part_outputs(index)
        graph.either(
            scoring, outputs,
            lambda logits=logits, start=start, n=part.rows: [  # type: ignore[misc]
                _normalisers(graph, logits, n), _own(graph, logits, labels, start, n)
            ],
            lambda logits=logits: [graph.op("Identity", logits), graph.op("Cast", labels, to=TensorProto.FLOAT)],  # type: ignore[misc]
        )  # fmt: skip
        for name, shape in zip(outputs, (["S", f"of.{index}"], ["S"]), strict=True):
            graph.output(name, name, shape)
    return graph


def _head_logits(graph: Graph, base: Base, rows: str, name: str, start: int, part: nf4.Plain) -> str:
    """(S, n) logits of a part of the vocabulary."""
    ours = base.head
    bias = None if ours.bias is None else ours.bias[start : start + part.rows]
    logits = write_product(graph, rows, name, part, bias, shared=True)
    if ours.scale != 1.0:
        logits = graph.op("Mul", logits, graph.constant(ours.scale, np.float32))
    if ours.softcap is not None:
        cap = graph.constant(ours.softcap, np.float32)
        logits = graph.op("Mul", graph.op("Tanh", graph.op("Div", logits, cap)), cap)
    return logits


def _normalisers(graph: Graph, logits: str, rows: int) -> str:
    """(S, blocks) logsumexp of each block of a part.

    A sum over a whole vocabulary loses digits in float32, so the normaliser is made of blocks'. A block's softmax gives
    its own: the largest entry is 1 / sum(exp(logits - max)).
    """
    width = max(w for w in range(1, NORMALISER_BLOCK + 1) if rows % w == 0)
    blocks = graph.op("Reshape", logits, graph.constant([-1, rows // width, width]))
    last = graph.constant([2])
    largest = graph.op("ReduceMax", blocks, last, keepdims=0)
    likeliest = graph.op("ReduceMax", graph.op("Softmax", blocks, axis=2), last, keepdims=0)
    return graph.op("Sub", largest, graph.op("Log", likeliest))


def _own(graph: Graph, logits: str, labels: str, start: int, rows: int) -> str:
    """(S,) the label's logit where it lies in this part, else 0."""
    zero = graph.constant(0)
    end = graph.constant(rows)
    one = graph.constant([1])
    at = graph.op("Sub", labels, graph.constant(start))
    here = graph.op("And", graph.op("GreaterOrEqual", at, zero), graph.op("Less", at, end))
    place = graph.op("Unsqueeze", graph.op("Where", here, at, zero), one)
    found = graph.op("Squeeze", graph.op("GatherElements", logits, place, axis=1), one)
    return graph.op("Where", here, found, graph.constant(0, np.float32))


def _linears(base: Base) -> Iterator[tuple[str, nn.Linear]]:
    """Every linear layer below the head under the name that it has without adapters."""
    for name, layer in base.linears():
        yield name.removesuffix(".base_layer"), layer


def _activation(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _window(attention: Any, config: Any) -> int | None:
    """Tokens that a layer's queries see, themselves included; None for all."""
    everywhere = config.sliding_window if config.model_type in ("mistral", "phi3") else None
    window = getattr(attention, "sliding_window", everywhere)
    return None if window is None else int(window)


def _norm_weight(module: Any) -> tuple[Tensor, float]:
    """What an RMS norm multiplies by, and its epsilon. Some models multiply by 1 + weight: tried, not guessed.

    Raises:
        ExportError: it does something else.
    """
    own = copy.deepcopy(module).float()
    eps = float(getattr(own, "variance_epsilon", getattr(own, "eps", 0.0)))
    held = own.weight.detach()
    probe = torch.linspace(-1, 2, len(held), device=held.device)
    for weight in (held, 1.0 + held):
        if torch.allclose(
            F.rms_norm(probe, probe.shape, weight, eps), type(own).forward(own, probe), rtol=1e-5, atol=1e-6
        ):
            return weight, eps
    raise ExportError(f"a {type(module).__name__} of an unknown kind", "an RMS norm", "use the torch forward path")
