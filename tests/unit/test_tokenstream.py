"""A text in pieces has the tokens of the whole, however it is cut."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from edge import tokenstream
from edge.tokenstream import TokenStream
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
PROSE = (ROOT / "scripts/data/egoist.txt").read_text("utf-8")


def _wrapped(made: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=made)


def _bytes_bpe() -> PreTrainedTokenizerFast:
    """As GPT-2's: pieces by a pattern that looks ahead, bytes, merges; offsets without the space before a word."""
    from tokenizers import processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator([PROSE[:200_000]], trainer)
    made.post_processor = processors.ByteLevel(trim_offsets=True)
    return _wrapped(made)


def _whole_bpe() -> PreTrainedTokenizerFast:
    """As Gemma's: no pieces, merges run over all of the text; bytes for what is not known."""
    from tokenizers import trainers

    alphabet = sorted(set(PROSE.replace(" ", "▁")))
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Replace(" ", "▁")
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    made.train_from_iterator(PROSE[:100_000].split("\n"), trainer)
    return _wrapped(made)


def _unigram() -> PreTrainedTokenizerFast:
    """As T5's: the best of all ways to cut, a mark before the text's first word."""
    from tokenizers import trainers

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.UnigramTrainer(vocab_size=600, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    made.train_from_iterator([PROSE[:50_000]], trainer)
    return _wrapped(made)


def _texts() -> dict[str, str]:
    chance = random.Random(0)
    odd = [chr(0x4E00 + n) for n in range(50)] + [
        "🙂",
        "👩‍👩‍👧",
        "\r\n",
        "\n\n\n",
        "   ",
        "é",
        "e\u0301",
        "a",
        "B",
        "7",
        "<unk>",
        "\u200f",
    ]
    runs = [" " * 37, "\n" * 33, "a" * 61, "=-" * 20, "1" * 25, "ha" * 15]
    return {
        "prose": PROSE[:60_000],
        "odd characters": "".join(chance.choices(odd, k=15_000)),
        "runs": "".join(piece[: chance.randrange(1, len(piece))] for piece in chance.choices(runs, k=2_000)),
        "one letter": "a" * 30_000,
        "lines alone": "\n" * 30_000,
    }


@pytest.fixture(
    scope="module", params=[_bytes_bpe, _whole_bpe, _unigram, tiny.tokenizer], ids=lambda make: make.__name__
)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.mark.parametrize("name", list(_texts()))
@pytest.mark.parametrize(("piece", "overlap"), [(4000, 500), (3001, 257)])
def test_pieces_are_the_whole(
    tokenizer: Any, name: str, piece: int, overlap: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenstream, "PIECE", piece)
    monkeypatch.setattr(tokenstream, "OVERLAP", overlap)
    text = _texts()[name]
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    chance = random.Random(1)
    parts, at = [], 0
    while at < len(text):
        parts.append(text[at : at + chance.randrange(1, 2 * piece)])
        at += len(parts[-1])
    stream, ids = TokenStream(tokenizer, parts), []
    while more := stream.take(chance.randrange(1, 3000)):
        ids.extend(more)
    assert ids == whole
    assert tokenstream.encode(tokenizer, text).tolist() == whole


def test_no_more_is_tokenised_than_is_needed() -> None:
    read = 0

    def parts() -> Any:
        nonlocal read
        for _ in range(1000):
            read += 1
            yield PROSE[:10_000]

    tokenizer = tiny.tokenizer()
    stream = TokenStream(tokenizer, parts(), limit=512, first=1)
    ids = stream.take(sys.maxsize)
    assert len(ids) == 512 and ids[0] == 1 and stream.ended and read < 20
    assert ids[1:].tolist() == tokenizer(PROSE[:10_000], add_special_tokens=False)["input_ids"][:511]


def test_looking_takes_nothing_and_skipping_does() -> None:
    stream = TokenStream.of(range(10, 20))
    assert (stream.look(3), stream.waiting, stream.take(2).tolist()) == (3, 10, [10, 11])
    stream.skip(5)
    assert (stream.look(100), stream.take(100).tolist(), stream.take(1).tolist(), stream.ended) == (
        3,
        [17, 18, 19],
        [],
        True,
    )


def test_a_text_that_agrees_nowhere_is_cut_and_lost_nowhere(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenstream, "PIECE", 1000)
    monkeypatch.setattr(tokenstream, "OVERLAP", 200)
    monkeypatch.setattr(tokenstream, "LONGEST", 4000)
    monkeypatch.setattr(tokenstream, "AGREED", 10**9)
    text = PROSE[:20_000]
    ids = tokenstream.encode(tokenizer, text).tolist()
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    said, meant = (tokenizer.decode(some).replace(" ", "").replace("▁", "") for some in (ids, whole))
    assert said == meant  # a tokenizer may put a mark before what it takes for a beginning
    assert len(ids) <= 1.02 * len(whole)
