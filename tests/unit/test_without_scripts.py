"""A draft that left characters of the source in it is asked for again, and then they cannot be written."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import regex
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from edge.documents import Unit
from edge.model import control
from edge.translation import languages, loop
from edge.translation.asking import Draft, Request, Without
from edge.translation.context import Context
from edge.translation.decoding import Line
from edge.translation.glossary import Glossary
from edge.translation.job import Attempt, Job
from tests import tiny
from tests.translators import OneByOne

ZH, EN, DE, RU = (languages.find(tag) for tag in ("zh", "en", "de", "ru"))
WITHOUT = Without(("Han",), ("Latin",))
TEXT = "爵士把门关上了。韩梅梅看见李雷，“你好”，他说。 The knight closed the door; “hello”, she said — naïve café … Дверь 😀 ไทย"
HAN = regex.compile(r"\p{Script=Han}")


def trained() -> Any:
    """Bytes that merge, some of them to whole words, some to parts of a character."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=sorted(alphabet), show_progress=False)
    inner.train_from_iterator([TEXT] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def falling_back() -> Any:
    """Pieces of text, and bytes for what is in none of them."""
    pieces = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *sorted(set("▁abcdefghijklmnoprstuvwy,.;“”—爵士")),
        "爵士",
    ]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[("爵", "士")], unk_token="<unk>", byte_fallback=True))
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


@pytest.mark.parametrize("make", [trained, falling_back, lambda: tiny.tokenizer(bos=False)])
def test_no_character_of_a_script_can_be_written_and_all_others_can(make: Any) -> None:
    tokenizer = make()
    base: Any = SimpleNamespace(
        model=torch.nn.Linear(1, 1), tokenizer=tokenizer, config=SimpleNamespace(vocab_size=600), eos_ids=frozenset()
    )
    barred = set(control.written_in(base, ("Han",), ("Latin",)).tolist())
    for character in "爵士把门关上了韩梅李雷龘":
        assert barred & set(tokenizer.encode(character, add_special_tokens=False)), character
    for text in ("The knight closed the door;", "“hello”, she said — …", "naïve café", "Дверь", "😀", "ไทย"):
        assert not barred & set(tokenizer.encode(text, add_special_tokens=False)), text
    letters = set(control.written_in(base, ("Cyrillic",), ("Latin",)).tolist())
    assert letters & set(tokenizer.encode("Дверь", add_special_tokens=False))
    assert not letters & set(tokenizer.encode("The knight — “hello” café ḥ ﬁ 爵士", add_special_tokens=False))
    # scripts that share their first bytes with the one that is left behind
    for names, kept, text in (
        ("Devanagari", "Bengali", "তিনি দরজা বন্ধ করলেন।"),
        ("Devanagari", "Thai", "เขาปิดประตู"),
        ("Cyrillic", "Georgian", "მან კარი დახურა"),
        ("Arabic", "Devanagari", "उसने दरवाज़ा बंद किया।"),
    ):
        gone = set(control.written_in(base, (names,), (kept,)).tolist())
        assert not gone & set(tokenizer.encode(text, add_special_tokens=False)), text


def test_a_line_without_a_script_takes_the_next_best_token() -> None:
    runtime = tiny.runtime("qwen3", "window.chunk=32", "window.size=64", nf4=False)
    with runtime.session() as session:
        ids = runtime.base.tokenizer("爵 a", add_special_tokens=False)["input_ids"]

        def written(without: Without | None) -> str:
            request = Request("爵士", Context(), [], Attempt(), 1, without=without)
            line = Line(session, [[5]], 30, request)
            for token in ids:
                logits = torch.zeros(int(runtime.base.config.vocab_size))
                logits[token] = 3.0
                logits[ids[-1]] += 2.0
                line.take(logits)
            return line.draft().text

        assert written(None) == "爵 a"
        plain = written(WITHOUT)
        assert plain.endswith(" a") and plain.startswith("a") and not HAN.search(plain)


class Careless(OneByOne):
    """Leaves a word of the source in its first drafts."""

    def __init__(self, *drafts: str) -> None:
        self.drafts = drafts
        self.asked: list[Request] = []

    def translate(self, request: Request) -> Draft:
        self.asked.append(request)
        return Draft(self.drafts[min(len(self.asked), len(self.drafts)) - 1], 1)


def asked(translator: Careless, source: Any, target: Any, text: str, **more: Any) -> list[Without | None]:
    job = Job([Unit("u0", text)], source, target, **more)
    loop.translate_unit(job, translator, 0, job.units[0], Context(), {})
    return [request.without for request in translator.asked]


def test_only_after_a_draft_that_left_some_in_it() -> None:
    line = "白帽爵士拿着一块手帕，看了看她。"
    left = "The white-capped爵士 held a handkerchief and looked at her."
    right = "The white-capped knight held a handkerchief and looked at her."
    german = "Der Ritter mit der weißen Haube hielt ein Taschentuch in der Hand und sah sie lange an."
    assert asked(Careless(left, right), ZH, EN, line) == [None, WITHOUT]
    assert asked(Careless(line, left, right), ZH, EN, line) == [None, WITHOUT, WITHOUT]
    assert asked(Careless("", right), ZH, EN, line) == [None, None]
    assert asked(Careless(german, right), ZH, EN, line) == [None, None]
    assert asked(Careless(right), ZH, EN, line) == [None]


def test_a_term_that_is_written_so_may_be_written() -> None:
    line = "白帽爵士拿着一块手帕，看了看她。"
    left = "The white-capped爵士 held a 手帕 and looked at her."
    right = "The white-capped 爵士 held a handkerchief and looked at her."
    assert asked(Careless(left, right), ZH, EN, line, glossary=Glossary({"爵士": "爵士"})) == [None, None]


def test_latin_words_may_stand_in_any_language() -> None:
    line = "The knight held a handkerchief in her hand and looked."
    assert set(asked(Careless(line), EN, RU, line)) == {None}
    assert set(asked(Careless(line), EN, DE, line)) == {None}


def test_characters_that_belong_in_a_translation_may_be_written() -> None:
    spoken = "他在纸上写了“人”字，爵士看了看。"
    first = "He wrote the character “人” on the paper; the 爵士 looked."
    right = "He wrote the character “人” on the paper; the knight looked."
    assert asked(Careless(first, right), ZH, EN, spoken) == [None, None]
    address = "爵士看了 https://zh.wikipedia.org/wiki/爵士 的文章。"
    first = "The 爵士 read the article at https://zh.wikipedia.org/wiki/爵士."
    right = "The knight read the article at https://zh.wikipedia.org/wiki/爵士."
    assert asked(Careless(first, right), ZH, EN, address) == [None, None]


def test_the_pieces_of_a_line_are_asked_for_without_it_too() -> None:
    line = "白帽爵士拿着手帕。他看了看她。"
    translator = Careless(
        *["He held a 手帕 and looked at her."] * 4, "The knight held a handkerchief.", "He looked at her."
    )
    assert asked(translator, ZH, EN, line) == [None, *[WITHOUT] * 5]


def test_a_tokenizer_without_a_backend_is_asked_itself() -> None:
    tokenizer = trained()

    class Slow:
        batch_decode = staticmethod(tokenizer.batch_decode)
        convert_ids_to_tokens = staticmethod(tokenizer.convert_ids_to_tokens)

        def __len__(self) -> int:
            return len(tokenizer)

    def found(of: Any) -> list[int]:
        base: Any = SimpleNamespace(
            model=torch.nn.Linear(1, 1), tokenizer=of, config=SimpleNamespace(vocab_size=600), eos_ids=frozenset()
        )
        ids: list[int] = control.written_in(base, *WITHOUT).tolist()
        return ids

    assert found(Slow()) == found(tokenizer)
