"""What cannot be written is refused before anything is read, by every verb, and nothing is left behind; so are empty
names."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from edge import cli
from edge.commands import everything, outputs, writable
from edge.documents import open_document
from tests.e2e.test_overwrite import NEEDED, WRITTEN, cases, options_of, verbs

OUTPUTS = sorted({(verb, output) for verb, _, output in cases()} | {("runs", "out")})
WORDS = {"FILE": "/no/file", "MODEL": "/no/model", "RUN": "/no/run"}  # nothing of it is looked at


def command(verb: str, output: str, value: str, folder: Path) -> list[str]:
    """The verb with one output, and what else it must be given."""
    words = {**WORDS, "OUT": value}
    args = [verb, *(words.get(word, word) for word in NEEDED[verb])]
    args += ["export-adapter", "x"] if verb == "runs" else []
    args += ["--out", str(folder / "other.txt")] if verb == "render" and output != "out" else []
    if "OUT" in NEEDED[verb]:
        return args
    return [*args, {"run_folder": "--run"}.get(output, f"--{output.replace('_', '-')}"), value]


@pytest.mark.parametrize(("verb", "output"), OUTPUTS)
def test_what_cannot_be_written_is_refused_first(
    verb: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    long = "x" * 300
    for value in ("/sys/x", "/proc/self/x/y", *(str(tmp_path / name) for name in ("file/x", "loop/x", long))):
        assert cli.main(command(verb, output, value, tmp_path)) == 8, value
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        assert line.startswith(f"error: cannot write {value[:90]}") and not said.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "loop"]


@pytest.mark.parametrize(
    ("verb", "output"), [("write", "out"), ("render", "out"), ("glossary", "out"), ("runs", "out")]
)
def test_what_cannot_be_replaced_is_refused_first(
    verb: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for value in ("/dev/null", "/dev" if verb != "runs" else "/dev/stdin"):
        assert cli.main(command(verb, output, value, tmp_path)) == 8, value
        (line,) = capsys.readouterr().err.splitlines()
        assert "is a " in line or "Not a directory" in line


@pytest.fixture
def no_rights(tmp_path: Path) -> Path:
    """A folder that this process may not write into; it is nobody while the test runs, since root may all."""
    folder = tmp_path / "shut"
    folder.mkdir()
    (folder / "file").write_text("precious")
    folder.chmod(0o555)
    tmp_path.chmod(0o777)
    for path in tmp_path.parents:
        if path.stat().st_mode & 0o005 != 0o005:
            path.chmod(0o755)  # pytest's own
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can only be had by root")
def test_what_may_not_be_written_is_refused_first(no_rights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(no_rights.parent.rglob("*"))
    parser = everything.parser()
    sticky = no_rights.parent / "sticky"
    sticky.mkdir()
    (sticky / "mine").write_text("precious")
    sticky.chmod(0o1777)
    monkeypatch.setenv("XDG_STATE_HOME", str(no_rights))
    monkeypatch.chdir(no_rights.parent)  # where a translation goes that no --out names
    os.seteuid(65534)
    try:
        for verb, output in OUTPUTS:
            args = parser.parse_args(command(verb, output, str(no_rights / "new" / "x"), no_rights.parent))
            with pytest.raises(writable.StorageError, match=f"cannot write {no_rights}.*: Permission denied"):
                writable.check(args)
        for words in (["score", "x"], ["write", "--prompt", "x"], ["translate", "x", "--from", "en", "--to", "de"]):
            with pytest.raises(writable.StorageError, match=r"templora/runs \(--run\): Permission denied"):
                writable.check(parser.parse_args(words))
            writable.check(parser.parse_args([*words, "--no-run"]))
        args = parser.parse_args(["write", "--prompt", "x", "--no-run", "--out", str(sticky / "mine")])
        with pytest.raises(writable.StorageError, match="Operation not permitted"):
            writable.check(args)
        args.out = sticky / "new"
        writable.check(args)
    finally:
        os.seteuid(0)
    assert sorted(no_rights.parent.rglob("*")) == sorted([*before, sticky, sticky / "mine"])


def test_a_place_is_tried_without_files_that_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # as on a file system that knows none: refused
    args = everything.parser("write").parse_args(
        ["write", "--prompt", "x", "--no-run", "--out", str(tmp_path / "new/x")]
    )
    writable.check(args)
    assert not list(tmp_path.iterdir())


def test_a_document_goes_through_a_link_to_the_file_that_it_names(tmp_path: Path) -> None:
    book = tmp_path / "book.txt"
    link = tmp_path / "link.txt"
    book.write_text("Some text.")
    link.symlink_to(tmp_path / "real.txt")
    args = ["translate", str(book), "--from", "en", "--to", "de", "--out", str(link), "--no-run"]
    writable.check(everything.parser("translate").parse_args(args))
    outputs.Outputs(open_document(book), "de", link, also=link).write([])
    assert link.is_symlink() and (tmp_path / "real.txt").read_text() == "Some text."


def test_a_run_is_not_kept_among_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("Some text.")
    args = ["score", str(tmp_path / "text.txt"), "--run", str(tmp_path), "--model", "/no/model"]
    assert cli.main(args) == 7  # not 4: it is said before the model is looked for
    assert "holds other files (text.txt)" in capsys.readouterr().err


def _named() -> list[tuple[str, str]]:
    """Every argument that names a file, a folder, a run or a model, by verb."""
    text = {"set", "prompt", "action", "names"}
    return [
        (name, dest)
        for name, verb in verbs().items()
        for dest, action in options_of(verb).items()
        if dest not in text and (action.type in (everything.options.path, everything.options.named) or dest in WRITTEN)
    ]


@pytest.mark.parametrize(("verb", "dest"), _named())
def test_an_empty_name_is_none(verb: str, dest: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    action: argparse.Action = options_of(verbs()[verb])[dest]
    words = [str(WORDS.get(word, word)) for word in NEEDED[verb]]
    if action.option_strings:
        args = [
            verb,
            *words,
            *(["--out", "x.html"] if verb == "render" and dest != "out" else []),
            action.option_strings[0],
            "",
        ]
    else:
        at = {"models": [verb, "fetch", ""], "render": [verb, "", "--out", "x.html"]}
        name = {"file": "FILE", "book": "FILE", "model": "MODEL", "out": "OUT", "rendered": "RUN", "name": "NAME"}[dest]
        args = at.get(verb, [verb, *("" if word == name else word for word in NEEDED[verb])])
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "it is empty; expected a name or path" in line
