"""Tokens that are never written: what no text holds (control, special, unused, padding), what a script is written with.

Owns: which token ids those are, for a base. Does not know: how a token is chosen (`picking.Picker`).
Units: token ids.

Sources, together: what the tokenizer marks as special, what a GGUF file marked as control or unused (the 4-bit folder's
manifest keeps it), rows of the head that no word belongs to, and words whose form leaves no doubt (`<unused12>`).
"""

from __future__ import annotations

import re
import weakref
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from ..tokenstream import asked
from ..values import scripts
from ..weights import plainwords
from .base import Base

BROKEN = "\ufffd"  # what a part of a character is decoded to
LAST_LETTER = 0x32400  # behind it there are no letters
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
# Bytes (<0x0A>) and markup (<b>, </table>) are text.
_FORM = re.compile(
    r"<\|[^|<>\s]{1,80}\|>|<｜[^｜<>\s]{1,80}｜>|[<\[]unused_?\d+[>\]]|<(?:extra_id|reserved(?:_token|_special_token)?)_?\d+>"
    r"|<(?:start|end)_of_\w{1,40}>|<(?:pad|unk|mask|bos|eos|image_soft_token|audio_soft_token)>|\[(?:PAD|UNK|CLS|SEP|MASK|multimodal)\]"
)
_FOUND: weakref.WeakKeyDictionary[Any, Tensor] = weakref.WeakKeyDictionary()
_WRITTEN: weakref.WeakKeyDictionary[Any, dict[tuple[tuple[str, ...], ...], Tensor]] = weakref.WeakKeyDictionary()


def barred(base: Base) -> Tensor:
    """(n,) ids that are never written, ascending, without those that end a text; looked for once for each base."""
    found = _FOUND.get(base.model)
    if found is None:
        found = _FOUND[base.model] = torch.tensor(sorted(_ids(base)), dtype=torch.int64)
    return found


def written_in(base: Base, names: tuple[str, ...], kept: tuple[str, ...]) -> Tensor:
    """(n,) ids that hold a character of these scripts, or can only be the first bytes of one: not where those may as
    well begin a character of the scripts `kept` or a Latin one, nor where most that they begin are signs. Ascending,
    without those that end a text; looked for once for each base (a second or two for 262K words).
    """
    known = _WRITTEN.setdefault(base.model, {})
    if (names, kept) not in known:
        tokenizer = base.tokenizer
        size = min(int(base.config.vocab_size), asked(lambda: len(tokenizer)))
        each = [[index] for index in range(size)]
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)  # many times as fast, where there is one
        decode = getattr(backend, "decode_batch", None)
        texts = asked(lambda: (decode or tokenizer.batch_decode)(each, skip_special_tokens=False))
        holds = scripts.characters(names)
        found = {index for index, text in enumerate(texts) if holds.search(text)}
        parts = [index for index, text in enumerate(texts) if BROKEN in text]
        words = asked(lambda: tokenizer.convert_ids_to_tokens(parts))
        firsts = _firsts(names, kept) if parts else frozenset()
        found |= {index for index, word in zip(parts, words, strict=True) if _begun(word) in firsts}
        known[names, kept] = torch.tensor(sorted(found - base.eos_ids), dtype=torch.int64)
    return known[names, kept]


def _firsts(names: tuple[str, ...], kept: tuple[str, ...]) -> frozenset[bytes]:
    """The first bytes of characters that are barred."""
    counts: tuple[Counter[bytes], ...] = (Counter(), Counter(), Counter())
    patterns = [scripts.characters(of) for of in (names, (*kept, "Latin"), ("Common", "Inherited"))]
    for code in (*range(0x80, 0xD800), *range(0xE000, LAST_LETTER)):
        for count, pattern in zip(counts, patterns, strict=True):
            if pattern.match(chr(code)):
                data = chr(code).encode()
                count.update(data[:size] for size in range(1, len(data)))
    barred, needed, signs = counts
    return frozenset(first for first in barred if first not in needed and barred[first] > signs[first])


def _begun(word: str) -> bytes:
    """The bytes of the character that a token ends in the middle of; none where it ends behind one."""
    letters = plainwords.alphabet()
    if single := _BYTE.fullmatch(word):
        data = bytes([int(single[1], 16)])
    elif all(letter in letters for letter in word):
        data = bytes(letters.index(letter) for letter in word)
    else:
        return b""
    rest = data.rstrip(bytes(range(0x80, 0xC0)))
    first = rest[-1] if rest else 0
    begun = data[len(rest) - 1 :]
    return begun if first >= 0xC0 and len(begun) < (first >= 0xE0) + (first >= 0xF0) + 2 else b""


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
