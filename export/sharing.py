"""Weights that torch and the graph hold together, so that a session which learns and decodes holds them once.

Owns: which weights are the same numbers on both sides, and whose memory stays.
Does not know: sessions, the learner, how the graph is made.
Units: bytes.

NF4 codes are bitsandbytes' own bytes on both sides: the graph reads torch's. A tied embedding that torch stores in 16
bits is in float32 in the graph, and widening is exact: torch reads the graph's file, and drops its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edge.model.base import Base

from . import nf4
from .manifest import Manifest
from .rows import Array


def share(base: Base, manifest: Manifest, head: Array | None) -> Mapping[str, Array]:
    """Weights of a graph on the CPU, by name, that lie in memory already.

    `head`: the graph's own in float32, which the base reads from here on where it is the same matrix.
    """
    if base.device.kind != "cpu":
        return {}
    if head is not None and _widens(base, manifest):
        _put(base, torch.from_numpy(head))
    return _codes(base) if manifest.precision == "nf4" else {}


def _codes(base: Base) -> dict[str, Array]:
    return {
        f"{name.removesuffix('.base_layer')}.codes": layer.weight.data.reshape(-1).numpy()
        for name, layer in base.linears()
        if nf4.is_packed(layer)
    }


def _widens(base: Base, manifest: Manifest) -> bool:
    """Whether the graph holds the embedding, which is the head too, in the dtype that torch computes in
    but does not store.
    """
    weight = base.model.get_input_embeddings().weight
    tied = base.head.weight.data_ptr() == weight.data_ptr()
    return tied and manifest.head == manifest.embedding and weight.dtype != base.device.torch_dtype == torch.float32


def _put(base: Base, matrix: torch.Tensor) -> None:
    """Makes the matrix the model's embedding and head."""
    weight = nn.Parameter(matrix, requires_grad=False)
    for module in (base.model.get_input_embeddings(), base.model.get_output_embeddings()):
        module.weight = weight
        vars(module).pop("forward", None)  # what widened rows and logits
    base.forget_head()
