"""The tokenizer of a GGUF file gives llama.cpp's ids, whatever transformers is installed; and a wrong one is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from edge.errors import ModelError
from edge.store import embedded, sources
from edge.weights import checkpoint, plainwords, quantize, vocabulary, words
from tests import tiny

GOLDEN = json.loads((Path(__file__).parent / "golden_tokens.json").read_text("utf-8"))
TEXTS = GOLDEN["texts"]


def file_of(name: str) -> Path:
    path = embedded.here(embedded.entry(name))
    if path is None:
        pytest.skip(f"{name} is not on this disk")
    assert embedded.entry(name).sha256 == GOLDEN["about"]["models"][name]
    return path


@pytest.mark.model
@pytest.mark.parametrize("name", list(embedded.ENTRIES))
def test_ids_are_those_of_llama_cpp(name: str) -> None:
    """Two hundred texts in more than twelve scripts, each id; by the built tokenizer and by the plain one."""
    path = file_of(name)
    tokenizer, plain = words.load(path), plainwords.encoder(vocabulary.read(path))
    assert len(TEXTS) == 200
    for row in TEXTS:
        assert tokenizer(row["text"], verbose=False)["input_ids"] == row[name], row["text"]
        assert plain(row["text"]) == row[name], row["text"]


def spm(*, prefix: bool = True, byte_tokens: bool = True) -> vocabulary.Vocabulary:
    """A small vocabulary of kind `llama` whose pieces are made of parts that overlap, so that the order of merges shows."""
    special = ["<unk>", "<s>", "</s>"]
    letters = [*dict.fromkeys("▁" + "".join(plainwords.TEXTS[:6]).replace(" ", "") + "abhn-=.")]
    pairs = [
        "ab",
        "ba",
        "aba",
        "bab",
        "abab",
        "aa",
        "aaa",
        "aaaa",
        "ha",
        "ah",
        "haha",
        "an",
        "na",
        "nan",
        "anan",
        "--",
        "----",
    ]
    pieces = [*pairs, "▁a", "▁b", "▁▁", "▁▁▁▁", "th", "he", "the", "▁the", "in", "er", "re", "ко", "ов", "ου", "το"]
    extra = [f"<0x{byte:02X}>" for byte in range(256)] if byte_tokens else []
    tokens = [*special, *extra, *pieces, *(letter for letter in letters if letter not in pieces), "<mark>", "  "]
    first = 3 + len(extra)
    kinds = [2, 3, 3, *[6] * len(extra), *[1] * (len(tokens) - first - 2), 4, 4]
    scores = [0.0, 0.0, 0.0, *[0.0] * len(extra), *(-float(i) for i in range(len(tokens) - first))]
    return vocabulary.Vocabulary(
        "llama", tokens, kinds, scores, [], (), False, 1, 2, 0, None, True, False, prefix, False, None
    )  # fmt: skip


def bpe(pre: str) -> vocabulary.Vocabulary:
    """A byte-level vocabulary with the merges that a few texts give, under one of the pre-tokenizers."""
    letters = plainwords.alphabet()
    pieces = [[letters[byte] for byte in text.encode()] for text in plainwords.TEXTS]
    merges: list[tuple[str, str]] = []
    for _ in range(400):  # the most frequent pair each time, across all borders: so that the borders matter
        counts: dict[tuple[str, str], int] = {}
        for piece in pieces:
            for pair in zip(piece, piece[1:], strict=False):
                counts[pair] = counts.get(pair, 0) + 1
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for piece in pieces:
            at = 0
            while at < len(piece) - 1:
                if (piece[at], piece[at + 1]) == best:
                    piece[at : at + 2] = ["".join(best)]
                at += 1
    tokens = ["<s>", "</s>", *letters, *dict.fromkeys(left + right for left, right in merges)]
    kinds = [3, 3, *[1] * (len(tokens) - 2)]
    patterns = vocabulary.PRE_TOKENIZERS[pre]
    return vocabulary.Vocabulary(
        "gpt2", tokens, kinds, [], merges, patterns, pre == "tekken", 0, 1, None, None, False, True, False, False, None
    )  # fmt: skip


@pytest.mark.parametrize("pre", list(dict.fromkeys(vocabulary.PRE_TOKENIZERS[n] for n in vocabulary.PRE_TOKENIZERS)))
def test_each_pre_tokenizer_in_both_ways(pre: tuple[str, ...]) -> None:
    """Two engines for regular expressions and two implementations of the merges agree on texts that were not tried."""
    made = bpe(next(name for name, patterns in vocabulary.PRE_TOKENIZERS.items() if patterns == pre))
    built, plain = words.build(made), plainwords.encoder(made)
    for text in [*plainwords.TEXTS, *(row["text"] for row in TEXTS)]:
        assert built.encode(text).ids == plain(text), text


@pytest.mark.parametrize("byte_tokens", [True, False])
@pytest.mark.parametrize("prefix", [True, False])
def test_merging_by_score_in_both_ways(prefix: bool, byte_tokens: bool) -> None:
    """Repeated and overlapping pieces, what is in no vocabulary, and a prefix, at random."""
    made = spm(prefix=prefix, byte_tokens=byte_tokens)
    built, plain, chance = words.build(made), plainwords.encoder(made), random.Random(0)
    bits = ["ab", "ba", "a", "b", "ha", "na", " ", "  ", "-", "the ", "<mark>", "é", "火", "<s>"]
    texts = ["".join(chance.choice(bits) for _ in range(chance.randint(1, 24))) for _ in range(400)]
    for text in [*plainwords.TEXTS, *texts, *(row["text"] for row in TEXTS)]:
        assert built.encode(text).ids == plain(text), text


def test_a_tokenizer_that_differs_is_refused_with_both_results() -> None:
    """What transformers 5.17 makes of a Gemma file: the words of the right vocabulary, picked in another way, no BOS."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    made = spm()
    words.require_agreement(words.carried(made), made, "m.gguf")
    unigram = Tokenizer(models.Unigram(list(zip(made.tokens, made.scores, strict=True)), unk_id=0, byte_fallback=True))
    unigram.normalizer, unigram.decoder = normalizers.Replace(" ", "▁"), decoders.ByteFallback()
    wrong = PreTrainedTokenizerFast(tokenizer_object=unigram, bos_token="<s>")
    with pytest.raises(
        ModelError, match=r"m\.gguf: the tokenizer makes \d+ tokens of .*; expected \d+, from .* 1='<s>'"
    ) as caught:
        words.require_agreement(wrong, made, "m.gguf")
    assert caught.value.exit_code == 4 and "\n" not in caught.value.line() and "'<s>'" in caught.value.line()


def written(path: Path, **changes: tuple[bytes, bytes]) -> Path:
    """The tiny GGUF file with other values in its header."""
    data = tiny.gguf(path).read_bytes()
    for old, new in changes.values():
        assert data.count(old) == 1 and len(old) == len(new)
        data = data.replace(old, new)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"default", b"unknown", "pre-tokenizer 'unknown'"),
        (b"tokenizer.ggml.pre", b"tokenizer.ggml.pra", "no pre-tokenizer"),
        (b"\x04\0\0\0\0\0\0\0gpt2", b"\x04\0\0\0\0\0\0\0bert", "a tokenizer of kind 'bert'"),
        (b"a b", b"a \xc3", "no usable tokenizer"),
        (b"\x03\0\0\0\0\0\0\0a b", b"\x03\0\0\0\0\0\0\0a c", "a merge of 'a' and 'c'"),
        (b"tokenizer.ggml.tokens", b"tokenizer.ggml.tokenz", "no usable tokenizer"),
    ],
)
def test_what_is_not_known_is_refused(old: bytes, new: bytes, says: str, tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf", change=(old, new))
    with pytest.raises(ModelError, match=says):
        words.load(path)


def test_a_folder_remembers_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of a library that reads the same file in another way is refused where it loads."""
    out = tmp_path / "four"
    manifest = quantize.quantize_to_folder(str(tiny.gguf(tmp_path / "m.gguf")), out)
    loaded = checkpoint.load_tokenizer(out)
    assert words.mark(loaded) == manifest["words"] == words.mark(words.load(tmp_path / "m.gguf"))
    real = type(loaded).from_pretrained

    def without_bos(*args: Any, **options: Any) -> Any:
        made = real(*args, **options)
        made.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
        return made

    monkeypatch.setattr(type(loaded), "from_pretrained", without_bos)
    with pytest.raises(ModelError, match="gives other token ids with transformers"):
        checkpoint.load_tokenizer(out)


@pytest.mark.parametrize("right", [True, False])
def test_a_conversion_from_before_is_tried_once(right: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept and marked where its tokenizer is the file's; made again where it is not."""
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    source = sources.resolve(str(tiny.gguf(tmp_path / "m.gguf")))
    folder = quantize.convert_once(source).path
    manifest = json.loads((folder / "templora.json").read_text())
    mark = manifest.pop("words")
    (folder / "templora.json").write_text(json.dumps(manifest))
    if not right:
        tiny.tokenizer(bos=False).save_pretrained(folder)
    weights = (folder / "model.safetensors").stat()
    assert sources.converted(source) == source
    again = quantize.convert_once(source)
    assert again == sources.converted(source) != source
    assert json.loads((folder / "templora.json").read_text())["words"] == mark
    assert (weights.st_mtime_ns == (folder / "model.safetensors").stat().st_mtime_ns) == right
    assert words.mark(checkpoint.load_tokenizer(folder)) == mark
