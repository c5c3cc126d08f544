"""What every format gives: units in reading order, and the same document with some of them translated.

Owns: `Unit`, `Document`, the checks before anything is written.
Does not know: any format; who translates.
Units: a unit is one paragraph, heading, cell, caption, note or cue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from ..errors import InputError
from . import files
from .inline import Inline, names

Kind = Literal["paragraph", "heading", "item", "cell", "caption", "footnote", "cue", "toc", "title", "margin"]

_RIGHT_TO_LEFT = names("ar arc ckb dv fa he iw ks nqo ps sd syr ug ur yi")
_SOFT_HYPHEN = "\u00ad"
_CHINESE_JAPANESE_KOREAN = names("zh ja ko yue wuu cmn")


@dataclass(frozen=True)
class Unit:
    """One piece of text that gets exactly one translation.

    Attributes:
        id: the same in every reading of the same file.
        text: one line, its inline markup as placeholders, without soft hyphens.
        placeholders: those of `text`, in its order.
        kind: what the piece is in its document ('margin': a header or footer).
        chapter: index of the chapter; 0 before the first heading.
    """

    id: str
    text: str
    placeholders: tuple[str, ...] = ()
    kind: Kind = "paragraph"
    chapter: int = 0


@dataclass(frozen=True)
class Edition:
    """What is to be written: translations by unit id, the new language tag, source kept beside or not."""

    translations: Mapping[str, str]
    language: str | None = None
    bilingual: bool = False

    def get(self, unit: Unit) -> str | None:
        """The translation of a unit; None where there is none or it is blank."""
        text = self.translations.get(unit.id)
        return text if text and text.strip() else None

    @property
    def right_to_left(self) -> bool | None:
        """Whether the new language is written from right to left; None without a language."""
        return None if self.language is None else is_right_to_left(self.language)


def is_right_to_left(language: str) -> bool:
    """Whether a language tag (BCP 47) names a right-to-left language or script."""
    parts = language.lower().replace("_", "-").split("-")
    scripts = [part for part in parts[1:] if len(part) == 4 and part.isalpha()]
    return scripts[0] in ("arab", "hebr", "thaa", "nkoo", "syrc") if scripts else parts[0] in _RIGHT_TO_LEFT


def is_east_asian(language: str) -> bool:
    """Whether a language tag names Chinese, Japanese or Korean."""
    return language.lower().replace("_", "-").split("-")[0] in _CHINESE_JAPANESE_KOREAN


class Numbering:
    """Hands out unit ids and chapter indices in reading order."""

    def __init__(self) -> None:
        self.units: list[Unit] = []
        self.chapter = 0

    def add(self, inline: Inline, kind: Kind, *, opens_chapter: bool = False) -> Unit:
        """The next unit; a heading that opens a chapter raises the chapter index.

        Soft hyphens are of the page that a text was set for, and parts of words to whoever translates them: they stay
        in the source alone, which is written from what `inline` holds.
        """
        self.chapter += opens_chapter
        text = inline.text.replace(_SOFT_HYPHEN, "").strip()
        unit = Unit(f"u{len(self.units):06d}", text, inline.placeholders, kind, self.chapter)
        self.units.append(unit)
        return unit


class Document(ABC):
    """A document that was read; nothing of it is ever changed, `write` makes a new file each time.

    Attributes:
        path: where it was read from.
        language: its own language tag, where it has one.
        units: all pieces to translate, in reading order.
        notes: what the user should know of the file: what is missing or was mended, one line each.
    """

    format: ClassVar[str]
    first_chapter: ClassVar[int] = 0  # what people call the chapter of index 0
    notes: tuple[str, ...] = ()

    def __init__(self, path: Path, units: Iterable[Unit], language: str | None = None) -> None:
        self.path = path
        self.units: tuple[Unit, ...] = tuple(units)
        self.language = language or None

    def write(
        self,
        path: str | Path,
        translations: Mapping[str, str],
        *,
        language: str | None = None,
        bilingual: bool = False,
    ) -> None:
        """The document with the given translations, in its own format; can be called at any moment, for any part.

        Units without a translation (or with a blank one) keep the source text. Placeholders that do not fit
        are repaired (`placeholders.restore`), so that nothing but formatting can be lost. The file appears
        whole or not at all.

        Args:
            path: the new file; never the source itself.
            translations: unit id -> translated text with its placeholders.
            language: BCP 47 tag of the translation, for the document's language tag; None leaves the tag.
            bilingual: each source text is followed by its translation.

        Raises:
            InputError: a translation for a unit that the document does not have, or `path` is the source file.
            StorageError: the file cannot be written.
        """
        target = Path(path)
        known = {unit.id for unit in self.units}
        unknown = sorted(id for id in translations if id not in known)
        if unknown:
            raise InputError(
                f"a translation for unit '{unknown[0]}', which {self.path} does not have",
                f"ids of its {len(known)} units",
                "give the translations of this document",
            )
        if files.same_file(self.path, target):
            raise InputError(f"{target} is the source document itself", "another file", "name another output file")
        edition = Edition(dict(translations), language, bilingual)
        files.atomic_write(target, lambda stream: self._render(stream, edition))

    @abstractmethod
    def _render(self, stream: BinaryIO, edition: Edition) -> None:
        """Writes the edition into `stream`."""
