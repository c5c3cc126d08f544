"""How many FLOPs a chunk takes, phase by phase, counted on paper.

Owns: the counting. `tests/parity/test_flops.py` holds it against torch's own counter.
Does not know: torch, time. It needs a model's `Shape` and settings.
Units: FLOPs; a multiply and an add are two. Elementwise work is left out, as torch's counter leaves it out.
"""

from __future__ import annotations

from ..settings import Settings
from .lasting import met_parameters
from .shape import Shape
from .sizes import ATTENTION_BLOCK


def per_chunk(settings: Settings, shape: Shape, *, plain: bool = False) -> dict[str, int]:
    """FLOPs of a chunk whose window is full: `score`, `forward`, `backward`.

    Args:
        plain: counts the paper's loop: logits at every position of the window, and a forward of its own to score.
    """
    window = settings.window
    learn = settings.learn
    labels = window.size if plain else window.chunk
    if learn.mode == "none":
        return {"score": forward(settings, shape, window.size, labels, adapter=False), "forward": 0, "backward": 0}
    tokens = window.size
    before = 0
    if learn.prefix != "full" and not plain:
        tokens = window.chunk
        before = window.context - 1
    labels = tokens if plain else window.chunk
    share = 1.0 if plain else depth(settings, shape)
    once = forward(settings, shape, tokens, labels, before)
    back = backward(settings, shape, tokens, labels, before, share)
    if settings.compute.checkpointing == "on" and not plain:
        back += int(share * forward(settings, shape, tokens, 0, before))
    score = (
        0
        if settings.fuses and not plain
        else forward(settings, shape, window.size, window.size if plain else window.chunk)
    )
    readings = 0 if plain or learn.prefix == "full" else int(learn.prefix == "frozen")
    passes = learn.epochs
    return {
        "score": score,
        "forward": passes * once + readings * forward(settings, shape, before, 0),
        "backward": passes * back,
    }


def forward(
    settings: Settings, shape: Shape, tokens: int, labels: int, before: int = 0, *, adapter: bool = True
) -> int:
    """One forward over `tokens` tokens after `before` others, with logits at `labels` of them."""
    linear = shape.active_parameters + (met_parameters(settings, shape) if adapter else 0)
    return 2 * (tokens * linear + labels * shape.vocab * shape.hidden) + attention(shape, tokens, before)


def backward(settings: Settings, shape: Shape, tokens: int, labels: int, before: int = 0, share: float = 1.0) -> int:
    """One backward through a share of the blocks: gradients of their inputs, and of the adapter's weights there."""
    learning = min(settings.adapter.top or shape.layers, shape.layers) / shape.layers
    linear = share * shape.active_parameters + 2 * min(1.0, share / learning) * met_parameters(settings, shape)
    products = 2 * (tokens * linear + labels * shape.vocab * shape.hidden)
    return int(products + 2.5 * share * attention(shape, tokens, before))


def depth(settings: Settings, shape: Shape) -> float:
    """Share of the blocks that the gradient passes through, as the mean over chunks (`learn.deep_every`)."""
    blocks = min(settings.adapter.top or shape.layers, shape.layers)
    every = settings.learn.deep_every
    upper = min(blocks, shape.layers - shape.layers // 2)
    return (blocks + (every - 1) * upper) / every / shape.layers


def attention(shape: Shape, tokens: int, before: int = 0) -> int:
    """Scores and weighted sums of all layers, as they are computed here.

    A causal layer without a prefix counts the whole square, as torch's counter does of its kernels; sliding layers,
    and layers behind a prefix, run over blocks of queries and count the keys that a block sees.
    """
    total = 0
    for window, layers in ((shape.window, shape.sliding), (None, shape.layers - shape.sliding)):
        keys = before + tokens if window is None else min(before, window) + tokens
        if not before and not shape.softcapped and (window is None or window >= tokens):
            pairs = tokens * tokens
        else:
            pairs = sum(
                (min(start + ATTENTION_BLOCK, tokens) - start) * _span(start, tokens, keys, window)
                for start in range(0, tokens, ATTENTION_BLOCK)
            )
        total += layers * pairs
    return 4 * shape.queries * total


def _span(start: int, tokens: int, keys: int, window: int | None) -> int:
    """Keys that a block of queries, the first of them `start` of `tokens`, is multiplied with."""
    last = keys - tokens + min(start + ATTENTION_BLOCK, tokens)
    first = 0 if window is None else max(0, keys - tokens + start - window + 1)
    return last - first
