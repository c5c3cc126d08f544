"""XLIFF 1.2 and 2.0: pairs in and out, as tools of translators exchange them.

Owns: which units of a file are translated, its inline codes, the review as such a file.
Does not know: what the pairs are for, paths' other formats.
Units: units of a file; a unit is one line of a book.

In a review each placeholder is an inline code: ⟦1⟧ … ⟦/1⟧ is <g id="1"> (1.2) or <pc id="1"> (2.0), ⟦2/⟧ is <x/> or
<ph/>. In files of other tools codes are no text, and left out. A note of each unit holds the fingerprint that tells
whether it was edited. Drafts are `needs-review-translation` (1.2) or `initial` (2.0), corrections `final`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lxml import etree

from ..documents import files, placeholders, xml
from ..errors import InputError
from ..records import UnitTranslated
from . import languages, reviewing
from .languages import Language
from .reviewing import Entry

_V1 = "urn:oasis:names:tc:xliff:document:1.2"
_V2 = "urn:oasis:names:tc:xliff:document:2.0"
_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_LANG = "{http://www.w3.org/XML/1998/namespace}lang"
# states in which a translation is none yet, of 1.2 and of 2.0
_UNTRANSLATED = frozenset(("new", "needs-translation", "needs-adaptation", "needs-l10n", "initial"))
_CONFIRMED = frozenset(("translated", "reviewed", "signed-off", "final"))
_PAIRS = frozenset(("g", "pc"))
_OPEN = frozenset(("bx", "sc"))
_CLOSE = frozenset(("ex", "ec"))
_VOID = frozenset(("x", "ph"))
# codes around which the words stand; what is in them is of the file's own format: <bpt>&lt;b&gt;</bpt>
CODES = frozenset(("bpt", "ept", "ph", "it", "ut", "x", "bx", "ex", "sc", "ec", "cp"))
_NO_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff\\ufffe\\uffff]")


def tree(path: Path, name: str) -> Any:
    """The root element of an XML file whose root is called `name`.

    Raises:
        InputError: it cannot be read, is malformed, declares entities, or is another kind of file.
    """
    root = xml.parse(files.read_bytes(path, files.MARKUP_LIMIT), str(path))
    declared = root.getroottree().docinfo.internalDTD
    if declared is not None and any(True for _ in declared.iterentities()):
        raise InputError(f"{path} declares entities", "a file without them", "export it again without a DTD of its own")
    if xml.local_name(root) != name:
        raise InputError(f"{path} holds <{xml.local_name(root)}>", f"<{name}>", "check the file")
    return root


def elements(root: Any, name: str) -> Iterator[Any]:
    """The elements of a name, in any namespace."""
    return (element for element in root.iter() if xml.local_name(element) == name)


def words(element: Any) -> str:
    """An element's words; codes of the file's own format (TMX, XLIFF 1.2) are none, subflows in them neither."""
    return " ".join("".join(_words(element)).split())


def _words(element: Any) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        name = xml.local_name(child)
        if name and name not in CODES:
            yield from _words(child)
        elif name and (child.get("ctype") or child.get("type")) == "lb":  # a line break
            yield " "
        yield child.tail or ""


# --- reading ---


def entries(path: Path, source: Language, target: Language) -> list[Entry]:
    """All units of a file that are in these languages.

    Raises:
        InputError: as `tree`, or no part of the file is in these languages.
    """
    found: list[Entry] = []
    others: list[tuple[str, str]] = []
    root = tree(path, "xliff")
    for part, tags in _parts(root):
        if all(
            not tag or languages.closeness(tag, asked.tag) for tag, asked in zip(tags, (source, target), strict=True)
        ):
            found += _of_part(part)
        else:
            others.append(tags)
    if others and not found:
        raise InputError(
            f"{path} is from '{others[0][0] or '?'}' to '{others[0][1] or '?'}'",
            f"from '{source.tag}' to '{target.tag}'",
            "name a file of these languages, or check --from and --to",
        )
    return found


def reviewed(path: Path) -> list[Entry]:
    """The units of a review, in whatever languages; none where the file is no review.

    Raises:
        InputError: as `tree`.
    """
    return [entry for entry in _of_part(tree(path, "xliff")) if entry.check]


def is_review(path: Path) -> bool:
    """Whether its units have fingerprints; true where it has no units, not even such as are not to be translated.

    Raises:
        InputError: as `tree`.
    """
    root = tree(path, "xliff")
    if any(reviewing.CHECK.search(note.text or "") for note in elements(root, "note")):
        return True
    return not any(True for name in ("trans-unit", "unit", "segment") for _ in elements(root, name))


def tags(path: Path) -> list[tuple[str, str]]:
    """The languages that the parts of a file say they are in, as (source, target).

    Raises:
        InputError: as `tree`.
    """
    return [named for _, named in _parts(tree(path, "xliff"))]


def _parts(root: Any) -> Iterator[tuple[Any, tuple[str, str]]]:
    """The <file> elements with their languages: 1.2 has them there, 2.0 at the root."""
    for part in list(elements(root, "file")) or [root]:
        source = part.get("source-language") or root.get("srcLang") or root.get("source-language") or ""
        target = part.get("target-language") or root.get("trgLang") or root.get("target-language") or ""
        if not target:
            target = next((e.get(_LANG) for e in elements(part, "target") if e.get(_LANG)), "")
        yield part, (source, target)


def _of_part(part: Any) -> Iterator[Entry]:
    for unit in part.iter():
        name = xml.local_name(unit)
        alone = name == "segment" and xml.local_name(unit.getparent()) != "unit"
        if not (alone or name in ("trans-unit", "unit")) or _kept_out(unit):
            continue
        note = next((m[1] for e in elements(unit, "note") if (m := reviewing.CHECK.search(e.text or ""))), "")
        holders = [unit] if alone or name == "trans-unit" else list(elements(unit, "segment"))
        if note:
            yield _of_review(unit, holders, note)
        else:
            yield from (_of_holder(unit, holder) for holder in holders)


def _kept_out(unit: Any) -> bool:
    """Whether it, or what it is in, is not to be translated."""
    around = (unit, *unit.iterancestors())
    return next((e.get("translate") for e in around if e.get("translate")), "yes") == "no"


def _of_holder(unit: Any, holder: Any) -> Entry:
    """A pair of another tool."""
    source, target, state = _sides(holder)
    texts = ["" if side is None else words(side) for side in (source, target)]
    confirmed = state not in _UNTRANSLATED or unit.get("approved") == "yes"
    return Entry(texts[0], texts[1], confirmed=confirmed)


def _of_review(unit: Any, holders: Sequence[Any], check: str) -> Entry:
    """A row of our own; a tool may have cut it into segments."""
    found = [_sides(holder) for holder in holders]
    between = [e for e in unit.iter() if xml.local_name(e) in ("segment", "ignorable")] or [unit]
    texts = []
    for place in (0, 1):
        sides = [_sides(holder)[place] for holder in between]
        texts.append("".join(_marked(side) for side in sides if side is not None))
    states = {state for _, _, state in found}
    confirmed = unit.get("approved") == "yes" or bool(states and states <= _CONFIRMED)
    return Entry(texts[0], texts[1], unit.get("resname") or unit.get("name") or unit.get("id") or "", check, confirmed)


def _sides(holder: Any) -> tuple[Any, Any, str]:
    """Its source and target elements, and the state of the translation."""
    found = {xml.local_name(e): e for e in reversed(holder) if xml.local_name(e) in ("source", "target")}
    target = found.get("target")
    state = (target.get("state") if target is not None else None) or holder.get("state") or ""
    return found.get("source"), target, state


def _marked(element: Any) -> str:
    """An element's text with its codes as placeholders."""
    parts = [element.text or ""]
    for child in element:
        name = xml.local_name(child)
        number = child.get("startRef") or child.get("rid") or child.get("id") or ""
        shown = _character(child)
        if shown:
            parts.append(shown)
        elif name in _PAIRS and number:
            parts.append(f"⟦{number}⟧{_marked(child)}⟦/{number}⟧")
        elif name in _OPEN | _CLOSE | _VOID and number:
            parts.append(f"⟦{'/' if name in _CLOSE else ''}{number}{'/' if name in _VOID else ''}⟧")
        elif name and name not in CODES:
            parts.append(_marked(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _character(element: Any) -> str:
    """The character that a code stands for because XML has none for it."""
    code = element.get("hex") or (element.get("ctype") or "").removeprefix("x-cp-")
    named = xml.local_name(element) == "cp" or (element.get("ctype") or "").startswith("x-cp-")
    return chr(int(code, 16)) if named and re.fullmatch(r"[0-9A-Fa-f]{2,5}", code) else ""


# --- writing ---


def write(rows: Iterable[UnitTranslated], source: Language, target: Language, *, version: str) -> str:
    """The text of a review; `version`: 1.2 or 2.0."""
    first = version == "1.2"
    space = _V1 if first else _V2
    root = etree.Element(f"{{{space}}}xliff", nsmap={None: space}, version=version)
    part = etree.SubElement(root, f"{{{space}}}file")
    holder = part
    if first:
        part.set("original", "book")
        part.set("datatype", "plaintext")
        part.set("source-language", source.tag)
        part.set("target-language", target.tag)
        holder = etree.SubElement(part, f"{{{space}}}body")
    else:
        root.set("srcLang", source.tag)
        root.set("trgLang", target.tag)
        part.set("id", "book")
    for number, row in enumerate(rows, 1):
        (_unit_1 if first else _unit_2)(holder, space, number, row)
    text = etree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _unit_1(body: Any, space: str, number: int, row: UnitTranslated) -> None:
    unit = etree.SubElement(body, f"{{{space}}}trans-unit", id=str(number), resname=row.id)
    unit.set(_SPACE, "preserve")
    _fill(etree.SubElement(unit, f"{{{space}}}source"), row.source, "1.2")
    target = etree.SubElement(unit, f"{{{space}}}target")
    if row.status in reviewing.CONFIRMED:
        unit.set("approved", "yes")
        target.set("state", "final")
    else:
        target.set("state", "needs-review-translation" if row.text else "needs-translation")
    _fill(target, row.text, "1.2")
    etree.SubElement(unit, f"{{{space}}}note").text = _note(row)
    unit.tail = "\n"


def _unit_2(part: Any, space: str, number: int, row: UnitTranslated) -> None:
    unit = etree.SubElement(part, f"{{{space}}}unit", id=str(number), name=row.id)
    unit.set(_SPACE, "preserve")
    notes = etree.SubElement(unit, f"{{{space}}}notes")
    etree.SubElement(notes, f"{{{space}}}note").text = _note(row)
    state = "final" if row.status in reviewing.CONFIRMED else "initial"
    segment = etree.SubElement(unit, f"{{{space}}}segment", state=state)
    _fill(etree.SubElement(segment, f"{{{space}}}source"), row.source, "2.0")
    _fill(etree.SubElement(segment, f"{{{space}}}target"), row.text, "2.0")
    unit.tail = "\n"


def _note(row: UnitTranslated) -> str:
    problems = f"; {'; '.join(row.problems)}" if row.status == "marked" and row.problems else ""
    return _NO_XML.sub("", f"{row.status}{problems}; templora check {reviewing.check(row.text)}")


def _fill(element: Any, text: str, version: str) -> None:
    """Puts a text with placeholders into an element, with codes for them."""
    space = str(element.tag).partition("}")[0] + "}"
    pairs = not placeholders.check(text, text)  # marks that do not nest become codes of one piece each
    inside = [element]

    def say(words: str) -> None:
        last = inside[-1][-1] if len(inside[-1]) else None
        if last is None:
            inside[-1].text = (inside[-1].text or "") + words
        else:
            last.tail = (last.tail or "") + words

    def code(name: str, **attributes: str) -> Any:
        return etree.SubElement(inside[-1], space + name, attributes)

    def put(words: str) -> None:
        at = 0
        for match in _NO_XML.finditer(words):
            say(words[at : match.start()])
            point = f"{ord(match[0]):04X}"
            if version == "1.2":
                code("x", id=f"cp{point}", ctype=f"x-cp-{point}")
            else:
                code("cp", hex=point)
            at = match.end()
        say(words[at:])

    at = 0
    for mark in placeholders.marks(text):
        put(text[at : mark.start])
        number = str(mark.number)
        if mark.shape == "void":
            code("x" if version == "1.2" else "ph", id=number)
        elif not pairs:
            names = {"open": ("bx", "sc"), "close": ("ex", "ec")}[mark.shape]
            code(names[0], id=number) if version == "1.2" else code(names[1], id=number, isolated="yes")
        elif mark.shape == "open":
            inside.append(code("g" if version == "1.2" else "pc", id=number))
        else:
            inside.pop()
        at = mark.end
    put(text[at:])
