"""What files and models hold is shown, never obeyed; whatever the terminal, locale or account is, the work is done."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli, journal, terminal
from edge.measure import report
from edge.records import ChunkScore
from tests import tiny
from tests.e2e.test_resume import COMMON

EVIL = "\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e"
CONTROLS = {chr(code) for code in [*range(9), *range(11, 32), *range(127, 160)]} - {"\r"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("terminal") / "model", "qwen3")


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(tiny.TEXT)
    return path


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr()
    assert not CONTROLS & set(said.out + said.err), "a control character reached the terminal"
    return said.out + said.err


# --- what is printed is harmless ---


def test_what_is_printed_is_harmless() -> None:
    assert (
        terminal.harmless("a\tb\r\nc \x1b[31m\x9b\x7f\ud800 \r") == "a\tb\r\nc \\u001b[31m\\u009b\\u007f\\ud800 \\u000d"
    )
    assert terminal.one_line("a\nb\u202e\u2028") == "a\\u000ab\\u202e\\u2028"
    assert json.loads(terminal.harmless(json.dumps({"x": EVIL + "\x7f"}, ensure_ascii=False))) == {"x": EVIL + "\x7f"}


def test_messages_from_files_are_harmless(
    model: Path, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset, terms, config = tmp_path / "p.yaml", tmp_path / "g.tsv", tmp_path / "model"
    preset.write_text('"\\e]0;PWNED\\a\\e[31mkey": 1\n')
    terms.write_text(f"a{EVIL}\tb\na{EVIL}\tc\n")
    config.mkdir()
    (config / "config.json").write_text(json.dumps({"model_type": EVIL, "architectures": [EVIL]}))
    named = tmp_path / f"x{EVIL}.txt"
    for args, code in (
        (["score", str(book), "--preset", str(preset)], 2),
        (["translate", str(book), "--from", "en", "--to", "de", "--glossary", str(terms)], 3),
        (["score", str(book), "--model", str(config)], 4),
        (["score", str(named)], 3),
        (["score", str(book), "--model", f"/no/{EVIL}"], 4),
    ):
        args += [] if "--model" in args else ["--model", str(model)]
        assert cli.main(args) == code
        assert len(shown(capsys).splitlines()) == 1


def test_a_glossary_on_standard_output_is_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "g\x1b[31m.txt"
    path.write_text("Then Alpha\x1b[31mBeta went. He saw Alpha\x1b[31mBeta.\n\n" * 4)
    cli.main(["glossary", str(path), "--from", "en", "--to", "de", "--no-translations"])
    assert "Alpha" in shown(capsys)


def test_a_models_words_are_harmless_and_kept_in_the_file(
    model: Path, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"
    args = ["write", "--prompt-file", str(book), "--model", str(model), *COMMON, "--tokens", "200", "--no-run"]
    more = ["--set", "generate.temperature=3.0", "--set", "generate.ignore_eos=true", "--out", str(out)]
    assert cli.main([*args, *more]) == 0
    text = out.read_bytes().decode()
    assert CONTROLS & set(text)  # random weights write anything
    assert terminal.harmless(text) in shown(capsys)


# --- nothing is read as markup ---


def test_names_are_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "novel [draft] :smile:"
    journal.Journal.create(run, journal.Manifest("score")).close()
    assert cli.main(["runs", "--root", str(tmp_path)]) == 0
    out = shown(capsys)
    assert "novel [draft] :smile:" in out


def test_a_title_is_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.table import Table

    table = Table(title="aligned[/x].json")
    table.add_column("[bold]a[/]")
    table.add_row("\x1b[31m[/novel]")
    terminal.print_table(table)
    out = shown(capsys)
    assert "aligned[/x].json" in out and "[bold]a[/]" in out and "[/novel]" in out


def test_progress_on_a_terminal_is_not_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.working("loading model[/x]\x1b]0;PWNED"), terminal.Progress("off[/x]", 9) as progress:
        progress(None)
    with terminal.Progress("off[/x]", 9) as progress:
        progress(3, "note [/y]")
    assert "loading model[/x]\\u001b]0;PWNED" in screen.getvalue() and "off[/x] note [/y]" in screen.getvalue()


# --- plots ---

CHUNK = ChunkScore(0, 0, 9, 8, 9.0, 8.0, 1.0, 1)


@pytest.mark.parametrize("name", ["$_$.txt", "a $x^{$ b", "\u7ea2\u697c\u68a6.txt", "caf\udce9.txt", EVIL])
def test_any_file_name_makes_a_plot(name: str, recwarn: pytest.WarningsRecorder) -> None:
    assert report.score_plot([CHUNK], name)[:4] == b"\x89PNG"
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


# --- locale, streams, account ---


def run(
    args: list[str], env: dict[str, str] | None = None, before: str = "", **more: object
) -> tuple[int, bytes, bytes]:
    code = f"import sys\n{before}\nfrom edge import cli\nsys.exit(cli.main(sys.argv[1:]))"
    whole = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    done = subprocess.run(
        [sys.executable, "-c", code, *args], env=whole, capture_output=True, timeout=900, **more,  # type: ignore[call-overload]
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "env", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_an_ascii_terminal_and_a_name_that_is_no_text(env: dict[str, str], model: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9 $_$.txt"
    with open(name, "w") as file:
        file.write("Old sea.\n\nNew ship.\n")
    rep = tmp_path / "rep"
    args = ["translate", os.fsdecode(name), "--from", "en", "--to", "de", "--model", str(model), *COMMON, "--no-run"]
    args[args.index("window.chunk=64")], args[args.index("window.size=128")] = "window.chunk=128", "window.size=400"
    code, out, err = run([*args, "--report", str(rep), "--json"], env)
    assert code == 9, err
    assert b"\\udce9" in out and json.loads(out.splitlines()[-1])["units"]["total"] == 2
    assert json.loads((rep / "report.json").read_text("utf-8"))["file"] == os.fsdecode(name)
    assert os.path.exists(name.replace(b".txt", b".de.txt"))


NOBODY = """
import os, pwd
def unknown(*_): raise KeyError("uid not found")
pwd.getpwuid = pwd.getpwnam = unknown
for name in ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "TEMPLORA_CACHE", "MPLCONFIGDIR"):
    os.environ.pop(name, None)
"""


def test_a_user_without_an_account(model: Path, book: Path, tmp_path: Path) -> None:
    args = ["score", str(book), "--model", str(model), *COMMON]
    code, _, err = run([*args, "--report", str(tmp_path / "rep"), "--no-run"], before=NOBODY)
    assert code == 0, err
    code, _, err = run(args, before=NOBODY)
    assert code == 8 and b"there is no home folder" in err
    code, _, err = run(["score", str(book), "--model", "demo", "--no-run"], before=NOBODY)
    assert code == 8 and b"TEMPLORA_CACHE" in err


def test_a_home_that_cannot_be_written(model: Path, book: Path, tmp_path: Path) -> None:
    """A home that is a file: nobody can write below it, root neither."""
    home = tmp_path / "home"
    home.write_text("")
    env = {"HOME": str(home), "XDG_STATE_HOME": "", "XDG_CACHE_HOME": "", "TEMPLORA_CACHE": "", "MPLCONFIGDIR": ""}
    args = ["score", str(book), "--model", str(model), *COMMON]
    code, _, err = run([*args, "--no-run"], env)
    assert code == 0, err
    code, _, err = run(args, env)
    assert code == 8 and len([line for line in err.splitlines() if line.startswith(b"error:")]) == 1, err
    assert b"--run" in err


def test_closed_standard_input(model: Path) -> None:
    code, _, err = run(["score", "-", "--model", str(model)], before="import os; sys.stdin = None; os.close(0)")
    assert code == 3 and b"standard input is closed" in err


# --- private texts ---


@pytest.mark.parametrize(
    ("mode", "umask", "file", "folder"),
    [
        (0o600, 0o022, 0o600, 0o700),
        (0o640, 0o022, 0o640, 0o750),
        (0o644, 0o077, 0o600, 0o700),
        (0o644, 0o022, 0o644, 0o755),
    ],
)
def test_what_is_written_is_as_private_as_the_text(
    mode: int, umask: int, file: int, folder: int, model: Path, book: Path, tmp_path: Path
) -> None:
    book.chmod(mode)
    out = tmp_path / "out"
    args = ["score", str(book), "--model", str(model), *COMMON, "--run", str(out / "run"), "--report", str(out / "rep")]
    before = os.umask(umask)
    try:
        assert cli.main(args) == 0
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (out, *out.rglob("*"))}
    assert {found[path] for path in found if path.is_file()} == {file}
    assert {found[path] for path in found if path.is_dir()} == {folder}
    assert len(found) > 8


def test_the_libraries_show_no_bars_of_their_own(tmp_path: Path) -> None:
    model = tiny.gguf(tmp_path / "m.gguf")
    book = tmp_path / "book.txt"
    book.write_text(tiny.TEXT, "utf-8")
    args = [
        "score",
        str(book),
        "--model",
        str(model),
        "--no-run",
        "--set",
        "window.chunk=24",
        "--set",
        "window.size=64",
    ]
    environment = {**os.environ, "TEMPLORA_CACHE": str(tmp_path / "cache")}
    environment.pop("TQDM_DISABLE", None)
    done = subprocess.run([sys.executable, "-m", "edge.cli", *args], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = ("scoring: ", "converting ")
    assert all(line.startswith(ours) for line in done.stderr.splitlines()), done.stderr
