"""Markdown beyond CommonMark whose lines were run together, left out or taken for code, and what is right of it."""

from __future__ import annotations

import datetime
from pathlib import Path

import books
import pytest
import yaml

from edge.documents import open_document

# --- lines that stand for themselves ---

_GRID = """+-------+------------+
| Fruit | Price      |
+=======+:==========:+
| Apple | 1 euro     |
|       |            |
|       | - in May   |
+-------+------------+
"""


@pytest.mark.parametrize("before", ["", "> ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_that_is_drawn_is_kept_and_said(before: str, end: str, tmp_path: Path) -> None:
    grid = "".join(before + line for line in _GRID.splitlines(keepends=True))
    text = f"Prices\n\n{grid}\n: The prices\n\nThe end\n{grid}".replace("\n", end)
    written = books.capitals(tmp_path / "a.md", text)
    assert written == f"PRICES\n\n{grid}\n: THE PRICES\n\nTHE END\n{grid}".replace(
        "\n", end
    )  # a caption keeps its colon
    document = open_document(tmp_path / "a.md")
    assert books.texts(document) == ["Prices", "The prices", "The end"]
    assert document.notes == (
        f"{tmp_path / 'a.md'} holds 2 table(s) drawn with + and |: what is in them stays as it is",
    )


def test_a_line_of_plus_and_minus_alone_is_no_table(tmp_path: Path) -> None:
    document = books.made(tmp_path / "a.md", "+---+\nA line\n\n+ item\n+ another\n")
    assert books.texts(document) == ["+---+ A line", "item", "another"]
    assert document.notes == ()


def test_a_table_that_is_drawn_is_said_beside_the_encoding(tmp_path: Path) -> None:
    document = books.made(tmp_path / "a.md", f"Schön\n\n{_GRID}".encode("utf-16"))
    assert ["UTF-16" in note for note in document.notes] == [True, False]


_VERSE = """| The limerick packs laughs *anatomical*
| In space that is quite economical.
|
|    But the good ones
     I've seen
| So seldom are # clean

> | Quoted
> | lines

- | In an
  | item
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_a_line_block_are_units(end: str, tmp_path: Path) -> None:
    text = _VERSE.replace("\n", end)
    # one that goes on below is written on one line
    assert books.capitals(tmp_path / "a.md", text) == text.upper().replace(f"ONES{end}     I'VE", "ONES I'VE")
    document = open_document(tmp_path / "a.md")
    assert books.texts(document) == [
        "The limerick packs laughs ⟦1⟧anatomical⟦/1⟧",
        "In space that is quite economical.",
        "But the good ones I've seen",
        "So seldom are # clean",
        *("Quoted", "lines", "In an", "item"),
    ]
    document.write(tmp_path / "b.md", books.translated(document), bilingual=True)
    assert f"> | Quoted / QUOTED{end}> | lines / LINES{end}" in (tmp_path / "b.md").read_bytes().decode()


def test_a_paragraph_with_a_bar_at_one_line_is_no_line_block(tmp_path: Path) -> None:
    text = "| one bar\nand a line without\n\na line without\n| and one bar\n\n| a | b |\n|---|---|\n| c | d |\n"
    document = books.made(tmp_path / "a.md", text)
    assert books.texts(document) == ["| one bar and a line without", "a line without | and one bar", "a", "b", "c", "d"]


_TERMS = """Term 1
Term *two*
: Def 1
: Def 2
  goes on

Apple
Pomme

:   A fruit

    with a paragraph
~   A maker

Alone
  ~ Defined

- item
  that goes on
  : in a list

### Heading
: defined
: and again
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_terms_and_definitions_are_units_on_their_lines(end: str, tmp_path: Path) -> None:
    text = _TERMS.replace("\n", end)
    assert books.capitals(tmp_path / "a.md", text) == text.upper().replace(f"DEF 2{end}  GOES", "DEF 2 GOES")
    assert books.texts(open_document(tmp_path / "a.md")) == [
        *("Term 1", "Term ⟦1⟧two⟦/1⟧", "Def 1", "Def 2 goes on"),
        *("Apple", "Pomme", "A fruit", "with a paragraph", "A maker"),
        *("Alone", "Defined", "item", "that goes on", "in a list", "Heading", "defined", "and again"),
    ]


@pytest.mark.parametrize("text", [
    "He left the house early that morning, and nobody in the street was up to see\nhim go\n: only the dog.",
    "It was late.\nHe went on\n: and on.",
    "He had two,\nor three\n: or four.",
    "One\ntwo\n:three",
    "One\ntwo\n\n\nand more :)",
])  # fmt: skip
def test_prose_with_a_colon_at_a_line_stays_prose(text: str, tmp_path: Path) -> None:
    assert books.texts(books.made(tmp_path / "a.md", text)) == [" ".join(p.split()) for p in text.split("\n\n\n")]


# --- statements of MDX, and sentences that begin with their words ---

_MDX = """import Tabs from '@theme/Tabs';
import React, { useState } from "react"
import * as all from './all' // everything
import './style.css'
import {
  first,
  second as third,
} from './parts';

export const meta = {
  title: 'A title (as it is',

  authors: ['one', 'two'],
}
export const [a, b] = [1, 2]
export default function Page({ children }) {
  return <div>{children}</div>;

}

export { a, b as c } from './d'
export * from './e';
export default ({ children }) => (
  <main>{children}</main>
);
export default Layout
export default withLayout(Page);
export async function load(context) { return 1 }
export type Props = { name: string };
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_statements_of_mdx_are_kept(end: str, tmp_path: Path) -> None:
    text = f"{_MDX}\n# A title\n\nWords {{in}} between.\n\n- item\n\n  {_MDX.splitlines()[0]}\n".replace("\n", end)
    written = books.capitals(tmp_path / "a.md", text)
    assert books.texts(open_document(tmp_path / "a.md")) == ["A title", "Words {in} between.", "item"]
    kept = _MDX.replace("\n", end)
    assert written.startswith(kept) and written.endswith(f"- ITEM{end}{end}  {_MDX.splitlines()[0]}{end}")


@pytest.mark.parametrize("text", [
    "Export default settings from the File menu.", "export default settings from the File menu.", "Export const volume data.",
    "export const volume data to a sheet", "export function keys (all of them)", "Import 'a book' and read it.",
    "import the data from the file", 'Import the data from "the file"', 'import the data from "the file"', "Import a from 'b';",
    "import * as you like", "export {name} to a file", "export * from the list", "important from 'here'", "IMPORT 'A'",
    "export default (for now) what you see", "export default class lists", "import x",
])  # fmt: skip
def test_sentences_that_begin_as_statements_do_are_words(text: str, tmp_path: Path) -> None:
    assert books.texts(books.made(tmp_path / "a.md", f"You can\n{text}\n")) == [f"You can {text}"]
    assert books.capitals(tmp_path / "b.md", f"{text}\n").replace("\\*", "*") == f"{text.upper()}\n"


def test_a_statement_that_is_not_closed_is_one_line(tmp_path: Path) -> None:
    assert books.texts(
        books.made(tmp_path / "a.md", "export const a = {\n\nWords\n\nexport const b = [\nmore\n]\n")
    ) == [
        "Words",
        "more ]",
    ]


# --- front matter whose values stand below their keys ---

_FRONT = """---
title: >-   # folded
  The old
  house


  by the *sea*
nav: >
  kept as
  it is
summary: |2+
   A first line
  that goes on\\
  after a break
  - an item
    that goes on

  1. another "item": it's 1 # no comment

  # a comment of the text
description: >

    Words
    and: words

      - further in
      - lines

    and back
  # a comment of YAML
abstract: |-
  Last  \u0020
  words
date: 2024-01-01
---

The text.
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_values_below_their_keys_are_translated(end: str, tmp_path: Path) -> None:
    written = books.capitals(tmp_path / "a.md", _FRONT.replace("\n", end))
    document = open_document(tmp_path / "a.md")
    assert books.texts(document) == [
        *("The old house", "by the *sea*"),
        *("A first line that goes on", "after a break", "an item that goes on", 'another "item": it\'s 1 # no comment'),
        *("a comment of the text", "Words and: words", "further in", "lines", "and back", "Last", "words", "The text."),
    ]
    found = yaml.safe_load(written.split("---")[1])
    assert list(found.items()) == [
        ("title", "THE OLD HOUSE\n\nBY THE *SEA*"),
        ("nav", "kept as it is\n"),
        ("summary", " A FIRST LINE THAT GOES ON\\\nAFTER A BREAK\n- AN ITEM THAT GOES ON\n\n1. ANOTHER \"ITEM\": IT'S 1 # NO COMMENT\n\n# A COMMENT OF THE TEXT\n"),
        ("description", "\nWORDS AND: WORDS\n\n  - FURTHER IN\n  - LINES\n\nAND BACK\n"),
        ("abstract", "LAST  \u0020\nWORDS"),
        ("date", datetime.date(2024, 1, 1)),
    ]  # fmt: skip
    assert written.count(end) == written.count("\n") and "# folded" in written and "  # a comment of YAML" in written
    document.write(tmp_path / "b.md", {}, language="de")
    assert (tmp_path / "b.md").read_bytes().decode() == _FRONT.replace("\n", end)


def test_any_translation_of_a_value_below_its_key_is_read_as_it_is_meant(tmp_path: Path) -> None:
    document = books.made(tmp_path / "a.md", "---\nabstract: |\n  One\n\n  two\nlang: en\n---\n")
    for text in (
        "# eins",
        "--- eins: 'zwei'",
        "\t| > eins",
        '"eins" \\n',
        "- eins",
        "{eins} [zwei]: 3",
        "eins\n\nzwei",
    ):
        document.write(tmp_path / "b.md", {"u000000": text}, language="de")
        front = yaml.safe_load((tmp_path / "b.md").read_text("utf-8").strip("-\n"))
        assert front == {"abstract": " ".join(text.split()) + "\n\ntwo\n", "lang": "de"}
    document.write(tmp_path / "b.md", books.translated(document), bilingual=True)
    assert "abstract: |\n  One / ONE\n\n  two / TWO\n" in (tmp_path / "b.md").read_text("utf-8")
