"""Tokens that are never written: what no text holds (control, special, unused, padding), what a script is written with.

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
from ..values import scripts
from ..weights import plainwords
from .base import Base

BROKEN = "\ufffd"  # what a part of a character is decoded to
SIGNS = 0xE2  # the first byte of quotation marks and dashes, and of few letters
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Bytes (<0x0A>) and markup (<b>, </table>) are text.
_FORM = re.compile(
    r"<\|[^|<>\s]{1,80}\|>|<｜[^｜<>\s]{1,80}｜>|[<\[]unused_?\d+[>\]]|<(?:extra_id|reserved(?:_token|_special_token)?)_?\d+>"
    r"|<(?:start|end)_of_\w{1,40}>|<(?:pad|unk|mask|bos|eos|image_soft_token|audio_soft_token)>|\[(?:PAD|UNK|CLS|SEP|MASK|multimodal)\]"
)
_FOUND: weakref.WeakKeyDictionary[Any, Tensor] = weakref.WeakKeyDictionary()
_WRITTEN: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], Tensor]] = weakref.WeakKeyDictionary()


def barred(base: Base) -> Tensor:
    """(n,) ids that are never written, ascending, without those that end a text; looked for once for each base."""
    found = _FOUND.get(base.model)
    if found is None:
        found = _FOUND[base.model] = torch.tensor(sorted(_ids(base)), dtype=torch.int64)
    return found


def written_in(base: Base, names: tuple[str, ...]) -> Tensor:
    """(n,) ids that hold a character of these scripts, or begin one with its first bytes; ascending, without those that
    end a text; looked for once for each base (half a second for 262K words).
    """
    known = _WRITTEN.setdefault(base.model, {})
    if names not in known:
        size = min(int(base.config.vocab_size), asked(lambda: len(base.tokenizer)))
        each = [[index] for index in range(size)]
        texts = asked(lambda: base.tokenizer.backend_tokenizer.decode_batch(each, skip_special_tokens=False))
        holds = scripts.characters(names)
        found = {index for index, text in enumerate(texts) if holds.search(text)}
        parts = [index for index, text in enumerate(texts) if BROKEN in text]
        codes = (*range(0x80, 0xD800), *range(0xE000, 0x10000))  # beyond them: signs, rare letters
        firsts = {chr(code).encode()[0] for code in codes if holds.match(chr(code))} - {SIGNS}
        words = asked(lambda: base.tokenizer.convert_ids_to_tokens(parts))
        found |= {index for index, word in zip(parts, words, strict=True) if _begun(word) in firsts}
        known[names] = torch.tensor(sorted(found - base.eos_ids), dtype=torch.int64)
    return known[names]


def _begun(word: str) -> int | None:
    """The first byte of the character that a token ends in the middle of; None where it ends behind one."""
    letters = plainwords.alphabet()
    if single := _BYTE.fullmatch(word):
        data = bytes([int(single[1], 16)])
    elif all(letter in letters for letter in word):
        data = bytes(letters.index(letter) for letter in word)
    else:
        return None
    rest = data.rstrip(bytes(range(0x80, 0xC0)))
    following = len(data) - len(rest)
    first = rest[-1] if rest else 0
    return first if first >= 0xC0 and following < (first >= 0xE0) + (first >= 0xF0) + 1 else None


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
