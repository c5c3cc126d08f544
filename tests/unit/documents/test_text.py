"""Plain text for scoring: what is refused, and why."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from edge.documents import read_text
from edge.errors import InputError


def test_text_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo \xe4\xb8\xad\n")
    assert read_text(path) == "one\r\ntwo 中\n"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n\t\n", "only white space"),
        (b"abc\0def", "binary (NUL at byte 3)"),
        (b"abc\xffdef", "not UTF-8 at byte 3 (0xff)"),
        (b"\xef\xbb\xbfabc\xc3", "not UTF-8 at byte 6"),
        ("\ufeffabc".encode("utf-16-le"), "UTF-16"),
        (b"x" * 101, "larger than 100 B"),
    ],
)
def test_bad_texts_are_refused(tmp_path: Path, data: bytes, line: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=line.replace("(", r"\(").replace(")", r"\)")):
        read_text(path, limit=100)


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    for path, line in (
        (tmp_path / "none", "no such file"),
        (tmp_path, "is a folder"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(InputError, match=line):
            read_text(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        read_text(path)


def test_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO("\ufeffwords from a pipe".encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    assert read_text("-") == "words from a pipe"
    Stdin.buffer = io.BytesIO(b"a\0b")
    with pytest.raises(InputError, match="standard input is binary"):
        read_text("-")
