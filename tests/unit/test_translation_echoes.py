"""Echoes: sentences of other lines' translations are told from what is right twice, in any script, in little time."""

from __future__ import annotations

import random
import time

import pytest

from edge.translation import echoes, guards, languages
from edge.translation.guards import Case

GULL = "A grey gull cried above the harbour in the morning."
BOAT = "He said that the boat had to be mended."


@pytest.mark.parametrize(
    "code, gull, boat",
    [
        ("de", "Eine graue Möwe schrie am Morgen über dem Hafen.", "Er sagte, das Boot müsse repariert werden."),
        ("zh", "那天清晨，一只灰色的海鸥在港口上空凄厉地鸣叫着。", "他说船必须修好。"),
        ("hi", "उस दिन सुबह बंदरगाह के ऊपर एक धूसर समुद्री चिड़िया बहुत ज़ोर से चिल्लाई।", "उसने कहा कि नाव की मरम्मत करनी होगी।"),
        ("ur", "صبح کے وقت بندرگاہ کے اوپر ایک سرمئی بگلا چیخا۔", "اس نے کہا کہ کشتی کی مرمت کرنی ہوگی۔"),
        ("ar", "هل صرخ نورس رمادي فوق الميناء في ذلك الصباح الباكر؟", "قال إنه يجب إصلاح القارب."),
    ],
)  # fmt: skip
def test_an_echo_is_found_in_any_script(code: str, gull: str, boat: str) -> None:
    pair = languages.find("en"), languages.find(code)
    space = " " if pair[1].spaced else ""
    case = Case(BOAT, f"{gull}{space}{boat}", *pair, earlier=[(GULL, gull)])
    assert any(problem.startswith("echo") for problem in guards.problems(case))
    assert echoes.sentences(BOAT, case.target, case.earlier) == (gull, GULL)
    assert echoes.sentences(BOAT, boat, case.earlier) is None


@pytest.mark.parametrize(
    "source, target, earlier, known",
    [
        # what is asked three times is said three times
        ("做什么呀？做什么呀？做什么呀？", "What are you doing? " * 3, [("你在干什么？", "What are you doing?")], []),
        # a short source has a long translation, which is in a longer line
        ("发改委", "National Development and Reform Commission",
         [("国家发改委昨日发布公告。", "The National Development and Reform Commission published it yesterday.")], []),
        # so the glossary wants it
        ("委员会", "The National Development and Reform Commission",
         [("发改委昨日发布公告。", "The National Development and Reform Commission published it yesterday.")],
         ["the National Development and Reform Commission"]),
        # a refrain, in a line with more
        ("他走了。孤帆远影碧空尽，唯见长江天际流。", "He left. The lonely sail is gone, the river flows to the edge of the sky.",
         [("孤帆远影碧空尽，唯见长江天际流。", "The lonely sail is gone, the river flows to the edge of the sky.")], []),
        ("他默默地点头。", "He nodded without saying anything.", [("他点了点头，没有说话。", "He nodded without saying anything.")], []),
    ],
)  # fmt: skip
def test_what_is_right_twice_is_no_echo(
    source: str, target: str, earlier: list[tuple[str, str]], known: list[str]
) -> None:
    assert echoes.sentences(source, target, earlier, known) is None


def test_a_line_that_says_it_clears_one_that_does_not() -> None:
    said = "The old harbour lay silent under a heavy sky."
    lines = [("Nobody came.", said), ("Der alte Hafen lag still unter schwerem Himmel.", said)]
    assert echoes.sentences("Der alte Hafen lag still unter schwerem Himmel da.", said, lines) is None
    assert echoes.sentences("Ganz etwas anderes.", said, lines) is not None


def test_long_units_take_little_time() -> None:
    chance = random.Random(7)

    def text(size: int) -> str:
        return "".join(chance.choice("abcdefghijklmnopqrstuvwxyz     .") for _ in range(size))

    source, other, said = text(40_000), text(40_000), text(40_000)
    begin = time.process_time()
    assert echoes.sentences(source, text(40_000), [(other, said)] * 8) is None
    assert echoes.sentences(source, said, [(other, said)] * 8) is not None
    assert echoes.sentences(f"{other} x", said, [(other, said)] * 8) is None
    assert echoes.whole(source, said, [(other, said)] * 8) == other
    assert time.process_time() - begin < 10
