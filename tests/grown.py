"""Documents that grow: pieces of markup repeated, nested, left open and mixed, up to any size.

Owns: which pieces each format has, the ways in which they grow. Does not know: how a document is read, or how fast.
Units: characters.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Pieces = list[tuple[str, str]]  # what opens and what closes

MARKDOWN: Pieces = [
    ("*", "*"), ("**", "**"), ("_", "_"), ("***", "***"), ("~~", "~~"), ("`", "`"), ("``", "`"), ("[", "](b)"), ("![", "](b)"),
    ("[", "][r]"), ("[[", "]]"), ("[^", "]"), ("^[", "]"), ("<b>", "</b>"), ('<a href="x">', "</a>"), ("<br>", ""), ("&amp;", ""),
    ("&#65;", ""), ("&", ";"), ("$", "$"), ("$$\n", "\n$$\n"), ("|a", "|"), ("|a|b|\n|-|-|\n", "\n"), ("> ", "\n"), ("- ", "\n"),
    ("1. ", "\n"), ("    ", "\n"), ("# ", "\n"), ("{{< x >}}", "{{< /x >}}"), ("{% x %}", "{% endx %}"), (":::\n", ":::\n"),
    ("!!! x\n    ", "\n"), ("<div>\n", "</div>\n"), ("<!--", "-->"), ("http://a.b/", " "), ("\\", ""), ("==", "=="), ("- [ ] ", "\n"),
    ("```\n", "```\n"), ("a\n: ", "\n"), ("[r]: /b\n", ""), ("(", ")"), ('"', '"'), ("\u27e6", "\u27e7"), ("\u27e61\u27e7", "\u27e6/1\u27e7"),
    ("a  \n", ""), ("<", ">"), ("<a ", ">"), ("x@", ".y"), ("{", "}"), ("\n", ""), ("- \n", ""), ("*[A]: ", "\n"), (":a:", ""),
]  # fmt: skip
HTML: Pieces = [
    *((f"<{name}>", f"</{name}>") for name in (
        "b", "i", "span", "a", "p", "div", "li", "ul", "table", "tr", "td", "blockquote", "font", "ruby", "rt", "rb", "rtc", "pre", "code", "h1",
        "svg", "math", "sup", "select", "option", "button", "object", "section", "nav", "aside", "dl", "dt", "textarea", "q",
    )),
    ("<br/>", ""), ("<wbr/>", ""), ("<hr/>", ""), ('<img src="a" alt="b"/>', ""), ("&amp;", ""), ("&#65;", ""), ("&eacute;", ""),
    ("<!--", "-->"), ('<a href="x">', "</a>"), ('<span class="a b">', "</span>"), ("<ul><li>", "</li></ul>"),
    ("<table><tr><td>", "</td></tr></table>"), ("<b>x</b>", ""), ("<i> </i>", ""), ('<a id="x"></a>', ""), ("\n", ""), ("\u27e6", "\u27e7"),
    ("<p>a<br/>", "</p>"), ("<![CDATA[", "]]>"), ('<span epub:type="pagebreak" id="v">1</span>', ""), ("<?x", "?>"), ("\u00ad", ""),
]  # fmt: skip
SRT: Pieces = [
    ("<i>", "</i>"), ("<b>", "</b>"), ("{\\i1}", "{\\i0}"), ('<font color="#fff">', "</font>"), ("<v Anna>", "</v>"), ("<c.a>", "</c>"),
    ("{y:i}", ""), ("<br/>", ""), ("\\N", ""), ("\\h", ""), ("&amp;", ""), ("- ", "\n"), ("\n", ""), ("<", ">"), ("{", "}"), ("1\n", ""),
    ("<00:00:02.000>", ""), ("00:00:01,000 --> 00:00:02,000\n", "\n"), ("2\n\n", ""), ("\u266a", ""), ("\u27e6", "\u27e7"), ("\u2013 ", "\n"),
    ("\n3\n00:00:01,000 --> 00:00:02,000\n", "\n"), ("-->", ""), ("\n \n", ""),
]  # fmt: skip
_RUN = '<w:r><w:t xml:space="preserve">x </w:t></w:r>'
DOCX: Pieces = [
    (_RUN, ""), ("<w:r><w:rPr><w:b/></w:rPr><w:t>x</w:t></w:r>", ""), ("<w:r><w:br/></w:r>", ""), ("<w:r><w:tab/></w:r>", ""),
    ('<w:r><w:fldChar w:fldCharType="begin"/></w:r>', '<w:r><w:fldChar w:fldCharType="end"/></w:r>'),
    ('<w:r><w:fldChar w:fldCharType="begin"/><w:instrText>PAGE</w:instrText><w:fldChar w:fldCharType="separate"/></w:r>',
     '<w:r><w:fldChar w:fldCharType="end"/></w:r>'),
    ('<w:fldSimple w:instr="PAGE">', "</w:fldSimple>"), ('<w:hyperlink w:anchor="a">', "</w:hyperlink>"),
    ('<w:ins w:id="1">', "</w:ins>"), ('<w:del w:id="1">', "</w:del>"), ("<w:smartTag>", "</w:smartTag>"),
    ("<w:sdt><w:sdtContent>", "</w:sdtContent></w:sdt>"), ('<w:bookmarkStart w:id="1" w:name="a"/>', '<w:bookmarkEnd w:id="1"/>'),
    ('<w:r><w:footnoteReference w:id="1"/></w:r>', ""), ("<w:proofErr/>", ""), ("<w:r><w:rPr><w:i/></w:rPr><w:br/></w:r>", ""),
    ("</w:p><w:p>", ""), (f"</w:p><w:p>{_RUN}", ""), ("</w:p><w:tbl><w:tr><w:tc><w:p>", "</w:p></w:tc></w:tr></w:tbl><w:p>"),
    ("<w:r><w:rPr><w:vanish/></w:rPr><w:t>x</w:t></w:r>", ""), ("<w:r><w:noBreakHyphen/><w:softHyphen/></w:r>", ""),
    ('<w:r><w:fldChar w:fldCharType="separate"/></w:r>', ""), ("<w:r><w:t>\u27e61\u27e7</w:t></w:r>", ""), ("<w:r><w:cr/></w:r>", ""),
    ("<w:r><w:ruby><w:rt><w:r><w:t>x</w:t></w:r></w:rt><w:rubyBase>", "</w:rubyBase></w:ruby></w:r>"),
    ("<w:r><mc:AlternateContent><mc:Choice><w:t>a</w:t></mc:Choice>", "<mc:Fallback/></mc:AlternateContent></w:r>"),
]  # fmt: skip
PLAIN: Pieces = [
    ("a\n", ""), ("\n", ""), (" ", ""), ("\t", ""), ("word ", ""), ("* * *\n", ""), ("\u27e6", "\u27e7"), ("\u27e61\u27e7", ""), ("- ", "\n"),
    ("A line of some words that goes on and on to its end,\n", ""), ("\u3000", "\n"), ("\u4f60\u597d\u3002", ""), ("CHAPTER I\n\n", ""),
    ("\u0301", ""), ("\r", ""), ("\u2028", ""), ('"', '"\n'), (". ", ""), ("  a\n", ""), ("\x0c", ""),
]  # fmt: skip

_MIDDLE = ("x", "Some words. ", "\n", "", "\u4f60\u597d", "x\n\n")


def _repeated(pieces: Pieces, size: int, chance: random.Random) -> str:
    (opens, closes), inner = pieces[0], chance.choice(_MIDDLE)
    one = opens + inner + closes + chance.choice(["", "", " ", "y", "\n"])
    return one * max(1, size // len(one)) + "End."


def _nested(pieces: Pieces, size: int, chance: random.Random) -> str:
    opens, closes = pieces[0]
    inner = chance.choice(("", "x", " x "))
    depth = size // (len(opens) + len(closes) + 2 * len(inner))
    depth = max(1, min(depth, chance.choice([100, 120, size, size])))
    return (opens + inner) * depth + "words" + (inner + closes) * depth


def _open(pieces: Pieces, size: int, chance: random.Random) -> str:
    one = pieces[0][0] + chance.choice(_MIDDLE)
    return one * max(1, size // len(one))


def _mixed(pieces: Pieces, size: int, chance: random.Random) -> str:
    one = "".join(
        chance.choice([opens, closes, opens + "x" + closes, chance.choice(_MIDDLE)]) for opens, closes in pieces * 2
    )
    return one * max(1, size // max(1, len(one)))


def _shallow(pieces: Pieces, size: int, chance: random.Random) -> str:
    """Nested to a depth that readers allow, again and again."""
    depth = chance.choice([2, 5, 20, 60])
    one = (
        "".join(opens + "x" for opens, _ in pieces) * depth
        + "word"
        + "".join(closes for _, closes in reversed(pieces)) * depth
    )
    return one * max(1, size // len(one))


WAYS: tuple[Callable[[Pieces, int, random.Random], str], ...] = (_repeated, _nested, _open, _mixed, _shallow)
BY_SUFFIX: dict[str, Pieces] = {
    ".md": MARKDOWN,
    ".html": HTML,
    ".xhtml": HTML,
    ".epub": HTML,
    ".srt": SRT,
    ".docx": DOCX,
    ".txt": PLAIN,
}


def body(suffix: str, size: int, chance: random.Random) -> str:
    """About `size` characters of one to three kinds of pieces, grown in one way."""
    pieces = chance.sample(BY_SUFFIX[suffix], chance.choice([1, 1, 2, 3]))
    return chance.choice(WAYS)(pieces, size, chance)[: size + 1000]
