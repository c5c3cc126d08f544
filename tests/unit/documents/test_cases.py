"""Files that people met: each came out wrong once, and this is what is right."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import books
import pytest
import yaml

from edge.documents import Document, open_document, placeholders
from edge.errors import InputError


def _made(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_document(path)


def _texts(document: Document) -> list[str]:
    return [unit.text for unit in document.units]


def _capitals(path: Path, content: str | bytes) -> str:
    """What becomes of a file of which each unit is written in capitals."""
    document = _made(path, content)
    out = path.with_name(f"out{path.suffix}")
    document.write(out, books.translated(document))
    return out.read_bytes().decode()


# --- plain text ---

_PROSE = (
    "The morning train was late again and the people on the platform looked at the clock over the door, which had not "
    "moved since the winter before. Nobody spoke about it. A boy sold apples from a box that was too large for him."
)


@pytest.mark.parametrize("width", [50, 66, 98])
@pytest.mark.parametrize("odd", ["This free text may be copied, given away or used again," + " at no cost" * 6, "https://example.org/" + "a" * 120])  # fmt: skip
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
    for unit in ("Buy seeds", "Water the beds in the evening.", "A title", "Plan", "Styled paragraph", "item one", "Apple", "A round fruit", "Frost", "Cover the beds at night.", "Use rain water.", "Energy is ⟦1/⟧ and the angle is ⟦2/⟧, or ⟦3/⟧, not $5 and $6."):  # fmt: skip
        assert unit in texts
    with_returns = _DIALECTS.replace("\n", "\r\n")
    assert _capitals(tmp_path / "b.md", with_returns) == _except(
        with_returns, [piece.replace("\n", "\r\n") for piece in kept]
    )


def test_dialects_in_both_languages(tmp_path: Path) -> None:
    document = _made(tmp_path / "a.md", _DIALECTS)
    document.write(tmp_path / "b.md", books.translated(document), bilingual=True)
    text = (tmp_path / "b.md").read_text()
    for piece in ("- [ ] Buy seeds\\\n  BUY SEEDS", "> [!tip]- A title / A TITLE\n> Its text", "Apple / APPLE\n: A round fruit\\\n  A ROUND FRUIT", '!!! warning "Frost / FROST"', "$$\n\\sum"):  # fmt: skip
        assert piece in text


@pytest.mark.parametrize("front, kept", [
    ("+++\ntitle = 'Spring notes'\ndraft = false\ntags = ['garden']\n[params]\ntitle = 'kept'\n+++\n", "+++\ntitle = 'SPRING NOTES'\ndraft = false\ntags = ['garden']\n[params]\ntitle = 'kept'\n+++\n"),
    ('+++\ntitle = "A \\"new\\" spring" # why\ndescription="It grows"\n+++\n', '+++\ntitle = "A \\"NEW\\" SPRING" # WHY\ndescription="IT GROWS"\n+++\n'.replace("# WHY", "# why")),
    ("---\ntitle: Spring notes # 1\ndescription: 'It''s here'\ndate: 2024-01-01\nnav: Garden\n---\n", "---\ntitle: SPRING NOTES # 1\ndescription: \"IT'S HERE\"\ndate: 2024-01-01\nnav: Garden\n---\n"),
    ("---\ntitle: >\n  Folded text\ndescription: A line\n  that goes on\n---\n", None),
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
