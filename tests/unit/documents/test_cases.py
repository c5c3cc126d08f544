"""Files that people met: each came out wrong once, and this is what is right."""

from __future__ import annotations

import re
import textwrap
import zipfile
from pathlib import Path

import books
import docx
import pytest
import yaml
from books import capitals as _capitals
from books import made as _made
from books import texts as _texts

from edge.documents import Document, open_document, placeholders
from edge.errors import InputError

# --- plain text ---

_PROSE = (
    "The morning train was late again and the people on the platform looked at the clock over the door, which had not "
    "moved since the winter before. Nobody spoke about it. A boy sold apples from a box that was too large for him."
)


@pytest.mark.parametrize("width", [50, 66, 98])
@pytest.mark.parametrize(
    "odd",
    ["This free text may be copied, given away or used again," + " at no cost" * 6, "https://example.org/" + "a" * 120],
)
def test_a_longer_line_leaves_wrapped_text_wrapped(tmp_path: Path, width: int, odd: str) -> None:
    paragraphs = [_PROSE, f"{_PROSE} {_PROSE}", f"Nobody spoke. {_PROSE}"] * 4
    wrapped = [textwrap.fill(text, width) for text in paragraphs]
    text = "\n\n".join(["A SMALL STORY", odd, *wrapped]) + "\n"
    assert _texts(_made(tmp_path / "a.txt", text)) == ["A SMALL STORY", odd, *paragraphs]
    assert _capitals(tmp_path / "b.txt", text) == text.upper()
    inside = f"{wrapped[0]}\n{odd}\n{wrapped[1]}\n\n" + text  # in a paragraph, too
    assert _texts(_made(tmp_path / "c.txt", inside))[-len(paragraphs) :] == paragraphs


def test_a_line_cut_early_ends_no_paragraph_in_mid_sentence(tmp_path: Path) -> None:
    lines = textwrap.wrap(_PROSE, 66) * 2
    lines[1] = lines[1].rsplit(" ", 3)[0] + ","
    assert len(_made(tmp_path / "a.txt", "\n".join(lines) + "\n").units) <= 2


def test_short_paragraphs_on_lines_stay_apart(tmp_path: Path) -> None:
    sentences = [s for s in re.split(r"(?<=[.,]) ", _PROSE * 3) if s]
    assert _texts(_made(tmp_path / "a.txt", "\n".join(sentences))) == sentences
    chinese = [
        "韩梅梅把门关上了。",
        "他没有说话，只是看着窗外的雨，想起很多年以前的一个晚上。",
        "“谁？”",
        "没有人回答她。",
    ] * 3
    assert _texts(_made(tmp_path / "b.txt", "\n".join(chinese))) == chinese


def test_what_separates_words_and_no_document_can_hold_becomes_a_space(tmp_path: Path) -> None:
    """As a correction from a table may have it."""
    document = _made(tmp_path / "a.txt", "Anything.\n")
    for separator in "\x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\n":
        document.write(tmp_path / "b.txt", {"u000000": f"Der Kapitän{separator}fuhr zur\x07 See"})
        assert (tmp_path / "b.txt").read_text("utf-8") == "Der Kapitän fuhr zur See\n", repr(separator)


@pytest.mark.parametrize("line", [
    "Part One", "Part the First", "PART THE SECOND.", "Teil II", "CHAPTER XII. In which Mr. Tom returns.", "Chapter 1: Loomings", "第十二章",
    "第3回 王さんの店。", "Chapter 7", "chapter iv", "CHAPTER I", "Book 2. The Sea.", "Chapter Twenty-One. The end.", "Kapitel 3", "Teil eins.",
    "Chapitre premier. Le départ.", "Capítulo primero.", "CAPÍTULO XI.", "Глава первая. Начало.", "Часть 2", "Capitolo terzo", "Prologue",
    "Epilogue: ten years later", "Prologue. London, 1943.", "PART THE LAST", "Book of the Dead", "Part 2 of 3", "Chapter I, in which nobody is at home",
])  # fmt: skip
def test_lines_that_open_a_chapter(line: str, tmp_path: Path) -> None:
    document = _made(tmp_path / "a.txt", f"Words before.\n\n{line}\n\nAnd words after.\n")
    assert [(unit.kind, unit.chapter) for unit in document.units] == [
        ("paragraph", 0),
        ("heading", 1),
        ("paragraph", 1),
    ]


@pytest.mark.parametrize("line", [
    "Part of me wanted to run away.", "Teil des Problems war das Geld.", "Part of it was true?", "Book him, said the man, and he was booked",
    "Part I will never forget.", "Part two of the plan was simple.", "Book 3 of the series was the worst.", "Part 2's author is unknown.",
    "Parte di me voleva scappare.", "Parte mi dispiace.", "Parte del problema era el dinero.", "Chapter after chapter he read on and on that night",
    "Часть меня хотела убежать.", "part of me", "Epilogue was what she called it.", "Book it: now.", "Part-time work is hard.", "Party one",
    "“Part one”", "Part of the house,", "Kapitel für Kapitel las er weiter.", "Partly cloudy", "第一次见面。",
])  # fmt: skip
def test_sentences_that_begin_as_a_chapter_does_open_none(line: str, tmp_path: Path) -> None:
    document = _made(tmp_path / "a.txt", f"Words before.\n\n{line}\n\nAnd words after.\n")
    assert [(unit.kind, unit.chapter) for unit in document.units] == [("paragraph", 0)] * 3


@pytest.mark.parametrize("indent", ["   ", "\t", "  \t", "\u3000\u3000", " ", ""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_first_line_keeps_its_indent(indent: str, end: str, tmp_path: Path) -> None:
    texts = [_PROSE, f"Nobody spoke. {_PROSE}", "A short one.", f"It was so. {_PROSE}"] * 2
    paragraphs = [textwrap.fill(text, 64, initial_indent=indent, expand_tabs=False) for text in texts]
    gap = "" if indent else "\n"
    text = f"\n{gap}".join(paragraphs).replace("\n", end) + end
    document = _made(tmp_path / "a.txt", text)
    assert _texts(document) == [text.strip() for text in texts]
    document.write(tmp_path / "b.txt", {unit.id: unit.text for unit in document.units}, bilingual=True)
    written = (tmp_path / "b.txt").read_bytes().decode()
    both = [half for text, paragraph in zip(texts, paragraphs, strict=True) for half in (text, paragraph)]
    assert written.split() == " ".join(both).split() and written.count(end) == written.count("\n")
    lines = [line for line in written.splitlines() if line]
    starts = [line for line in lines if line.startswith(tuple(indent + text.strip()[:9] for text in texts))]
    assert len(starts) == len(both) and all(line[0].strip() for line in lines if line not in starts)


# --- subtitles ---


@pytest.mark.parametrize("odd, mended", [
    ("00: 00: 03, 000 --> 00: 00: 04, 500", "00:00:03,000 --> 00:00:04,500"),
    ("00 : 00 : 03,000 --> 00:00:04 ,500", "00:00:03,000 --> 00:00:04,500"),
    ("00：00：03，000 --> 00：00：04，500", "00:00:03,000 --> 00:00:04,500"),
    ("00:00:03 --> 00:00:04", "00:00:03 --> 00:00:04"),
    ("00:03.000 --> 00:04.500", "00:03.000 --> 00:04.500"),
    ("00:00:03;000 —> 00:00:04;500", "00:00:03,000 --> 00:00:04,500"),
    ("00:00:03,000 --> 00:00:04,500 X1:1 X2:2", "00:00:03,000 --> 00:00:04,500 X1:1 X2:2"),
])  # fmt: skip
def test_odd_times_are_times(tmp_path: Path, odd: str, mended: str) -> None:
    text = f"1\n00:00:01,000 --> 00:00:02,500\nGood evening.\n\n2\n{odd}\nWhere is the boat?\n\n3\n00:00:05,000  -->  00:00:06,000\nHere.\n"
    assert _capitals(tmp_path / "a.srt", text) == text.replace(odd, mended).upper()
    assert len(open_document(tmp_path / "a.srt").units) == 3


def test_a_line_that_should_be_times_is_refused_by_number(tmp_path: Path) -> None:
    text = "1\n00:00:01,000 --> 00:00:02,500\nGood evening.\n\n2\nO0:00:03,0x0 --> 00:00:04\nWhere?\n"
    with pytest.raises(InputError, match="line 6 is no time"):
        _made(tmp_path / "a.srt", text)
    spoken = text.replace("2\nO0:00:03,0x0 --> 00:00:04\n", "Press 1 -> 2\n")
    assert _texts(_made(tmp_path / "b.srt", spoken)) == ["Good evening. Press 1 -> 2 Where?"]


def test_blank_lines_around_a_number(tmp_path: Path) -> None:
    text = "1\n\n00:00:00,000 --> 00:00:00,760\nThis costs $5.\n\n2\n\n00:00:01,000 --> 00:00:02,000\n12\n\n3\n\n00:00:03,000 --> 00:00:04,000\nThat is cheap.\n"
    assert _capitals(tmp_path / "a.srt", text) == text.upper()
    assert _texts(open_document(tmp_path / "a.srt")) == ["This costs $5.", "That is cheap."]
    once = "1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\n\n00:00:03,000 --> 00:00:04,000\nTwo.\n\n3\n00:00:05,000 --> 00:00:06,000\nThree.\n"
    assert _texts(_made(tmp_path / "b.srt", once)) == ["One.", "Two.", "Three."]


def test_no_subtitle_line_begins_with_the_dash_of_a_sentence(tmp_path: Path) -> None:
    head = "1\n00:00:01,000 --> 00:00:04,000\n"
    written = _capitals(tmp_path / "a.srt", f"{head}They waited in the harbour all week – and nobody came to them.\n")
    assert written.split("\n")[2:4] == ["THEY WAITED IN THE HARBOUR ALL WEEK –", "AND NOBODY CAME TO THEM."]
    read = _made(tmp_path / "b.srt", f"{head}They waited in the harbour all week\n– and nobody came to them.\n")
    assert _texts(read) == ["They waited in the harbour all week – and nobody came to them."]
    speakers = _made(
        tmp_path / "c.srt", f"{head}- who is there?\n- only me.\n\n2\n{head[2:]}Who is there?\n- Only me.\n"
    )
    assert all("⟦1/⟧" in text for text in _texts(speakers))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_speakers_keep_their_lines_beside_the_source(end: str, tmp_path: Path) -> None:
    head = f"1{end}00:00:01,000 --> 00:00:04,000{end}"
    for body, below in (
        (["- Hi.", "- Hello."], ["- HI.", "- HELLO."]),
        (["{\\an8}- Hi, you.", "- Hello,", "my friend."], ["- HI, YOU.", "- HELLO, MY FRIEND."]),
        (["<i>- Hi.</i>", "<i>- Hello.</i>", "- And me."], ["<i>- HI.</i>", "<i>- HELLO.</i>", "- AND ME."]),
        (["One sentence on", "two lines."], ["ONE SENTENCE ON TWO LINES."]),
    ):
        path = tmp_path / "a.srt"
        path.write_bytes(f"{head}{end.join(body)}{end}".encode())
        document = open_document(path)
        document.write(tmp_path / "b.srt", books.translated(document), bilingual=True)
        assert (tmp_path / "b.srt").read_bytes().decode() == f"{head}{end.join([*body, *below])}{end}"


def test_subtitle_markup_is_no_text(tmp_path: Path) -> None:
    head = "1\n00:00:01,000 --> 00:00:04,000\n"
    for body, text, written in (
        ("<v Anna>Come in\\hnow\\Nplease</v>", "Come in now please", "<v Anna>COME IN NOW PLEASE</v>"),
        ("<c.yellow>Bright</c> day {\\pos(10,20)}here", "⟦1⟧Bright⟦/1⟧ day ⟦2/⟧here", "<c.yellow>BRIGHT</c> DAY {\\pos(10,20)}HERE"),
        ("One {y:i}slanted<br/>word", "One ⟦1/⟧slanted⟦2/⟧word", "ONE {y:i}SLANTED<br/>WORD"),
        ("Tom &amp; Jerry&nbsp;&lt;now&gt;", "Tom & Jerry\u00a0<now>", "TOM &amp; JERRY\u00a0&lt;NOW&gt;"),
        ("Tom & Jerry {Note: sign}", "Tom & Jerry {Note: sign}", "TOM & JERRY {NOTE: SIGN}"),
        ("Slow <00:00:02.000>words", "Slow ⟦1/⟧words", "SLOW <00:00:02.000>WORDS"),
    ):  # fmt: skip
        assert _capitals(tmp_path / "a.srt", f"{head}{body}\n") == f"{head}{written}\n"
        assert _texts(open_document(tmp_path / "a.srt")) == [text]
        assert placeholders.plain(_texts(open_document(tmp_path / "out.srt"))[0]) == placeholders.plain(text).upper()


# --- Markdown that is not CommonMark ---

_DIALECTS = """# To do

- [ ] Buy seeds
- [x] Clean the tools

1. [ ] Call **Anna**

> [!NOTE]
> Water the beds in the evening.

> [!tip]- A title
> Its text with ![[embed.png]].

[TOC]

{{< figure src="bed.jpg" caption="The bed" >}}

See [the page]({{ '/docs/vars/' | relative_url }}), [[Wiki Page|label]] and <a href="{{ url }}">a link</a>.

{% include note.html content="Careful" %}

## Plan {#plan}

Styled paragraph
{: .lead }

- item one
{: .x}

Energy is $E = mc^2$ and the angle is $\\alpha_1 * \\beta_2$, or \\(a_1\\), not $5 and $6.

$$
\\sum_{i=1}^{n} x_i \\\\

\\text{where } n > 0
$$

Apple
: A round fruit
: A computer maker

::: tip
Use rain water.
:::

!!! warning "Frost"
    Cover the beds at night.

    - In winter, too.

{{< tip >}}
Use rain *water*.
{{< /tip >}}

{% highlight python %}
x = "kept"

y = 1
{% endhighlight %}

A ==marked== word, H~2~O, x^2^ and [a note] :smile: here.

*[HTML]: Hyper Text
"""


def _except(text: str, kept: list[str]) -> str:
    """The text in capitals, but for `kept`."""
    parts = re.split("(" + "|".join(re.escape(piece) for piece in sorted(kept, key=len, reverse=True)) + ")", text)
    return "".join(part if at % 2 else part.upper() for at, part in enumerate(parts))


def test_what_is_not_commonmark_is_kept_byte_for_byte(tmp_path: Path) -> None:
    kept = [
        "[ ]", "[x]", "[!NOTE]", "[!tip]-", "![[embed.png]]", "[TOC]", '{{< figure src="bed.jpg" caption="The bed" >}}',
        "({{ '/docs/vars/' | relative_url }})", "[[Wiki Page|label]]", '<a href="{{ url }}">', "</a>",
        '{% include note.html content="Careful" %}', "{#plan}", "{: .lead }", "{: .x}", "$E = mc^2$",
        "$\\alpha_1 * \\beta_2$", "\\(a_1\\)", "$$\n\\sum_{i=1}^{n} x_i \\\\\n\n\\text{where } n > 0\n$$", "::: tip", "!!! warning",
        "{{< tip >}}", "{{< /tip >}}", '{% highlight python %}\nx = "kept"\n\ny = 1\n{% endhighlight %}', ":smile:",
        "*[HTML]: Hyper Text",
    ]  # fmt: skip
    assert all(piece in _DIALECTS for piece in kept)
    assert _capitals(tmp_path / "a.md", _DIALECTS) == _except(_DIALECTS, kept)
    texts = _texts(open_document(tmp_path / "a.md"))
    for unit in (
        "Buy seeds",
        "Water the beds in the evening.",
        "A title",
        "Plan",
        "Styled paragraph",
        "item one",
        "Apple",
        "A round fruit",
        "Frost",
        "Cover the beds at night.",
        "Use rain water.",
        "Energy is ⟦1/⟧ and the angle is ⟦2/⟧, or ⟦3/⟧, not $5 and $6.",
    ):
        assert unit in texts
    with_returns = _DIALECTS.replace("\n", "\r\n")
    assert _capitals(tmp_path / "b.md", with_returns) == _except(
        with_returns, [piece.replace("\n", "\r\n") for piece in kept]
    )


def test_dialects_in_both_languages(tmp_path: Path) -> None:
    document = _made(tmp_path / "a.md", _DIALECTS)
    document.write(tmp_path / "b.md", books.translated(document), bilingual=True)
    text = (tmp_path / "b.md").read_text()
    for piece in (
        "- [ ] Buy seeds\\\n  BUY SEEDS",
        "> [!tip]- A title / A TITLE\n> Its text",
        "Apple / APPLE\n: A round fruit\\\n  A ROUND FRUIT",
        '!!! warning "Frost / FROST"',
        "$$\n\\sum",
    ):
        assert piece in text


@pytest.mark.parametrize("front, kept", [
    ("+++\ntitle = 'Spring notes'\ndraft = false\ntags = ['garden']\n[params]\ntitle = 'kept'\n+++\n", "+++\ntitle = 'SPRING NOTES'\ndraft = false\ntags = ['garden']\n[params]\ntitle = 'kept'\n+++\n"),
    ('+++\ntitle = "A \\"new\\" spring" # why\ndescription="It grows"\n+++\n', '+++\ntitle = "A \\"NEW\\" SPRING" # WHY\ndescription="IT GROWS"\n+++\n'.replace("# WHY", "# why")),
    ("---\ntitle: Spring notes # 1\ndescription: 'It''s here'\ndate: 2024-01-01\nnav: Garden\n---\n", "---\ntitle: SPRING NOTES # 1\ndescription: \"IT'S HERE\"\ndate: 2024-01-01\nnav: Garden\n---\n"),
    ("---\nnav: >\n  Folded text\ndescription: A line\n  that continues\n---\n", None),
    ('{\n  "title": "Spring notes",\n  "draft": false\n}\n', None),
])  # fmt: skip
def test_front_matter_keeps_its_form(tmp_path: Path, front: str, kept: str | None) -> None:
    text = f"{front}\nThe beds are ready.\n"
    assert _capitals(tmp_path / "a.md", text) == f"{kept or front}\nTHE BEDS ARE READY.\n"
    assert _texts(open_document(tmp_path / "a.md"))[-1] == "The beds are ready."


def test_a_title_that_yaml_would_misread_is_quoted(tmp_path: Path) -> None:
    document = _made(tmp_path / "a.md", "---\ntitle: Spring\nlang: en\n---\nText.\n")
    for title in ("Frühling: ein Anfang", "No", "# eins", "'s geht", "12"):
        document.write(tmp_path / "b.md", {"u000000": title}, language="de")
        front = (tmp_path / "b.md").read_text("utf-8").split("---")[1]
        assert yaml.safe_load(front) == {"title": title, "lang": "de"}


# --- HTML ---


def test_attributes_of_html_are_kept(tmp_path: Path) -> None:
    body = '<p>See <a href="https://example.org/page ">it</a>, <a href="https://example.org/a\n  ">this</a>, <a href="{{ base_url }}/h?a=1&amp;b=&quot;é">that</a> and <img src="map .gif" alt="map">.</p>'
    page = f'<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>Links</title></head><body>{body}</body></html>\n'
    written = _capitals(tmp_path / "a.html", page)
    assert re.findall(r'<[^>]*"[^>]*>', written) == re.findall(r'<[^>]*"[^>]*>', page)


def test_html_that_names_no_encoding_gets_one(tmp_path: Path) -> None:
    written = _capitals(
        tmp_path / "a.html", "<html><head><title>Caf&eacute;</title></head><body><p>Prices in &euro;</p></body></html>"
    )
    assert (
        written == '<html><head><meta charset="utf-8"><title>CAFÉ</title></head><body><p>PRICES IN €</p></body></html>'
    )
    assert "<!DOCTYPE" not in written
    assert _capitals(tmp_path / "b.html", "<html><body><p>one</p></body></html>").count("charset") == 1


@pytest.mark.parametrize("label, encoding, text", [
    ("iso-8859-1", "cp1252", "She said “go home” — and he didn’t."), ("gb2312", "gb18030", "朱镕基先生与喆先生在北京见面。"),
    ("shift_jis", "cp932", "①はじめに～春"), ("euc-kr", "cp949", "똠방각하"),
])  # fmt: skip
def test_labels_mean_what_browsers_take_them_for(label: str, encoding: str, text: str, tmp_path: Path) -> None:
    page = f'<html><head><meta charset="{label}"><title>T</title></head><body><p>{text}</p></body></html>'
    document = _made(tmp_path / "a.html", page.encode(encoding))
    assert _texts(document) == ["T", text]
    document.write(tmp_path / "b.html", books.translated(document))
    assert text.upper() in (tmp_path / "b.html").read_bytes().decode(encoding)


# --- EPUB ---


def test_entry_names_are_kept_as_bytes(tmp_path: Path) -> None:
    package = books.epub_entries()["OEBPS/book.opf"].replace(b'href="one.xhtml"', 'href="第一章.xhtml"'.encode())
    data = books.make_epub(tmp_path / "a.epub", {"OEBPS/book.opf": package}).read_bytes()
    name = "OEBPS/第一章.xhtml".encode()
    with zipfile.ZipFile(tmp_path / "b.epub", "w") as out, zipfile.ZipFile(tmp_path / "a.epub") as source:
        for info in source.infolist():
            stands = "OEBPS/" + "N" * (len(name) - 6) if info.filename == "OEBPS/one.xhtml" else info.filename
            out.writestr(stands, source.read(info))
    assert data
    raw = (tmp_path / "b.epub").read_bytes().replace(b"OEBPS/" + b"N" * (len(name) - 6), name)  # UTF-8 without its flag
    document = _made(tmp_path / "c.epub", raw)
    assert any("Call me" in unit.text for unit in document.units)
    document.write(tmp_path / "d.epub", books.translated(document))
    written = (tmp_path / "d.epub").read_bytes()
    assert written.count(name) == raw.count(name) == 2
    with zipfile.ZipFile(tmp_path / "d.epub") as out:
        assert [i.flag_bits & 0x800 for i in out.infolist()] == [0] * len(out.infolist())
    assert any("CALL ME" in unit.text for unit in open_document(tmp_path / "d.epub").units)


_BODY = books.CHAPTER[: books.CHAPTER.index("<body>")] + "<body>{}</body></html>"


def _book(path: Path, manifest: str, spine: str, files: dict[str, str]) -> Document:
    package = f'<package xmlns="http://www.idpf.org/2007/opf"><metadata/><manifest>{manifest}</manifest><spine>{spine}</spine></package>'
    container = books.epub_entries()["META-INF/container.xml"]
    texts = {f"OEBPS/{name}": _BODY.format(body).encode() for name, body in files.items()}
    path.write_bytes(books.zipped({"META-INF/container.xml": container, "OEBPS/book.opf": package.encode(), **texts}))
    return open_document(path)


@pytest.mark.parametrize("href, name, media", [
    ("/OEBPS/a.xhtml", "a.xhtml", "application/xhtml+xml"), ("Text\\a.xhtml", "Text/a.xhtml", "application/xhtml+xml"),
    ("a%20b.xhtml", "a%20b.xhtml", "application/xhtml+xml"), ("a%20b.xhtml", "a b.xhtml", "application/xhtml+xml"),
    ("b.html", "b.html", "application/xhtml"), ("c.xml", "c.xml", "text/xml"),
])  # fmt: skip
def test_chapters_are_found_as_readers_find_them(href: str, name: str, media: str, tmp_path: Path) -> None:
    item = f'<item id="a" href="{href}" media-type="{media}"/>'
    document = _book(tmp_path / "a.epub", item, '<itemref idref="a"/>', {name: "<p>Chapter one text</p>"})
    assert _texts(document) == ["Chapter one text"] and document.notes == ()
    document.write(tmp_path / "b.epub", books.translated(document))
    assert b"CHAPTER ONE TEXT" in books.entries_of(tmp_path / "b.epub")[f"OEBPS/{name}"]


_ITEM = '<item id="{0}" href="{0}.xhtml" media-type="application/xhtml+xml"/>'


def test_a_missing_chapter_is_left_out_and_said(tmp_path: Path) -> None:
    style = '<item id="s" href="none.css" media-type="text/css"/>'
    document = _book(
        tmp_path / "a.epub",
        _ITEM.format("a") + style + _ITEM.format("ghost"),
        '<itemref idref="a"/><itemref idref="ghost"/>',
        {"a.xhtml": "<p>One</p>"},
    )
    assert _texts(document) == ["One"]
    (note,) = document.notes
    assert "ghost.xhtml" in note and "left out" in note


def test_notes_that_only_links_lead_to_are_translated(tmp_path: Path) -> None:
    items = "".join(map(_ITEM.format, ("a", "n", "m", "unused")))
    files = {
        "a.xhtml": '<p>One <a href="n.xhtml#x">1</a></p>',
        "n.xhtml": "<p id='x'>A note, <a href='m.xhtml'>more</a></p>",
        "m.xhtml": "<p>More of it</p>",
        "unused.xhtml": "<p>Left</p>",
    }
    document = _book(tmp_path / "a.epub", items, '<itemref idref="a"/>', files)
    assert [placeholders.plain(text) for text in _texts(document)] == ["One", "A note, more", "More of it"]


def test_a_loose_ampersand_or_break_is_mended_and_said(tmp_path: Path) -> None:
    files = {
        "a.xhtml": "<p>Fine &amp; sound</p>",
        "b.xhtml": '<p>Salt & pepper<br>Second &nbsp;line<img src="x.png"></p>',
    }
    document = _book(
        tmp_path / "a.epub", _ITEM.format("a") + _ITEM.format("b"), '<itemref idref="a"/><itemref idref="b"/>', files
    )
    assert _texts(document)[0] == "Fine & sound" and _texts(document)[1].startswith("Salt & pepper")
    (note,) = document.notes
    assert "OEBPS/b.xhtml" in note and "mended" in note
    document.write(tmp_path / "b.epub", books.translated(document))
    written = books.entries_of(tmp_path / "b.epub")["OEBPS/b.xhtml"]
    assert b"SALT &amp; PEPPER" in written and open_document(tmp_path / "b.epub").notes == ()


def test_numbers_of_printed_pages_are_no_text(tmp_path: Path) -> None:
    chapter = _BODY.format(
        '<p><span epub:type="pagebreak" id="v">v</span>The foreword <span role="doc-pagebreak">vi</span>starts.</p>'
    )
    nav = _BODY.format(
        '<nav epub:type="toc"><ol><li><a href="one.xhtml">Foreword</a></li></ol></nav><nav epub:type="page-list"><ol><li><a href="one.xhtml#v">v</a></li></ol></nav>'
    )
    ncx = '<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/"><navMap><navPoint><navLabel><text>Foreword</text></navLabel></navPoint></navMap><pageList><pageTarget><navLabel><text>v</text></navLabel></pageTarget></pageList></ncx>'
    changes = {"OEBPS/one.xhtml": chapter, "OEBPS/nav.xhtml": nav, "OEBPS/toc.ncx": ncx}
    document = open_document(
        books.make_epub(tmp_path / "a.epub", {name: text.encode() for name, text in changes.items()})
    )
    assert [text for text in _texts(document) if "Carpet" not in text and "shirt" not in text] == [
        "The foreword ⟦1/⟧starts.",
        "Foreword",
        "Foreword",
    ]
    document.write(tmp_path / "b.epub", books.translated(document))
    entries = books.entries_of(tmp_path / "b.epub")
    assert b'id="v">v</span>THE FOREWORD' in entries["OEBPS/one.xhtml"] and b">v</a>" in entries["OEBPS/nav.xhtml"]


def test_lines_of_preformatted_text_are_units(tmp_path: Path) -> None:
    lines = [f"Line {word} of <i>the</i> ballad" for word in ("one", "two", "three")]
    chapter = _BODY.format("<pre>\n" + "\n".join(lines) + "\n\n  Last line.\n</pre>")
    document = open_document(books.make_epub(tmp_path / "a.epub", {"OEBPS/one.xhtml": chapter.encode()}))
    assert _texts(document)[:4] == [f"Line {w} of ⟦1⟧the⟦/1⟧ ballad" for w in ("one", "two", "three")] + ["Last line."]
    document.write(tmp_path / "b.epub", books.translated(document))
    written = books.entries_of(tmp_path / "b.epub")["OEBPS/one.xhtml"].decode()
    assert (
        "\n".join(lines).upper().replace("<I>", "<i>").replace("</I>", "</i>") + "\n\n  LAST LINE.\n</pre>" in written
    )
    assert "templora" not in written


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".srt", ".txt", ".md"])
def test_utf16_is_read_and_said(encoding: str, suffix: str, tmp_path: Path) -> None:
    text = (
        "1\n00:00:01,000 --> 00:00:02,000\nGuten Tag, schöne Stadt.\n"
        if suffix == ".srt"
        else "Guten Tag, schöne Stadt.\n"
    )
    document = _made(tmp_path / f"a{suffix}", f"\ufeff{text}".encode(encoding))
    assert _texts(document) == ["Guten Tag, schöne Stadt."] and "UTF-16" in document.notes[0]
    document.write(tmp_path / f"b{suffix}", books.translated(document))
    assert "SCHÖNE" in (tmp_path / f"b{suffix}").read_text("utf-8")
    with pytest.raises(InputError, match="UTF-16"):
        _made(tmp_path / f"c{suffix}", b"\xff\xfe" + text.encode("utf-16-le") + b"\x00\xd8\n")


def test_a_text_of_unknown_encoding_gets_no_hint_that_spoils_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not UTF-8") as caught:
        _made(tmp_path / "a.txt", "第一章 韩梅梅把门关上了。".encode("gbk"))
    assert "8859" not in str(caught.value)


def test_a_headings_attributes_stay_its_end_beside_the_source(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text('## Plan {#plan}\n\n# A {b} *c* {.d key="e"}\n\n# No {attributes here\n\nText {#plan}\n')
    document = open_document(path)
    document.write(tmp_path / "b.md", books.translated(document), bilingual=True)
    lines = (tmp_path / "b.md").read_text("utf-8").splitlines()
    assert lines[0] == "## Plan / PLAN {#plan}"
    assert lines[2] == '# A {b} *c* / A {B} *C* {.d key="e"}'
    assert lines[4] == "# No {attributes here / NO {ATTRIBUTES HERE"


# --- soft hyphens ---


def _hyphenated(path: Path, *, soft: str) -> Document:
    """A document of each format with the words `soft hyphen` and such a mark in the first of them."""
    word = f"so{soft}ft hyphen"
    if path.suffix == ".docx":
        document = docx.Document()
        document.add_paragraph(word)
        run = document.add_paragraph("so").add_run()
        run._r.append(run._r.makeelement(docx.oxml.ns.qn("w:softHyphen"), {}))
        run.add_text("ft hyphen")
        document.save(str(path))
    elif path.suffix == ".epub":
        books.make_epub(path, {"OEBPS/one.xhtml": books.CHAPTER.replace("Loomings", word).encode()})
    else:
        cue = "1\n00:00:01,000 --> 00:00:02,000\n"
        page = f'<html><head><meta charset="utf-8"><title>{word}</title></head><body>{word}\n</body></html>\n'
        texts = {".md": f"---\ntitle: {word}\n---\n{word}\n", ".srt": f"{cue}{word}\n", ".html": page}
        path.write_text(texts.get(path.suffix, f"{word}\n"), "utf-8")
    return open_document(path)


@pytest.mark.parametrize("suffix", ["txt", "md", "html", "srt", "epub", "docx"])
def test_soft_hyphens_are_no_text_and_stay_where_a_source_stays(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    document = _hyphenated(path, soft="\u00ad")
    assert any("soft hyphen" in text for text in _texts(document)) and "\u00ad" not in "".join(_texts(document))
    document.write(tmp_path / f"same.{suffix}", {})
    assert (tmp_path / f"same.{suffix}").read_bytes() == path.read_bytes()
    document.write(tmp_path / f"both.{suffix}", books.translated(document), bilingual=True)
    document.write(tmp_path / f"new.{suffix}", books.translated(document))
    texts = {}
    for name in ("a", "both", "new"):
        made = tmp_path / f"{name}.{suffix}"
        data = made.read_bytes() if suffix not in ("epub", "docx") else b"".join(books.entries_of(made).values())
        texts[name] = data.decode("utf-8", "replace")
    marks = [texts[name].count("\u00ad") + texts[name].count("w:softHyphen") for name in texts]
    assert marks[0] == marks[1] > marks[2] and "SOFT HYPHEN" in texts["both"] and "SOFT HYPHEN" in texts["new"]


@pytest.mark.parametrize("suffix", ["md", "html", "epub"])
def test_a_soft_hyphen_may_be_an_entity(suffix: str, tmp_path: Path) -> None:
    texts = _texts(_hyphenated(tmp_path / f"a.{suffix}", soft="&shy;"))
    assert any("soft hyphen" in text for text in texts) and "\u00ad" not in "".join(texts)


@pytest.mark.parametrize("unseen", ["\u200b", "\u200c", "\u200d"])
def test_other_unseen_characters_are_text(unseen: str, tmp_path: Path) -> None:
    for suffix in ("txt", "md", "html", "srt", "epub", "docx"):
        assert f"so{unseen}ft hyphen" in " ".join(_texts(_hyphenated(tmp_path / f"a.{suffix}", soft=unseen)))
