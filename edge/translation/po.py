"""PO files of gettext: pairs in and out.

Owns: the syntax of PO, which of its entries are translated, the review as such a file.
Does not know: what the pairs are for, other formats.
Units: lines count from 1.

In a review `msgctxt` is the unit's id, an extracted comment holds the fingerprint that tells whether it was edited, and
drafts are `fuzzy`: an editor takes that away where a translation is confirmed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..documents import files
from ..errors import InputError
from ..records import UnitTranslated
from . import languages, reviewing
from .languages import Language
from .reviewing import Entry

_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t", "r": "\r", "v": "\v", "f": "\f", "b": "\b", "a": "\a"}
# \a stays as it is: not every library knows it
_WRITTEN = {char: f"\\{letter}" for letter, char in _ESCAPES.items() if letter != "a"}
_BYTE = r"\\(?:[0-7]{1,3}|x[0-9A-Fa-f]{2})"
_ESCAPED = re.compile(rf"((?:{_BYTE})+)|\\(.)", re.DOTALL)
_STRING = r'"(?:[^"\\]|\\.)*"'
_LINE = re.compile(rf"(?:(msgctxt|msgid_plural|msgid|msgstr(?:\[\d{{1,3}}\])?)\s*)?((?:{_STRING}\s*)+)")
_STRINGS = re.compile(_STRING)
_OBSOLETE = re.compile(r"^[ \t]*#~", re.MULTILINE)
_CHARSET = re.compile(rb"charset=([\w:-]{1,40})", re.IGNORECASE)
_LANGUAGE = re.compile(r"^(X-Source-Language|Language):[ \t]*(\S+)", re.MULTILINE | re.IGNORECASE)


class _Message:
    """One entry as it stands in a file."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self.fuzzy = False
        self.check = ""

    def text(self, field: str) -> str:
        """A field's strings, joined."""
        return "".join(self.fields.get(field, []))

    @property
    def translation(self) -> str:
        """Its translation; of one with plurals the first."""
        return self.text("msgstr") or self.text("msgstr[0]")


def entries(path: Path, source: Language, target: Language) -> list[Entry]:
    """The entries of a file, its head and obsolete ones aside.

    Raises:
        InputError: it cannot be read, is malformed (the line is named), or its head names other languages.
    """
    named = tags(path)
    for tag, asked in zip(named, (source, target), strict=True):
        if tag and not languages.closeness(tag, asked.tag):
            raise InputError(
                f"{path} is from '{named[0] or '?'}' to '{named[1] or '?'}'",
                f"from '{source.tag}' to '{target.tag}'",
                "name a file of these languages, or check --from and --to",
            )
    return list(_entries(path))


def reviewed(path: Path) -> list[Entry]:
    """The rows of a review, in whatever languages; none where the file is no review.

    Raises:
        InputError: it cannot be read, or is malformed.
    """
    return [entry for entry in _entries(path) if entry.check]


def is_review(path: Path) -> bool:
    """Whether its rows have fingerprints; true where it has no rows, not even obsolete ones.

    Raises:
        InputError: it cannot be read, or is malformed.
    """
    found = list(_entries(path))
    return any(entry.check for entry in found) or not (found or _OBSOLETE.search(_text(path)[0]))


def tags(path: Path) -> tuple[str, str]:
    """The languages that its head names, as (source, target); empty where it does not.

    Raises:
        InputError: it cannot be read, or is malformed.
    """
    head = next((m.translation for m in _messages(path) if not m.text("msgid") and "msgctxt" not in m.fields), "")
    found = {name.lower(): tag for name, tag in _LANGUAGE.findall(head)}
    return found.get("x-source-language", ""), found.get("language", "")


def _entries(path: Path) -> Iterator[Entry]:
    for message in _messages(path):
        source = message.text("msgid")
        if source:
            id = message.text("msgctxt") if message.check else ""
            yield Entry(source, message.translation, id, message.check, not message.fuzzy)


def _messages(path: Path) -> Iterator[_Message]:
    message = _Message()
    field = ""
    text, charset = _text(path)
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = line.strip(" \t")
        if not line:
            continue
        if line.startswith("#"):
            if field.startswith("msgstr"):
                yield message
                message = _Message()
                field = ""
            if line.startswith("#~"):
                if not field:
                    message = _Message()  # what stood before was said of the obsolete entry
                continue
            message.fuzzy |= line.startswith("#,") and "fuzzy" in re.split(r"[,\s]+", line[2:])
            if line.startswith("#.") and (found := reviewing.CHECK.search(line)):
                message.check = found[1]
            continue
        match = _LINE.fullmatch(line)
        if not match or not (match[1] or field):
            raise InputError(
                f"{path} line {number} is no line of a PO file", 'msgid "..." or msgstr "..."', "repair it"
            )
        if match[1]:
            if field.startswith("msgstr") and match[1] in ("msgctxt", "msgid"):
                yield message
                message = _Message()
            field = match[1]
        strings = (string[1:-1] for string in _STRINGS.findall(match[2]))
        message.fields.setdefault(field, []).extend(_unescaped(string, charset) for string in strings)
    if field.startswith("msgstr"):
        yield message


def _text(path: Path) -> tuple[str, str]:
    """The file in the encoding that its head names, and that encoding."""
    data = files.read_bytes(path, files.MARKUP_LIMIT, text=True)
    named = _CHARSET.search(data)
    charset = named[1].decode("ascii") if named else "utf-8"
    if charset.lower() in ("utf-8", "utf8", "us-ascii", "ascii", "charset"):
        return files.decode(data, str(path)), "utf-8"
    try:
        return data.decode(charset), charset
    except (LookupError, UnicodeError, ValueError) as error:
        raise InputError(f"{path} is not readable as {charset}", "text in the charset that it names", "") from error


def _unescaped(string: str, charset: str) -> str:
    """What stands between quotes; numbers are bytes of the file's encoding."""

    def said(match: re.Match[str]) -> str:
        if not match[1]:
            return _ESCAPES.get(match[2], match[2])
        numbers = (code[1:] for code in re.findall(_BYTE, match[1]))
        values = (int(code[1:], 16) if code[0] == "x" else int(code, 8) & 0xFF for code in numbers)
        return bytes(values).decode(charset, "replace")

    return _ESCAPED.sub(said, string)


# --- writing ---


def write(rows: Iterable[UnitTranslated], source: Language, target: Language) -> str:
    """The text of a review."""
    head = (
        "MIME-Version: 1.0\n",
        "Content-Type: text/plain; charset=UTF-8\n",
        "Content-Transfer-Encoding: 8bit\n",
        f"Language: {target.tag.replace('-', '_')}\n",
        f"X-Source-Language: {source.tag.replace('-', '_')}\n",
        "X-Generator: templora\n",
    )
    parts = ['msgid ""\nmsgstr ""\n' + "".join(f"{_quoted(line)}\n" for line in head)]
    for row in rows:
        lines = [f"#. {row.status}; templora check {reviewing.check(row.text)}"]
        lines += [f"#. {' '.join(problem.split())}" for problem in row.problems if row.status == "marked"]
        if row.status not in reviewing.CONFIRMED:
            lines.append("#, fuzzy")
        lines += [f"msgctxt {_quoted(row.id)}", f"msgid {_quoted(row.source)}", f"msgstr {_quoted(row.text)}"]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _quoted(text: str) -> str:
    return '"' + "".join(_WRITTEN.get(char, char) for char in text) + '"'
