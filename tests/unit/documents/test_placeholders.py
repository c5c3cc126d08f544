"""Placeholders, inline trees and sentences: nothing is lost, and what is lost is reported."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.documents import placeholders, segments
from edge.documents.inline import Leaf, Node, Pair, Text, clean, encode

SOURCE = "A ⟦1⟧b ⟦2/⟧ ⟦3⟧c⟦/3⟧⟦/1⟧ d ⟦4⟧e⟦/4⟧"


@pytest.mark.parametrize(
    ("translation", "problem"),
    [
        ("X ⟦1⟧y ⟦2/⟧ ⟦3⟧z⟦/3⟧⟦/1⟧ w", "⟦4⟧ is missing"),
        ("X ⟦1⟧y ⟦2/⟧⟦2/⟧ ⟦3⟧z⟦/3⟧⟦/1⟧ ⟦4⟧w⟦/4⟧", "⟦2/⟧ occurs 2 times"),
        ("X ⟦1⟧y ⟦2/⟧ ⟦3⟧z⟦/3⟧⟦/1⟧ ⟦4⟧w⟦/4⟧⟦5/⟧", "⟦5/⟧ is not in the source"),
        ("X ⟦1⟧y ⟦2/⟧ ⟦3⟧z⟦/1⟧⟦/3⟧ ⟦4⟧w⟦/4⟧", "⟦1⟧ and ⟦3⟧ cross"),
        ("X ⟦1⟧y ⟦2/⟧ ⟦3⟧z⟦/3⟧⟦/1⟧ ⟦/4⟧w⟦4⟧", "⟦/4⟧ stands before ⟦4⟧"),
        ("X ⟦1⟧y ⟦2/⟧⟦/1⟧ ⟦3⟧z⟦/3⟧ ⟦4⟧w⟦/4⟧", "⟦3⟧ is not inside ⟦1⟧, as in the source"),
        ("X ⟦1⟧y ⟦2/⟧ ⟦3⟧⟦/3⟧⟦/1⟧ ⟦4⟧w⟦/4⟧", "⟦3⟧ holds no text"),
        ("X ⟦1⟧y ⟦2/⟧ ⟦3⟧z⟦/3⟧⟦/1⟧ ⟦4⟧w⟦/4⟧ ⟧", "stray ⟧"),
    ],
)
def test_check_names_what_is_wrong(translation: str, problem: str) -> None:
    assert problem in placeholders.check(SOURCE, translation)


def test_check_accepts_another_order() -> None:
    translation = "⟦4⟧E⟦/4⟧ D ⟦1⟧⟦3⟧C⟦/3⟧ B ⟦2/⟧⟦/1⟧ A"
    assert placeholders.check(SOURCE, translation) == []
    assert placeholders.restore(SOURCE, translation) == translation


def test_tidy_reads_sloppy_marks() -> None:
    assert placeholders.tidy("a ⟦ 1 ⟧b⟦ / 1⟧ 〚2/〛") == "a ⟦1⟧b⟦/1⟧ ⟦2/⟧"


_marks = st.sampled_from(
    ["⟦1⟧", "⟦/1⟧", "⟦2/⟧", "⟦3⟧", "⟦/3⟧", "⟦4⟧", "⟦/4⟧", "⟦9⟧", "⟦1/⟧", "⟦", "⟧", "word ", " ", "⟦/1/⟧"]
)


@given(st.lists(_marks, max_size=20).map("".join))
def test_restored_text_can_always_be_written(translation: str) -> None:
    restored = placeholders.restore(SOURCE, translation)
    left = placeholders.check(SOURCE, restored)
    assert placeholders.check(SOURCE, translation) or restored == translation
    assert "⟦2/⟧" in restored
    allowed = ("is missing", "holds no text", "is not inside", "is not outside")
    assert all(any(word in problem for word in allowed) for problem in left), left
    words = re.sub("[⟦⟧]", "", re.sub("⟦[0-9/]+⟧", "", translation)).split()
    assert re.sub("⟦[0-9/]+⟧", " ", restored).split() == " ".join(words).split() or "wordword" not in restored


_text = st.text(st.characters(codec="utf-8"), max_size=12)
_nodes = st.recursive(
    st.one_of(_text.map(Text), st.integers(0, 99).map(Leaf)),
    lambda inner: st.lists(inner, max_size=4).map(lambda children: Pair("pair", tuple(children))),
    max_leaves=12,
)


def _letters(nodes: list[Node] | tuple[Node, ...]) -> str:
    parts = []
    for node in nodes:
        if isinstance(node, Text):
            parts.append(node.value)
        elif isinstance(node, Pair):
            parts.append(_letters(node.children))
        elif isinstance(node, Leaf):
            parts.append(node.source if isinstance(node.source, str) else f"<{node.source}>")
    return "".join(parts)


def _pairs(nodes: list[Node] | tuple[Node, ...]) -> int:
    return sum(1 + _pairs(node.children) for node in nodes if isinstance(node, Pair))


@settings(max_examples=300)
@given(st.lists(_nodes, max_size=6))
def test_inline_trees_come_back_whole(nodes: list[Node]) -> None:
    inline = encode(nodes)
    if inline is None:
        assert not any(char.isalpha() for char in re.sub("<[0-9]+>", "", _letters(nodes)))
        return
    assert "\n" not in inline.text and clean(inline.text) == inline.text
    assert placeholders.plain_brackets(inline.text) == []
    assert placeholders.check(inline.text, inline.text) == []
    back = inline.fill(inline.text)
    assert _letters(back) == _letters(nodes)
    assert _pairs(back) == _pairs(nodes)
    lost = inline.fill("nothing kept")
    things = re.findall("<[0-9]+>", _letters(nodes))
    assert sorted(re.findall("<[0-9]+>", _letters(lost))) == sorted(things)


@settings(max_examples=300)
@given(st.text(st.sampled_from("ab. !?。！”)\n⟦⟧/1Mr3…")) | st.text())
def test_segments_join_exactly(text: str) -> None:
    pieces = segments(text)
    assert "".join(pieces) == text
    assert all(pieces)


def test_segments_end_sentences() -> None:
    assert segments("Mr. Smith left. He (J. R. Tolkien) ran! Where? 3.5 m… ") == (
        "Mr. Smith left. ",
        "He (J. R. Tolkien) ran! ",
        "Where? ",
        "3.5 m… ",
    )
    assert segments("他说：“好！”她走了。完") == ("他说：“好！”", "她走了。", "完")
    assert segments("هل جئت؟ نعم.") == ("هل جئت؟ ", "نعم.")
    assert segments("A ⟦1⟧b. C⟦/1⟧. Dd.⟦2/⟧ E") == ("A ⟦1⟧b. C⟦/1⟧. ", "Dd.⟦2/⟧ ", "E")
    assert segments("") == ()
