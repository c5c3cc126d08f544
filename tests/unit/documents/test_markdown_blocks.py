"""The quick ways of reading Markdown: by a line's first character, and without the parser, the same is found."""

from __future__ import annotations

import random

import pytest

from edge.documents import markdown_inline
from edge.documents.markdown_inline import Parser
from tests import grown

_STARTS = ["", " ", "   ", "    ", "\t", "> ", "- ", "1. ", ">> "]
_LINES = [
    "word", "Import of goods", "import a from 'b';", "export const a = 1", "\u0130mport 'a';", "\u0131mport 'a';", "---", "===", "***", "- a",
    "+ b", "* c", "12) d", "7. f", "\u0663. x", "# e", "#e", "```", "~~~", "<div>", "<!-- a", "-->", "[a]: /b", "[^1]: note", "[toc]", "*[A]: b",
    "!!! note", "??? x", ":::", ":a:", ": definition", "~ definition", "| verse", "+:-+=+", "|a|b|", "|-|-|", "a|b", "-|-", "$$", "$$ x $$", "\\[", "\\]",
    "\\begin{a}", "\\end{a}", "{% raw %}", "{% endraw %}", "%%", "{{< math >}}", "{{< /math >}}", "", "", "\u4f60\u597d", "\ufdd0", "\xa0- a",
]  # fmt: skip


def _texts(count: int, chance: random.Random) -> list[str]:
    lines = ["\n".join(chance.choice(_STARTS) + chance.choice(_LINES) for _ in range(12)) for _ in range(count)]
    return [*lines, *(grown.body(".md", 300, chance) for _ in range(count))]


@pytest.mark.parametrize("seed", range(3))
def test_the_same_blocks_are_found(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = _texts(400, random.Random(seed))
    found = [[token.as_dict() for token in Parser(text).blocks] for text in texts]
    monkeypatch.setattr(markdown_inline, "by_mark", lambda md: None)
    for text, blocks in zip(texts, found, strict=True):
        assert blocks == [token.as_dict() for token in Parser(text).blocks], text
    kinds = {block["type"] for blocks in found for block in blocks}
    wanted = {"table_open", "opaque", "bullet_list_open", "admonition_open", "footnote_reference_open", "hr", "dl_open"}
    assert wanted | {"heading_open", "fence", "html_block", "blockquote_open", "ordered_list_open"} <= kinds


_PIECES = [
    "word", "a", "  ", " ", "\n", "  \n", " \n", "\t", "\\", "`", "*", "**", "_", "[", "]", "<", "&", "&amp;", "~~", "!", "^[", "$", "{",
    ":a:", "x@y.z", "http://a.b", "\u4f60\u597d", "\u3002", "-", "+ ", "1. ", "> ", "#", "|", "\xa0", "\u3000", "\u2028", "\ufdd0", '"', "==", "\x0b",
]  # fmt: skip


def test_words_alone_are_read_and_written_without_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """And as the parser reads and writes them."""
    chance = random.Random(0)
    few = [piece for piece in _PIECES if piece.strip() in ("word", "a", "!", "-", "\u3002", "")]
    texts = [
        "".join(chance.choice(few if n % 3 else _PIECES) for _ in range(chance.randint(1, 9))) for n in range(6000)
    ]
    parser = Parser("x")
    found, quick = [], 0
    for text in texts:
        nodes = parser.nodes(text.strip())
        found.append((repr(nodes), parser.write(nodes), parser._reads_as(text.strip(), nodes, html=False)))
        quick += markdown_inline._is_words(parser.masked(text))
    assert 2000 < quick < 5000
    monkeypatch.setattr(markdown_inline, "_is_words", lambda masked: False)
    for text, (shown, written, same) in zip(texts, found, strict=True):
        nodes = parser.nodes(text.strip())
        assert (repr(nodes), parser.write(nodes)) == (shown, written), text
        assert parser._reads_as(text.strip(), nodes, html=False) == same, text
