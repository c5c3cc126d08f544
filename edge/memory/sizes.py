"""How much the kernels take at a time: what computes and what predicts its memory must agree on it.

Owns: block sizes. Does not know: torch, settings, models.
Units: tokens, vocabulary entries, bytes.
"""

from __future__ import annotations

HEAD_BLOCK = 10 << 20  # bytes of the head, and of the logits it makes, at a time: they stay in the CPU's cache
LORA_ROWS = 1024  # tokens of a LoRA product in float32, where activations are narrower
ROOM_STEP = 512  # tokens by which the keys and values of a text that is written find more room
ATTENTION_BLOCK = 256  # queries of block attention
PROPOSED = 7  # tokens that are looked up for a text at most, which a forward verifies with the one before them
LOGITS = 16 << 20  # numbers of whole rows of logits at a time, where a repair is distilled


def slice_rows(vocab: int) -> int:
    """Positions whose whole rows of logits are held at a time."""
    return max(16, LOGITS // vocab)


def room_for(tokens: int) -> int:
    """Tokens that a text of `tokens` has room for."""
    return -(-tokens // ROOM_STEP) * ROOM_STEP


def head_rows(hidden: int, positions: int) -> int:
    """Vocabulary entries whose float32 weights and logits at `positions` fill one block of the head."""
    return max(1, HEAD_BLOCK // (4 * (hidden + positions)))
