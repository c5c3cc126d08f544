"""Word's runs as an inline tree, and a tree as runs.

Owns: which runs belong together, what is kept as it is, how text becomes runs again.
Does not know: parts, styles, the archive; language and direction (`docx_language.py`).
Units: a run is a stretch of text with one format (ECMA-376 part 1, 17.3.2).

The format that most of a paragraph's letters have is its base: such text needs no placeholder. The words of a ruby are
text like any other; its reading is for readers of the source alone, and of it only what the document refers to stays.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lxml import etree

from .inline import Leaf, Node, Pair, Text

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_SPACE = "{http://www.w3.org/XML/1998/namespace}space"


def w(name: str) -> str:
    """A WordprocessingML name with its namespace."""
    return f"{{{W}}}{name}"


def names(text: str) -> frozenset[str]:
    """WordprocessingML names with their namespace: the words of a text."""
    return frozenset(w(name) for name in text.split())


_WRAPPERS = names("hyperlink ins moveTo smartTag customXml fldSimple dir bdo")
_IGNORED = names("proofErr lastRenderedPageBreak")
_NOT_FORMAT = names("lang noProof")
_DEEPEST = 30  # fields in fields; the text of deeper ones stands between their marks as things
_HYPHENS = {w("noBreakHyphen"): "\u2011", w("softHyphen"): "\u00ad"}
_TEXT = frozenset((w("t"), *_HYPHENS))
_SPLIT = _TEXT | {w("ruby")}  # what stands in a run of its own
_REFERRED = names("bookmarkStart bookmarkEnd commentRangeStart commentRangeEnd")
_REFERENCES = names("footnoteReference endnoteReference commentReference")
_REPEATED = names("t br tab cr sym noBreakHyphen rPr")


@dataclass(frozen=True, eq=False)
class _Format:
    """Runs of one format other than the base's."""

    properties: etree._Element | None


@dataclass(frozen=True, eq=False)
class _Wrapper:
    """An element around runs: a hyperlink, a tracked insertion, a content control."""

    element: etree._Element
    base: etree._Element | None


@dataclass(frozen=True, eq=False)
class _Field:
    """A complex field: its instruction, its result as children, its end."""

    opened: tuple[etree._Element, ...]
    closed: etree._Element


@dataclass(frozen=True, eq=False)
class _Atom:
    """Part of a paragraph, in reading order: text or a thing, with the format of its run."""

    text: str | None
    element: etree._Element | None
    properties: etree._Element | None
    key: bytes


# --- reading ---


def count(paragraph: etree._Element) -> int:
    """How many texts and things a paragraph or wrapper holds, those of its wrappers too."""
    total = 0
    for child in _holder(paragraph):
        if child.tag == w("r"):
            total += sum(part.tag != w("rPr") for part in child)
            total += sum(count(part) for ruby in child.iterchildren(w("ruby")) for part in ruby)
        else:
            total += count(child) if _is_wrapper(child) else 1
    return total


def nodes(paragraph: etree._Element) -> list[Node]:
    """The inline tree of a paragraph or wrapper; its leaves and pairs refer to the paragraph's own elements."""
    holder = _holder(paragraph)
    _split_runs(holder)
    atoms = list(_atoms(holder))
    return _fields(atoms, _base_key(atoms))


def base(paragraph: etree._Element) -> etree._Element | None:
    """The format (w:rPr) that most letters of a paragraph have."""
    atoms = list(_atoms(_holder(paragraph)))
    key = _base_key(atoms)
    return next((atom.properties for atom in atoms if atom.text and atom.key == key), None)


def has_ruby(paragraph: etree._Element) -> bool:
    """Whether there are words with a reading in a paragraph."""
    return next(paragraph.iter(w("ruby")), None) is not None


def is_repeated(leaf: Leaf) -> bool:
    """Whether a thing may stand in a second copy of its paragraph: breaks and tabs, not images or notes."""
    element = leaf.source
    return isinstance(element, etree._Element) and element.tag == w("r") and all(c.tag in _REPEATED for c in element)


def copied(content: Sequence[Node]) -> list[Node]:
    """The same tree with copies of the paragraph's own elements."""
    return [node if isinstance(node, Text) or _is_literal(node) else copy.deepcopy(node) for node in content]


def _is_literal(node: Node) -> bool:
    return isinstance(node, Leaf) and isinstance(node.source, str)


def _holder(element: etree._Element) -> etree._Element:
    content = element.find(w("sdtContent"))
    return content if element.tag == w("sdt") and content is not None else element


def _atoms(holder: etree._Element) -> Iterator[_Atom]:
    for child in holder:
        if child.tag == w("pPr") or child.tag in _IGNORED:
            continue
        if child.tag == w("r"):
            yield from _run_atoms(child)
        else:
            yield _Atom(None, child, None, b"")


def _run_atoms(run: etree._Element) -> Iterator[_Atom]:
    properties = run.find(w("rPr"))
    key = _format_key(properties)
    parts = _parts(run)
    if all(child.tag in _TEXT for child in parts):
        for child in parts:
            text = (child.text or "") if child.tag == w("t") else _HYPHENS[child.tag]
            yield _Atom(text, None, properties, key)
    elif parts[0].tag == w("ruby"):  # alone in its run
        yield from _ruby_atoms(parts[0])
    else:
        yield _Atom(None, run, properties, key)


def _ruby_atoms(ruby: etree._Element) -> Iterator[_Atom]:
    """The words of a ruby, and of its reading only what is referred to and the marks of notes."""
    readings = ruby.findall(w("rt"))
    for element in (inner for reading in readings for inner in reading.iter(*_REFERRED)):
        yield _Atom(None, element, None, b"")
    for words in ruby.findall(w("rubyBase")):
        yield from _atoms(words)
    for run in (inner for reading in readings for inner in reading.iter(w("r"))):
        if any(child.tag in _REFERENCES for child in run):
            yield _Atom(None, run, None, b"")


def _parts(run: etree._Element) -> list[etree._Element]:
    return [child for child in run if child.tag != w("rPr") and child.tag not in _IGNORED]


def _split_runs(holder: etree._Element) -> None:
    """Gives each thing that shares a run with text a run of its own, of the same format."""
    for run in holder.findall(w("r")):
        parts = _parts(run)
        for part in (part for ruby in run.iterchildren(w("ruby")) for part in ruby):
            _split_runs(part)
        if all(child.tag in _TEXT for child in parts) or not any(child.tag in _SPLIT for child in parts):
            continue
        properties = run.find(w("rPr"))
        last = run
        for part in parts[1:]:
            single = run.makeelement(run.tag, run.attrib)
            if properties is not None:
                single.append(copy.deepcopy(properties))
            last.addnext(single)
            single.append(part)
            last = single


def _format_key(properties: etree._Element | None) -> bytes:
    if properties is None:
        return b""
    pieces = []
    for child in properties:
        if child.tag in _NOT_FORMAT:
            continue
        attributes = sorted((str(k), str(v)) for k, v in child.attrib.items() if k != w("hint"))
        if attributes or child.tag != w("rFonts"):
            pieces.append(repr((str(child.tag), attributes, len(child))).encode())
    return b"\n".join(sorted(pieces))


def _base_key(atoms: Sequence[_Atom]) -> bytes:
    letters: Counter[bytes] = Counter()
    for atom in atoms:
        if atom.text:
            letters[atom.key] += sum(map(str.isalpha, atom.text))
    return max(letters, key=lambda key: letters[key]) if letters else b""


class _Fields:
    """Complex fields of a paragraph: for each beginning where it ends, and where its
    result begins; found in one pass.
    """

    def __init__(self, atoms: list[_Atom]) -> None:
        self.ends: dict[int, int] = {}
        self.separators: dict[int, int] = {}
        opened: list[int] = []
        for at, atom in enumerate(atoms):
            kind = _field_kind(atom)
            if kind == "begin":
                opened.append(at)
            elif kind == "separate" and opened:
                self.separators.setdefault(opened[-1], at)
            elif kind == "end" and opened:
                self.ends[opened.pop()] = at


def _fields(atoms: list[_Atom], base_key: bytes) -> list[Node]:
    """The nodes of atoms, complex fields as pairs; a field that goes beyond the paragraph is kept as things."""
    return _between(atoms, _Fields(atoms), (0, len(atoms)), base_key, 0)


def _between(atoms: list[_Atom], fields: _Fields, span: tuple[int, int], base_key: bytes, depth: int) -> list[Node]:
    if depth > _DEEPEST:
        return _formatted(atoms[span[0] : span[1]], base_key)
    result: list[Node] = []
    at = first = span[0]
    while at < span[1]:
        end = fields.ends.get(at)
        if end is None:
            at += 1
            continue
        result += _formatted(atoms[first:at], base_key)
        result.append(_field(atoms, fields, at, base_key, depth))
        at = first = end + 1
    return result + _formatted(atoms[first : span[1]], base_key)


def _field(atoms: list[_Atom], fields: _Fields, begin: int, base_key: bytes, depth: int) -> Node:
    """A field as a pair around its result; what has none to translate, as a pair of things."""
    end = fields.ends[begin]
    separator = fields.separators.get(begin)
    if separator is not None:
        opened = tuple(part.element for part in atoms[begin : separator + 1] if part.element is not None)
        closed = atoms[end].element
        assert closed is not None
        if len(opened) == separator + 1 - begin:
            inner = _between(atoms, fields, (separator + 1, end), base_key, depth + 1)
            return Pair(_Field(opened, closed), tuple(inner))
    children = [
        Leaf(atom.element) if atom.element is not None else Leaf(_run(atom.text or "", atom.properties))
        for atom in atoms[begin : end + 1]
    ]
    return Pair(_Format(None), tuple(children))


def _field_kind(atom: _Atom) -> str | None:
    mark = atom.element.find(w("fldChar")) if atom.element is not None and atom.element.tag == w("r") else None
    return mark.get(w("fldCharType")) if mark is not None else None


def _formatted(atoms: Sequence[_Atom], base_key: bytes) -> list[Node]:
    result: list[Node] = []
    at = 0
    while at < len(atoms):
        atom = atoms[at]
        if atom.element is not None:
            result.append(_thing(atom.element))
            at += 1
            continue
        end = at
        while end < len(atoms) and atoms[end].text is not None and atoms[end].key == atom.key:
            end += 1
        text = "".join(part.text or "" for part in atoms[at:end])
        if atom.key == base_key or (not text.strip() and b"}u'" not in atom.key):
            result.append(Text(text))
        else:
            result.append(Pair(_Format(atom.properties), (Text(text),)))
        at = end
    return result


def _is_wrapper(element: etree._Element) -> bool:
    is_control = element.tag == w("sdt") and element.find(w("sdtContent")) is not None
    return element.tag in _WRAPPERS or is_control


def _thing(element: etree._Element) -> Node:
    if not _is_wrapper(element):
        return Leaf(element)
    return Pair(_Wrapper(element, base(element)), tuple(nodes(element)))


# --- writing ---


def place(paragraph: etree._Element, content: Sequence[Node], base_format: etree._Element | None) -> None:
    """Replaces the runs of a paragraph by those of a tree."""
    _replace(paragraph, _written(content, base_format))


def put_before(paragraph: etree._Element, text: str) -> None:
    """Puts a text before those of a paragraph, which stays as it is."""
    properties = paragraph.find(w("pPr"))
    if text:
        paragraph.insert(0 if properties is None else paragraph.index(properties) + 1, _run(text, base(paragraph)))


def _replace(element: etree._Element, written: Sequence[etree._Element]) -> None:
    holder = _holder(element)
    for child in list(holder):
        if child.tag != w("pPr"):
            holder.remove(child)
    for child in written:
        child.tail = None
        holder.append(child)


def _written(content: Sequence[Node], current: etree._Element | None) -> list[etree._Element]:
    written: list[etree._Element] = []
    texts: list[str] = []  # of neighbours: one run, as literal brackets stand in the midst of words
    for node in [*content, None]:
        source = getattr(node, "source", None)
        if isinstance(node, Text) or isinstance(source, str):
            texts.append(node.value if isinstance(node, Text) else str(source))
            continue
        if texts:
            written.append(_run("".join(texts), current))
            texts = []
        if isinstance(node, Leaf) and isinstance(source, etree._Element):
            written.append(source)
        elif isinstance(node, Pair) and isinstance(source, _Format):
            written += _written(node.children, source.properties)
        elif isinstance(node, Pair) and isinstance(source, _Wrapper):
            _replace(source.element, _written(node.children, source.base))
            written.append(source.element)
        elif isinstance(node, Pair) and isinstance(source, _Field):
            written += [*source.opened, *_written(node.children, current), source.closed]
    return written


def _run(text: str, properties: etree._Element | None) -> etree._Element:
    run = etree.Element(w("r"), nsmap={"w": W})
    if properties is not None:
        run.append(copy.deepcopy(properties))
    element = etree.SubElement(run, w("t"))
    element.text = text
    element.set(_SPACE, "preserve")
    return run
