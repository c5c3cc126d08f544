"""Books made for the tests: one per format, with nested markup, tables, notes, images, Arabic and Chinese."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import docx
from docx.enum.text import WD_BREAK
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from ebooklib import epub

from edge.documents import Document, open_document
from edge.documents.placeholders import MARK


def png(shade: int = 0) -> bytes:
    """A valid 2 x 2 image."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + bytes([shade, 0, 255] * 2) for _ in range(2)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def upper(text: str) -> str:
    """A dummy translator: capitals everywhere outside placeholders."""
    parts: list[str] = []
    at = 0
    for mark in MARK.finditer(text):
        parts += [text[at : mark.start()].upper(), mark[0]]
        at = mark.end()
    return "".join([*parts, text[at:].upper()])


def translated(document: Document) -> dict[str, str]:
    return {unit.id: upper(unit.text) for unit in document.units}


def written(document: Document, path: Path, translations: Mapping[str, str], **options: object) -> Document:
    """Writes the document and reads what was written."""
    document.write(path, translations, **options)  # type: ignore[arg-type]
    return open_document(path)


def made(path: Path, content: str | bytes) -> Document:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return open_document(path)


def texts(document: Document) -> list[str]:
    return [unit.text for unit in document.units]


def capitals(path: Path, content: str | bytes) -> str:
    """What becomes of a file of which each unit is written in capitals."""
    document = made(path, content)
    out = path.with_name(f"out{path.suffix}")
    document.write(out, translated(document))
    return out.read_bytes().decode()


CHAPTER = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" xml:lang="en" lang="en">
<head><title>Loomings</title><link rel="stylesheet" type="text/css" href="style/main.css"/></head>
<body>
<h1 id="top">Chapter 1. <em>Loomings</em></h1>
<p class="first">Call me <b>Ish<i>mael</i></b>. Some years ago&#8212;never mind how long
precisely<a epub:type="noteref" href="#n1" id="r1">1</a>&#160;&#8212; having <a href="two.xhtml#start">little
money</a> in my purse.</p>
<p><img src="images/whale.png" alt="A whale"/></p>
<p>Inline <img src="images/whale.png" alt="x"/> image, a <code>code_word</code>, and a line<br/>break.</p>
<table><caption>Ships</caption><tr><th>Name</th><td>The <i>Pequod</i></td></tr><tr><td>42</td><td></td></tr></table>
<div>Loose text <span>in a block</span><p>A paragraph in it</p>and a tail</div>
<ul><li>First item<ul><li>Nested item</li></ul></li></ul>
<p dir="rtl" xml:lang="ar">\u0643\u0627\u0646 \u064a\u0627 \u0645\u0627 <b>\u0643\u0627\u0646</b></p>
<p xml:lang="zh">\u3000\u3000\u8bdd\u8bf4<ruby>\u5929\u4e0b<rt>tianxia</rt></ruby>\u5927\u52bf\u3002</p>
<pre><code>not translated</code></pre>
<p translate="no">Kept as it is</p>
<p>Brackets \u27e61\u27e7 and &lt;tags&gt; &amp; more.</p>
<aside epub:type="footnote" id="n1"><p>The note <a href="#r1">\u21a9</a></p></aside>
</body></html>
"""
SECOND = CHAPTER[: CHAPTER.index("<body>")] + (
    '<body><section><h2 id="start">The Carpet-Bag</h2><p>I stuffed a shirt or two.</p><hr/>\n<p>***</p></section>'
    "</body></html>"
)


def epub_entries() -> dict[str, bytes]:
    """The files of a small EPUB 3 with an NCX, a font and a picture."""
    nav = CHAPTER[: CHAPTER.index("<body>")] + (
        '<body><nav epub:type="toc"><ol><li><a href="one.xhtml">Loomings</a></li>'
        '<li><a href="two.xhtml">The Carpet-Bag</a></li></ol></nav></body></html>'
    )
    ncx = (
        '<?xml version="1.0" encoding="utf-8"?>\n<ncx xmlns="http://www.daisy.org/z3986/2005/ncx/" version="2005-1">'
        '<head><meta name="dtb:uid" content="id-1"/></head><docTitle><text>Moby</text></docTitle><navMap>'
        '<navPoint id="p1" playOrder="1">'
        "<navLabel><text>Loomings</text></navLabel>"
        '<content src="one.xhtml"/></navPoint>'
        "</navMap></ncx>"
    )
    package = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">
 <metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
  <dc:identifier id="id">id-1</dc:identifier><dc:title>Moby  Dick</dc:title><dc:language>en</dc:language>
  <dc:creator   id='c'>Herman Melville</dc:creator><meta property="dcterms:modified">2020-01-01T00:00:00Z</meta>
 </metadata>
 <manifest>
  <item id="one" href="one.xhtml" media-type="application/xhtml+xml"/>
  <item id="two" href="two.xhtml" media-type="application/xhtml+xml"/>
  <item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
  <item id="ncx" href="toc.ncx" media-type="application/x-dtbncx+xml"/>
  <item id="css" href="style/main.css" media-type="text/css"/>
  <item id="png" href="images/whale.png" media-type="image/png"/>
  <item id="font" href="font%20a.otf" media-type="font/otf"/>
 </manifest>
 <spine toc="ncx"><itemref idref="one"/><itemref idref="two"/></spine>
</package>
"""
    container = (
        '<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">'
        '<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/>'
        "</rootfiles></container>"
    )
    return {
        "mimetype": b"application/epub+zip",
        "META-INF/container.xml": container.encode(),
        "OEBPS/book.opf": package.encode(),
        "OEBPS/one.xhtml": CHAPTER.encode(),
        "OEBPS/two.xhtml": SECOND.encode(),
        "OEBPS/nav.xhtml": nav.encode(),
        "OEBPS/toc.ncx": ncx.encode(),
        "OEBPS/style/main.css": b"p { margin: 0 }\n",
        "OEBPS/images/whale.png": png(),
        "OEBPS/font a.otf": bytes(range(256)),
    }


def zipped(entries: Mapping[str, bytes]) -> bytes:
    """A zip archive; an entry 'mimetype' is stored, the others deflated."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name, (2020, 1, 2, 3, 4, 6))
            info.compress_type = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return stream.getvalue()


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def make_epub(path: Path, changes: Mapping[str, bytes] | None = None) -> Path:
    path.write_bytes(zipped({**epub_entries(), **(changes or {})}))
    return path


def make_library_epub(path: Path) -> Path:
    """A book as the ebooklib library writes it."""
    book = epub.EpubBook()
    book.set_identifier("lib-1")
    book.set_title("Two Tales")
    book.set_language("en")
    chapters = []
    for number in (1, 2):
        chapter = epub.EpubHtml(title=f"Tale {number}", file_name=f"c{number}.xhtml", lang="en")
        chapter.content = f"<h1>Tale {number}</h1><p>Once <em>upon</em> a time, number {number}.</p><img src='w.png'/>"
        book.add_item(chapter)
        chapters.append(chapter)
    book.add_item(epub.EpubItem(uid="w", file_name="w.png", media_type="image/png", content=png(9)))
    book.toc = tuple(chapters)
    book.add_item(epub.EpubNcx())
    book.add_item(epub.EpubNav())
    book.spine = ["nav", *chapters]
    epub.write_epub(str(path), book)
    return path


_FOOTNOTES = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    '<w:footnotes xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main">'
    '<w:footnote w:type="separator" w:id="-1"><w:p><w:r><w:separator/></w:r></w:p></w:footnote>'
    '<w:footnote w:id="1"><w:p><w:r><w:footnoteRef/></w:r>'
    '<w:r><w:t xml:space="preserve"> A note below.</w:t></w:r></w:p>'
    "</w:footnote></w:footnotes>"
)


def make_docx(path: Path) -> Path:
    """A document by python-docx, with a hyperlink, a picture, a table, a header and a footnotes part."""
    document = docx.Document()
    document.add_heading("The Old House", level=1)
    paragraph = document.add_paragraph("It was a ")
    paragraph.add_run("dark ").bold = True
    paragraph.add_run("and stormy").italic = True
    paragraph.add_run(" night")
    _footnote_mark(paragraph)
    paragraph.add_run(", all of ")
    paragraph.add_run("it.")  # as word processors split runs for no visible reason
    _link(document, paragraph)
    document.add_paragraph("First point", style="List Bullet")
    mixed = document.add_paragraph("Before ")
    mixed.add_run().add_picture(io.BytesIO(png()), width=100000)
    run = mixed.add_run("after\tthe tab")
    run.add_break(WD_BREAK.LINE)
    run.add_text("and the break")
    table = document.add_table(rows=2, cols=2)
    for row in range(2):
        for column in range(2):
            table.cell(row, column).text = f"Cell {row} {column}"
    document.add_paragraph("كان يا ما كان في قديم الزمان")
    document.add_paragraph("话说天下大势，分久必合。")
    document.add_paragraph("42")
    _field(document.add_paragraph("See page "))
    document.sections[0].header.paragraphs[0].text = "A header line"
    stream = io.BytesIO()
    document.save(stream)
    entries = entries_of_bytes(stream.getvalue())
    relations = entries["word/_rels/document.xml.rels"]
    kind = b"http://schemas.openxmlformats.org/officeDocument/2006/relationships/footnotes"
    entries["word/_rels/document.xml.rels"] = relations.replace(
        b"</Relationships>", b'<Relationship Id="rIdN" Type="' + kind + b'" Target="footnotes.xml"/></Relationships>'
    )
    content = b"application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"
    entries["[Content_Types].xml"] = entries["[Content_Types].xml"].replace(
        b"</Types>", b'<Override PartName="/word/footnotes.xml" ContentType="' + content + b'"/></Types>'
    )
    entries["word/footnotes.xml"] = _FOOTNOTES.encode()
    path.write_bytes(zipped(entries))
    return path


def entries_of_bytes(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _footnote_mark(paragraph: object) -> None:
    run = paragraph.add_run()  # type: ignore[attr-defined]
    mark = OxmlElement("w:footnoteReference")
    mark.set(qn("w:id"), "1")
    run._r.append(mark)


def _link(document: object, paragraph: object) -> None:
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/hyperlink"
    identifier = document.part.relate_to("http://example.com/", kind, is_external=True)  # type: ignore[attr-defined]
    link = OxmlElement("w:hyperlink")
    link.set(qn("r:id"), identifier)
    run = paragraph.add_run("a link")  # type: ignore[attr-defined]
    link.append(run._r)
    paragraph._p.append(link)  # type: ignore[attr-defined]
    paragraph.add_run(" ends it.")  # type: ignore[attr-defined]


def _field(paragraph: object) -> None:
    for kind, text in (("begin", None), (None, "PAGE"), ("separate", None), ("", "7"), ("end", None)):
        run = paragraph.add_run(text if kind == "" else None)  # type: ignore[attr-defined]
        if kind:
            element = OxmlElement("w:fldChar")
            element.set(qn("w:fldCharType"), kind)
            run._r.append(element)
        elif kind is None:
            element = OxmlElement("w:instrText")
            element.text = text
            run._r.append(element)
    paragraph.add_run(" of the book")  # type: ignore[attr-defined]


SRT = """\ufeff1
00:00:01,000 --> 00:00:03,500 X1:1
<i>Hello, <b>my</b> friend.</i>
How are you?

2
00:00:04,000 --> 00:00:05,000
- Fine.
- {\\an8}And you?

3
00:00:06,000 --> 00:00:07,000
♪

4
00:00:08,000 --> 00:00:09,000
<font color="#ff0000">مرحبا</font> 你好
"""

MARKDOWN = """---
title: The Old House
lang: en
---

# The *Old* House

It was **dark and _stormy_** with [a link](http://example.com "t"), `code *x*`,
a [reference][ref], a [shortcut] and an ![image](whale.png) in the line.[^1]

Second *heading*
----------------

> Quoted words
> on two lines

1. First item with a \\* star & snake_case
2. Second\\
   broken item

   with a paragraph

| Name | The *thing* |
|------|-------------|
| a \\| b | `x` words |

كان يا ما **كان**

话说**天下**大势，
分久必合。

```python
not = "translated"
```

<div>left alone</div>

[ref]: http://example.com/ref
[shortcut]: http://example.com/short
[^1]: The note text.
"""

HTML = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Old House</title><style>p { margin: 0 }</style></head>
<body><h1>The <em>Old</em> House</h1>
<p id="p1">It was <b>dark <i>and</i></b> &amp; stormy, see <a href="http://example.com/?a=1&amp;b=2">here</a>.<br>
Next line <img src="w.png" alt="w"> end.</p>
<table><tr><td>Cell one</td><td dir="rtl">كان يا ما كان</td></tr></table>
one<br><br>two
<script>var kept = "a < b";</script>
<p>话说天下</p>
</body></html>
"""

TEXT = """CHAPTER I

It was a dark and stormy night; the rain fell in torrents, except at
occasional intervals, when it was checked by a violent gust of wind
which swept up the streets, rattling along the housetops.

  A verse of four
  short lines that
  are not joined.

كان يا ما كان

话说天下大势，分久必合，合久必分。

* * *

The end of the paragraph stands here and continues to the next line so
that it is wrapped.
"""
