"""What a GGUF file says of its tokenizer, read from its header alone and made whole.

Owns: reading the header's values, which kinds of tokenizer are known, the rules of each pre-tokenizer, what is refused.
Does not know: how a text becomes tokens (`plainwords.py` in plain words, `words.py` through a library), weights.
Units: token ids; scores as they are stored (the larger one merges first).

The rules that a file only names are llama.cpp's, for which the format is made (its `src/llama-vocab.cpp`); the patterns
are those that the models' own tokenizers were published with. What a file does not say, or says in a name that is not
known here, is refused: a tokenizer that is nearly right makes a model worse, and nothing shows it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelError, describe
from ..memory import gguf

UNKNOWN = 2  # kinds of a token; 1 is an ordinary one
CONTROL = 3
USER_DEFINED = 4
UNUSED = 5
BYTE = 6
SPACE = "\u2581"  # what stands for a space in a vocabulary of kind `llama`

_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _ENDS
_QWEN2 = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _ENDS
_QWEN35 = _SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + _ENDS
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?" + _UPPER + "*" + _LOWER + "+{0}|" + r"[^\r\n\p{L}\p{N}]?" + _UPPER + "+" + _LOWER + "*{0}|"
)
_TEKKEN = _CASED.replace("{0}", "") + r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _ENDS
_GPT4O = _CASED.replace("{0}", _SHORT + "?") + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _ENDS
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
    + _ENDS
)
_SIGNS = r"[\p{P}\$\+<=>\^~\|]+"

# name in the file -> patterns, each of which splits what the one before left; the names of one line share them
_PATTERNS: Mapping[str, tuple[str, ...]] = {
    "default": (_SIGNS, _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 dbrx smaug-bpe glm4 chatglm-bpe": (_LLAMA3,),
    "qwen2 deepseek-r1-qwen megrez stablelm2 hunyuan kormo solar-open grok-2": (_QWEN2,),
    "qwen35": (_QWEN35,),
    "gpt-2 phi-2 olmo mpt jais exaone4 trillion mellum gigachat a.x-4.0 granite-docling": (_GPT2,),
    "starcoder refact command-r smollm codeshell exaone minerva-7b": (r"\p{N}", _GPT2),
    "tekken": (_TEKKEN,),
    "gpt-4o llama4 kanana2 minimax-m2": (_GPT4O,),
    "deepseek-v3 hunyuan-dense": (r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", _DEEPSEEK3),
}
PRE_TOKENIZERS = {name: patterns for names, patterns in _PATTERNS.items() for name in names.split()}
_WHOLE_WORDS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as a GGUF file describes it.

    Attributes:
        kind: `llama` (pieces of text that merge by score, bytes for the rest) or `gpt2` (bytes that merge by rank).
        tokens: the text of each token, by id; of kind `gpt2` in the alphabet that stands for bytes.
        kinds: of each token: ordinary (1), `UNKNOWN`, `CONTROL`, `USER_DEFINED`, `UNUSED`, `BYTE`.
        scores: of kind `llama`: the pair that makes the token with the highest score merges first.
        merges: of kind `gpt2`: pairs, the first one merges first.
        patterns: of kind `gpt2`: nothing merges across the borders that they set.
        whole_words: of kind `gpt2`: a piece that is a token is that token, whatever the merges make of it.
        bos, eos, unk, pad: ids, where the file names one.
        add_bos, add_eos: whether a text begins and ends with them.
        prefix: of kind `llama`: whether a text begins with a space that is not in it.
        trims: whether what a special token is followed by loses the spaces at its beginning.
        template: the chat template, where there is one.
    """

    kind: str
    tokens: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[tuple[str, str]]
    patterns: tuple[str, ...]
    whole_words: bool
    bos: int | None
    eos: int | None
    unk: int | None
    pad: int | None
    add_bos: bool
    add_eos: bool
    prefix: bool
    trims: bool
    template: str | None

    def mergeable(self, index: int) -> bool:
        """Whether ordinary text can become this token; all others stand for themselves, or for nothing."""
        return self.kinds[index] not in (UNKNOWN, CONTROL, USER_DEFINED, BYTE)

    def set_apart(self) -> list[int]:
        """The tokens that are found in a text before anything is merged: control, unknown and user-defined ones."""
        apart = (UNKNOWN, CONTROL, USER_DEFINED)
        return [index for index, kind in enumerate(self.kinds) if kind in apart and self.tokens[index]]


def read(path: Path) -> Vocabulary:
    """The vocabulary of a GGUF file.

    Raises:
        ModelError: it holds none, a damaged one, or one whose rules are not known here.
    """
    try:
        with path.open("rb") as file:
            values = gguf.read(file, None).values
        return _from_values(values, path.name)
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error, MemoryError) as error:
        raise ModelError(
            f"{path} holds no usable tokenizer ({describe(error)})", "a whole GGUF language model", "download it again"
        ) from error


def _from_values(values: Mapping[str, Any], name: str) -> Vocabulary:
    said = {key.removeprefix("tokenizer.ggml."): value for key, value in values.items()}
    kind = str(said["model"])
    pre = said.get("pre")
    if kind not in ("llama", "gpt2"):
        raise _not_known(name, f"a tokenizer of kind '{kind[:40]}'", "kind llama or gpt2")
    if kind == "gpt2" and pre not in PRE_TOKENIZERS:
        found = "no pre-tokenizer" if pre is None else f"pre-tokenizer '{str(pre)[:40]}'"
        raise _not_known(name, found, "one of " + ", ".join(PRE_TOKENIZERS))
    tokens = [token.decode("utf-8") for token in said["tokens"]]
    kinds = list(said.get("token_type") or [1] * len(tokens))
    scores = list(said.get("scores") or [])
    if len(kinds) != len(tokens) or (kind == "llama" and len(scores) != len(tokens)):
        raise ValueError(f"{len(tokens)} tokens, {len(kinds)} kinds and {len(scores)} scores")
    if not all(math.isfinite(score) for score in scores):
        raise ValueError("a score that is no number")
    spm = kind == "llama"

    def id_of(key: str, default: int | None = None) -> int | None:
        value = said.get(f"{key}_token_id", default)
        return value if isinstance(value, int) and 0 <= value < len(tokens) else None

    vocabulary = Vocabulary(
        kind=kind,
        tokens=tokens,
        kinds=kinds,
        scores=scores,
        merges=[] if spm else [_pair(merge.decode("utf-8")) for merge in said["merges"]],
        patterns=() if spm else PRE_TOKENIZERS[str(pre)],
        whole_words=not spm and pre in _WHOLE_WORDS,
        bos=id_of("bos", 1 if spm else None),
        eos=id_of("eos", 2 if spm else None),
        unk=id_of("unknown", 0 if spm else None),
        pad=id_of("padding"),
        add_bos=bool(said.get("add_bos_token", spm or pre in _WHOLE_WORDS)),
        add_eos=bool(said.get("add_eos_token", False)),
        prefix=spm and bool(said.get("add_space_prefix", True)),
        trims="phi-3" in str(values.get("general.name", "")).lower(),
        template=values.get("tokenizer.chat_template"),
    )
    _require_complete(vocabulary)
    return vocabulary


def _pair(merge: str) -> tuple[str, str]:
    """A merge as it is written, two parts with a space between; a part may begin with one."""
    at = merge.index(" ", 1)
    return merge[:at], merge[at + 1 :]


def _require_complete(vocabulary: Vocabulary) -> None:
    """Refuses what the rules could not be carried out with.

    Raises:
        ValueError: saying what is missing.
    """
    index = {token: i for i, token in enumerate(vocabulary.tokens)}
    if vocabulary.kind == "gpt2":
        for left, right in vocabulary.merges:
            if left not in index or right not in index or left + right not in index:
                raise ValueError(f"a merge of {left!r} and {right!r}, which are no tokens")
        return
    if len(index) != len(vocabulary.tokens):
        raise ValueError("a token that is there twice")
    if vocabulary.unk is None and not all(f"<0x{byte:02X}>" in index for byte in range(256)):
        raise ValueError("no token for what is in no token")


def _not_known(name: str, found: str, expected: str) -> ModelError:
    return ModelError(f"{name} holds {found}", expected, "use the model's own folder with tokenizer.json instead")
