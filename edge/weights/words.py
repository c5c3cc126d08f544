"""The tokenizer of a GGUF file, built from what the file says and tried before it is used.

Owns: building it with `tokenizers`, trying it against the plain one, how it is written, what a 4-bit folder remembers
of it.
Does not know: the file's header (`vocabulary.py`), the plain tokenizer's rules (`plainwords.py`), models.
Units: token ids.

No converter of transformers takes part: those differ from version to version, and a wrong one is not seen. Everything
that decides about ids is in the library's own form; transformers only carries it.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ..errors import ModelError, describe
from ..tokenstream import asked, has_failed, ids_of
from . import plainwords, vocabulary
from .vocabulary import CONTROL, SPACE, UNKNOWN, Vocabulary


def load(path: Path) -> Any:
    """The tokenizer of a GGUF file, found to give the ids that the file's rules give (a few seconds for 262K words).

    Raises:
        ModelError: the file holds none, a damaged one, one whose rules are not known; or what was built differs from
            the plain tokenizer on a text that it was tried on.
    """
    words = vocabulary.read(path)
    try:
        made = carried(words)
        require_agreement(made, words, path.name)
    except BaseException as error:
        if not has_failed(error):
            raise
        raise ModelError(
            f"{path} holds no usable tokenizer ({describe(error)})", "a whole GGUF language model", "download it again"
        ) from error
    made.name_or_path = path.name
    return made


def carried(words: Vocabulary) -> Any:
    """The built tokenizer in transformers' form, with its special tokens and chat template."""
    from transformers import PreTrainedTokenizerFast

    ids = {"bos_token": words.bos, "eos_token": words.eos, "unk_token": words.unk, "pad_token": words.pad}
    named = {name: words.tokens[index] for name, index in ids.items() if index is not None}
    made = PreTrainedTokenizerFast(tokenizer_object=build(words), clean_up_tokenization_spaces=False, **named)
    if words.template:
        made.chat_template = words.template
    return made


def build(words: Vocabulary) -> Any:
    """A `tokenizers.Tokenizer` with the file's rules.

    Raises:
        ValueError: the rules cannot be carried out with it.
    """
    from tokenizers import AddedToken, Tokenizer, models, processors

    index = {token: i for i, token in enumerate(words.tokens)}
    if words.kind == "llama":
        model = models.BPE(
            vocab=index,
            merges=merges_by_score(words, index),
            unk_token=None if words.unk is None else words.tokens[words.unk],
            fuse_unk=True,
            byte_fallback=True,
        )
    else:
        model = models.BPE(vocab=index, merges=words.merges, ignore_merges=words.whole_words)
    made = Tokenizer(model)
    _set_rules(made, words)
    made.add_tokens(
        [
            AddedToken(
                words.tokens[i],
                normalized=False,
                special=words.kinds[i] in (CONTROL, UNKNOWN),
                rstrip=words.trims and words.kinds[i] == CONTROL,
            )
            for i in words.set_apart()
        ]
    )
    first = [words.tokens[words.bos]] if words.add_bos and words.bos is not None else []
    last = [words.tokens[words.eos]] if words.add_eos and words.eos is not None else []
    if first or last:
        made.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last], special_tokens=[(token, index[token]) for token in {*first, *last}]
        )
    return made


def _set_rules(made: Any, words: Vocabulary) -> None:
    """What happens to a text before its parts merge, and to tokens when they are written."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    if words.kind == "gpt2":
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in words.patterns]
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        made.decoder = decoders.ByteLevel()
        return
    prefix = [normalizers.Prepend(SPACE)] if words.prefix else []
    made.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if words.prefix else []
    made.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])


def merges_by_score(words: Vocabulary, index: dict[str, int]) -> list[tuple[str, str]]:
    """Every pair that makes a token, the one with the highest score first: merging by score, said as ranks.

    Raises:
        ValueError: a character of some token is no token itself; ranks cannot say that.
    """
    known = {token for token, i in index.items() if words.mergeable(i)}
    found: list[tuple[float, int, str, str]] = []
    for i, token in enumerate(words.tokens):
        if len(token) < 2 or not words.mergeable(i):
            continue
        score = -words.scores[i]
        for at in range(1, len(token)):
            left = token[:at]
            right = token[at:]
            if left in known and right in known:
                found.append((score, i, left, right))
            elif any(len(part) == 1 and part not in index for part in (left, right)):
                raise ValueError(f"token {token!r} of a character that is no token")
    found.sort(key=lambda entry: entry[:2])
    return [(left, right) for _, _, left, right in found]


def require_agreement(tokenizer: Any, words: Vocabulary, name: str) -> None:
    """Refuses a tokenizer that gives other ids than the plain one.

    Raises:
        ModelError: with the text and what both make of it.
    """
    for text, right in zip(plainwords.TEXTS, plainwords.expected(words), strict=True):
        ids = ids_of(tokenizer, text, special=True)
        if ids != right:
            at = next(
                (i for i, pair in enumerate(zip(ids, right, strict=False)) if pair[0] != pair[1]),
                min(len(ids), len(right)),
            )
            first = max(0, at - 2)
            raise ModelError(
                f"{name}: the tokenizer makes {len(ids)} tokens of {text[:40]!r}, from number {first + 1} on "
                f"{_shown(tokenizer, ids[first:])}",
                f"{len(right)}, from there on {_shown(tokenizer, right[first:])}",
                "use the model's own folder with tokenizer.json instead, or another version of transformers",
            )  # fmt: skip


def _shown(tokenizer: Any, ids: list[int]) -> str:
    tokens = asked(lambda: tokenizer.convert_ids_to_tokens(ids[:5]))
    return " ".join(f"{i}={token!r}" for i, token in zip(ids[:5], tokens, strict=True))


def save(tokenizer: Any, folder: Path) -> None:
    """Writes a fast tokenizer's files. tokenizer.json is written without spaces and with its merges as strings, which
    the library reads in two thirds of the time and half of the memory.
    """
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    if path.is_file():
        whole = asked(lambda: tokenizer.backend_tokenizer.to_str(pretty=False))
        path.write_text(compact(whole), "utf-8")


def compact(text: str) -> str:
    """A tokenizer's JSON as the library writes it, with each merge `["a","b"]` as `"a b"`. The same where one cannot be
    written so: it holds a space, or begins with what the library takes for a line about the file's version.
    """
    begin = text.rfind(_MERGES) + len(_MERGES)
    if begin < len(_MERGES) or not text.endswith("]}}"):
        return text
    merges = _PAIR.sub(r'"\1 \2"', text[begin:-3])
    written = set(_STRING.sub("", merges)) <= {","} and '"#version' not in merges
    return f"{text[:begin]}{merges}]}}}}" if written else text


_MERGES = '"merges":['
_PAIR = re.compile(r'\["((?:[^"\\ ]|\\.)+)","((?:[^"\\ ]|\\.)+)"\]')
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def added_tokens(folder: Path) -> dict[str, Any]:
    """The tokens beside the vocabulary that the tokenizer's configuration names, from the head of tokenizer.json: given
    these, transformers reads the file once, in the library, where the others are found as well. Empty where the file is
    laid out otherwise, or where other files name those tokens.
    """
    others = [folder / name for name in ("special_tokens_map.json", "added_tokens.json")]
    head = b""
    try:
        config = _json(folder / "tokenizer_config.json")
        if any(path.exists() for path in others) or "added_tokens_decoder" in config:
            return {}
        with (folder / "tokenizer.json").open("rb") as file:
            while (end := head.find(b'"normalizer"')) < 0 and (part := file.read(1 << 20)):
                head += part
        found = json.loads(head[:end].rstrip().removesuffix(b",") + b"}")["added_tokens"]
        named = {name for name in config.values() if isinstance(name, str)}
        return {"added_tokens_decoder": {token.pop("id"): token for token in found if token["content"] in named}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def mark(tokenizer: Any) -> str:
    """sha256 of the ids that a tokenizer gives for all texts that one is tried on."""
    ids = [ids_of(tokenizer, text, special=True) for text in plainwords.TEXTS]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def require_mark(tokenizer: Any, wanted: str | None, folder: Path) -> None:
    """Refuses a tokenizer that gives other ids here than when the folder was made; `wanted` None is not known.

    Raises:
        ModelError: it does.
    """
    if wanted is not None and mark(tokenizer) != wanted:
        import transformers

        raise ModelError(
            f"{folder}'s tokenizer gives other token ids with transformers {transformers.__version__}",
            "those of when the folder was made",
            "use another version of transformers, or make the folder again",
        )
