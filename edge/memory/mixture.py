"""What a mixture of experts adds to a model's dimensions, from its config alone.

Owns: the names that families give these numbers, which blocks have experts, whether their form can be held in 4 bits;
whether an adapter can lie on them.
Does not know: torch, attention, how experts are packed (`weights/packed.py`).
Units: numbers of experts, features and weights.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SettingsError
from ..machine.allocator import KERNELS
from ..settings import Settings
from .families import largest

EXPERTS = "experts"  # what `adapter.modules` calls them; only where it does, they are adapted
_KERNEL = 470_000  # bytes of the heap that oneDNN takes for a kernel: 0.31 to 0.47 MB
_MAX_EXPERTS = 100_000  # of a block: far above any model's


@dataclass(frozen=True)
class Mixture:
    """The experts of a model.

    Attributes:
        experts: of one block.
        size: features between an expert's two matrices.
        routed: experts that a token is sent to.
        shared: features of the layers that every token goes through beside them; 0 where there are none.
        blocks: how many blocks have experts; the others have one dense MLP.
        held: whether they can be held in 4 bits.
        repeated: each token is there once for every expert, as in Llama 4, zeros where it is not sent.
        clamped: gate and up are clamped before they meet, as gpt_oss's are: twice as much is kept for the gradient.
    """

    experts: int
    size: int
    routed: int
    shared: int
    blocks: int
    held: bool
    repeated: bool = False
    clamped: bool = False

    def matrix(self, hidden: int) -> int:
        """Weights of the larger of an expert's two matrices: gate and up, side by side."""
        return 2 * hidden * self.size

    def matrices(self, hidden: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(inputs, outputs) of an expert's two matrices."""
        return (hidden, 2 * self.size), (self.size, hidden)

    def weights(self, hidden: int) -> int:
        """Weights of all experts of all blocks."""
        return self.blocks * self.experts * 3 * hidden * self.size

    def active(self, hidden: int) -> int:
        """Weights of the experts that one token meets."""
        return self.blocks * min(self.routed, self.experts) * 3 * hidden * self.size

    def width(self, hidden: int) -> int:
        """Features of a dense MLP whose activations take as much, a copy of a token and a result
        for each expert too."""
        return self.routed * (self.size * (2 if self.clamped else 1) + hidden // 2) + self.shared

    def spread(self, hidden: int) -> int:
        """Features of all the copies of a token, where each expert has one."""
        return self.experts * hidden if self.repeated else 0

    @property
    def units(self) -> int:
        """Bytes that oneDNN takes for bfloat16 matmuls beyond what it keeps: kernels that are dropped within a block.

        Each expert is sent another number of tokens, and a kernel is of one number: a block's forward and backward pass
        make four for each expert, and drop as many older ones, whose heap goes back before the next block only.
        """
        return _KERNEL * min(KERNELS, 4 * self.experts)


def from_config(config: Mapping[str, Any], layers: int) -> Mixture | None:
    """The experts that a transformers config describes; None where it describes none.

    Raises:
        TypeError, ValueError: a value is no number, or one that no model has.
    """
    experts = _first(config, "num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
    if not experts:
        return None
    size = _first(config, "moe_intermediate_size", "intermediate_size")
    routed = _first(config, "num_experts_per_tok", "moe_topk", "moe_k") or 1
    shared = _first(config, "shared_expert_intermediate_size", "shared_intermediate_size")
    shared = shared or _first(config, "n_shared_experts", "moe_num_shared_experts", "num_shared_experts") * size
    kind = str(config.get("model_type", ""))
    if kind.startswith("llama4"):  # beside its experts each token meets one more of their size
        shared = size
    if kind.startswith("hunyuan"):
        shared = _first(config, "num_shared_expert") * _first(config, "intermediate_size")
    if min(experts, size, routed) < 1 or shared < 0 or max(experts, routed) > _MAX_EXPERTS:
        raise ValueError(f"{experts} experts of {size} features, {routed} for a token")
    step = max(1, _first(config, "decoder_sparse_step", "interleave_moe_layer_step"))
    dense = {int(layer) for layer in config.get("mlp_only_layers") or ()}
    dense |= set(
        range(min(layers, _first(config, "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")))
    )
    blocks = sum(1 for layer in range(layers) if layer not in dense and (layer + 1) % step == 0)
    return Mixture(
        experts, size, routed, shared, blocks,
        held=can_be_held(kind), repeated=kind.startswith("llama4"), clamped=kind == "gpt_oss",
    ) if blocks else None  # fmt: skip


def require(settings: Settings, mixture: Mixture | None, family: str) -> None:
    """Refuses an adapter on experts where none can lie on any.

    Raises:
        SettingsError: `adapter.modules` names them, and the model has none, or such that are not known; or a graph
            shall write, which carries A and B of linear layers alone.
    """
    if EXPERTS not in settings.adapter.modules or settings.learn.mode == "none":
        return
    named = f"adapter.modules names '{EXPERTS}'"
    without = f"leave '{EXPERTS}' out of adapter.modules"
    if mixture is None:
        raise SettingsError(f"{named}, and a {family} model has none", "a mixture of experts", without)
    if not mixture.held:
        raise SettingsError(f"{named}, and those of {family} are laid out in an unknown way", "another model", without)
    if settings.graph_precision:
        raise SettingsError(
            f"{named}, and forward is '{settings.forward}': a graph carries no adapter on experts", "forward=torch",
            f"use --forward torch, or {without}",
        )  # fmt: skip


def can_be_held(kind: str) -> bool:
    """Whether transformers' own code marks the experts of this family as laid out in the common way, or is Llama 4's.

    Read as text: transformers is not imported, so that a plan costs no start-up time.
    """
    spec = importlib.util.find_spec("transformers")
    name = kind.removesuffix("_text")
    if spec is None or spec.origin is None or not re.fullmatch(r"\w+", name, re.ASCII):
        return False
    path = Path(spec.origin).parent / "models" / name / f"modeling_{name}.py"
    try:
        code = path.read_text("utf-8")
        return "@use_experts_implementation" in code or "class Llama4TextExperts" in code
    except OSError:
        return False


def _first(config: Mapping[str, Any], *names: str) -> int:
    """The first of these numbers that the config names, the largest where each block has its own; 0 where it names
    none."""
    return next((largest(config[name]) for name in names if config.get(name)), 0)
