"""Tokens that no text holds: control, special, unused and padding ones, which are never written.

Owns: which token ids those are, for a base. Does not know: how a token is chosen (`picking.Picker`).
Units: token ids.

Sources, together: what the tokenizer marks as special, what a GGUF file marked as control or unused (the 4-bit folder's
manifest keeps it), rows of the head that no word belongs to, and words whose form leaves no doubt (`<unused12>`).
"""

from __future__ import annotations

import re
import weakref
from typing import Any

import torch
from torch import Tensor

from ..tokenstream import asked
from .base import Base

# Bytes (<0x0A>) and markup (<b>, </table>) are text.
_FORM = re.compile(
    r"<\|[^|<>\s]{1,80}\|>|<｜[^｜<>\s]{1,80}｜>|[<\[]unused_?\d+[>\]]|<(?:extra_id|reserved(?:_token|_special_token)?)_?\d+>"
    r"|<(?:start|end)_of_\w{1,40}>|<(?:pad|unk|mask|bos|eos|image_soft_token|audio_soft_token)>|\[(?:PAD|UNK|CLS|SEP|MASK|multimodal)\]"
)
_FOUND: weakref.WeakKeyDictionary[Any, Tensor] = weakref.WeakKeyDictionary()


def barred(base: Base) -> Tensor:
    """(n,) ids that are never written, ascending, without those that end a text; looked for once for each base."""
    found = _FOUND.get(base.model)
    if found is None:
        found = _FOUND[base.model] = torch.tensor(sorted(_ids(base)), dtype=torch.int64)
    return found


def _ids(base: Base) -> set[int]:
    tokenizer = base.tokenizer
    size = int(base.config.vocab_size)
    special = set(asked(lambda: tokenizer.all_special_ids))
    special |= {index for index, token in asked(lambda: tokenizer.added_tokens_decoder).items() if token.special}
    special |= {index for index in base.manifest().get("control_tokens", ()) if isinstance(index, int)}
    known = min(size, asked(lambda: len(tokenizer)))  # counted anew at each call
    words = enumerate(asked(lambda: tokenizer.convert_ids_to_tokens(list(range(known)))))
    formed = {index for index, word in words if word is None or (word[:1] in "<[" and _FORM.fullmatch(word))}
    formed |= set(range(known, size))
    found = {index for index in special | formed if isinstance(index, int) and 0 <= index < size} - base.eos_ids
    return found if len(found) < size else set()
