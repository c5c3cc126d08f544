"""Archives are written again without packing again what did not change."""

from __future__ import annotations

import random
import zipfile
import zlib
from pathlib import Path
from typing import Any

import books
import pytest

from edge.commands import outputs
from edge.documents import open_document
from edge.errors import InputError


def test_pictures_are_copied_as_they_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = random.Random(0).randbytes(500_000) * 3
    path = books.make_epub(tmp_path / "a.epub", {"OEBPS/images/whale.png": picture})
    document = open_document(path)
    packed, unpacked, real = [0], [0], (zlib.compressobj, zlib.decompressobj)

    class Counted:
        def __init__(self, inner: Any, total: list[int]) -> None:
            self._inner, self._total = inner, total

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def compress(self, data: bytes) -> bytes:
            self._total[0] += len(data)
            return bytes(self._inner.compress(data))

        def decompress(self, *args: Any) -> bytes:
            made = bytes(self._inner.decompress(*args))
            self._total[0] += len(made)
            return made

    monkeypatch.setattr(zlib, "compressobj", lambda *a: Counted(real[0](*a), packed))
    monkeypatch.setattr(zlib, "decompressobj", lambda *a: Counted(real[1](*a), unpacked))
    document.write(tmp_path / "b.epub", books.translated(document), language="de")
    texts = sum(len(data) for name, data in books.epub_entries().items() if name.endswith(("xhtml", "ncx", "opf")))
    assert 0 < packed[0] < 3 * texts and unpacked[0] > len(picture)  # looked at once, whether it is sound
    unpacked[0] = 0
    document.write(tmp_path / "c.epub", books.translated(document), language="de")
    assert 0 < unpacked[0] < 3 * texts
    monkeypatch.undo()
    assert (tmp_path / "b.epub").read_bytes() == (tmp_path / "c.epub").read_bytes()
    with zipfile.ZipFile(path) as one, zipfile.ZipFile(tmp_path / "c.epub") as other:
        assert other.testzip() is None and other.namelist() == one.namelist()
        assert other.read("OEBPS/images/whale.png") == picture
        sizes = [archive.getinfo("OEBPS/images/whale.png").compress_size for archive in (one, other)]
    assert sizes[0] == sizes[1]
    assert any("CALL ME" in unit.text for unit in open_document(tmp_path / "c.epub").units)


def test_entries_of_streaming_writers_are_copied(tmp_path: Path) -> None:
    """Their sizes stand behind their bytes, not before them, and their extra fields differ."""

    class Stream:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def write(self, data: bytes) -> int:
            return int(self._inner.write(data))

        def flush(self) -> None:
            self._inner.flush()

    with open(tmp_path / "a.epub", "wb") as file, zipfile.ZipFile(Stream(file), "w", zipfile.ZIP_DEFLATED) as out:  # type: ignore[arg-type]
        for name, data in books.epub_entries().items():
            out.writestr(name, data)
    document = open_document(tmp_path / "a.epub")
    document.write(tmp_path / "b.epub", books.translated(document))
    with zipfile.ZipFile(tmp_path / "b.epub") as written:
        assert written.testzip() is None
    assert books.entries_of(tmp_path / "b.epub")["OEBPS/images/whale.png"] == books.png()


def test_a_damaged_picture_is_not_copied(tmp_path: Path) -> None:
    data = bytearray(books.zipped({**books.epub_entries(), "OEBPS/images/whale.png": b"picture " * 1000}))
    data[data.index(b"OEBPS/images/whale.png") + 30] ^= 0xFF
    (tmp_path / "a.epub").write_bytes(data)
    document = open_document(tmp_path / "a.epub")
    with pytest.raises(InputError, match="damaged"):
        document.write(tmp_path / "b.epub", books.translated(document))
    assert not (tmp_path / "b.epub").exists()


@pytest.mark.parametrize("cost", [0.001, 3.0, 30.0])
def test_the_unfinished_book_takes_a_twentieth_of_the_time(cost: float) -> None:
    now, spent = [0.0], [0.0]

    def write() -> None:
        now[0] += cost
        spent[0] += cost

    unfinished = outputs.Unfinished(write, lambda: now[0])
    for number in range(20_000):
        now[0] += 0.25
        unfinished.advance(at_once=number % 20 == 0)
    assert 0 < spent[0] <= 0.05 * now[0] + cost
    if cost < 0.01:
        assert spent[0] / cost == pytest.approx(1000, abs=2)  # after every chunk, where it costs nothing
