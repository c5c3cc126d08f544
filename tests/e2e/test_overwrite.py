"""Nothing that a command reads is written over: every verb, every pair of an input and an output, links and case
too."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli
from edge.commands import options, overwrite
from tests import tiny

TO = ["--from", "en", "--to", "de"]
PLAIN = {  # options that name no file
    "help", "max_tokens", "no_base", "no_run", "resume", "fresh", "force", "snapshot_every", "snapshot_share", "forward",
    "memory_budget", "allow_degrade", "device", "offline", "json", "prompt", "tokens", "bilingual", "source", "target",
    "context_units", "learn", "judge", "least", "most", "no_translations", "task", "protocols", "chunks", "given", "decode", "limit",
    "contenders", "repair", "repair_rank", "repair_texts", "repair_epochs", "score_only", "action", "names", "root", "whole",
    "unfinished", "dry_run", "precision", "against", "name", "verify", "chapters", "side_by_side", "redo", "candidates", "lines",
    "keep_adapter",
}  # fmt: skip
WRITTEN = ("out", "bilingual_out", "review", "report", "run_folder")  # the options that name what is written
# What each verb needs; IN stands for the file that is read by the option under test.
NEEDED: dict[str, list[str]] = {
    "score": ["FILE"], "write": ["--prompt-file", "FILE"], "translate": ["FILE", *TO], "glossary": ["FILE", *TO],
    "eval": ["translate", "FILE", *TO], "bench": ["FILE"], "quantize": ["MODEL", "OUT"], "export": ["MODEL", "OUT"],
    "runs": [], "plan": [], "doctor": [], "models": [], "render": ["RUN"],
}  # fmt: skip
POSITIONAL = {"file": "FILE", "book": "FILE", "prompt_file": "FILE", "rendered": "RUN"}


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


def options_of(verb: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {action.dest: action for action in verb._actions}


def test_every_option_of_every_verb_is_known_to_the_guard() -> None:
    known = {*overwrite.READ, *WRITTEN, *PLAIN}
    assert set(verbs()) == set(NEEDED)
    for name, verb in verbs().items():
        found = options_of(verb)
        assert set(found) <= known, f"{name}: say in commands/overwrite.py what {set(found) - known} names"
        assert all(a.dest not in PLAIN for a in verb._actions if a.type is options.path and a.dest != "root"), name
        assert "report" not in found or name in overwrite.REPORTS


def outputs(verb: str, dest: str, folder: Path) -> list[tuple[list[str], Path]]:
    """Arguments, and the file that they would write."""
    if dest == "report":
        return [(["--report", str(folder)], folder / name) for name in overwrite.REPORTS[verb]]
    if dest == "run_folder":
        inner = folder / "off" if verb == "eval" else folder
        return [
            (["--run", str(folder)], inner / name)
            for name in ("manifest.json", "records.jsonl", "summary.json", "files/x")
        ]
    option = f"--{dest.replace('_', '-')}"
    return [([option, str(folder / "b.txt")], folder / "b.txt")]


def cases() -> list[tuple[str, str, str]]:
    return [
        (name, source, output)
        for name, verb in verbs().items()
        for output in WRITTEN
        if output in options_of(verb)
        for source in overwrite.READ
        if source in options_of(verb) and source != "set"
    ]


@pytest.mark.parametrize(("verb", "source", "output"), cases())
def test_an_input_is_never_an_output(
    verb: str, source: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text = tmp_path / "here", tmp_path / "text.txt"
    text.write_text("Some text.")
    if "OUT" in NEEDED[verb] and output == "out":
        found = [([], folder / "m.gguf")]
    else:
        found = outputs(verb, output, folder)
    for more, path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
        words = {"FILE": str(text), "MODEL": "/no/model", "OUT": str(path), "RUN": "/no/run"}
        positional = source in POSITIONAL and POSITIONAL[source] in NEEDED[verb]
        if positional:
            words[POSITIONAL[source]] = str(path)
        args = [verb, *(words.get(word, word) for word in NEEDED[verb]), *more]
        args += [] if "MODEL" in NEEDED[verb] or verb == "render" else ["--model", "/no/model"]
        args += ["--out", str(tmp_path / "other.txt")] if verb == "render" and output != "out" else []
        if source == "model" and "MODEL" in NEEDED[verb]:
            args[1] = str(path)
        elif not positional:
            args += [f"--{source.replace('_', '-')}", str(path)]
        assert cli.main(args) == 2, args
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and " over " in line and str(path) in line
        assert path.read_text() == "precious"
        path.unlink()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("overwrite") / "model", "qwen3")


def test_the_manuscript_stays(model: Path, tmp_path: Path) -> None:
    text = tmp_path / "m.txt"
    text.write_text(tiny.TEXT)
    args = ["write", "--prompt-file", str(text), "--tokens", "3", "--model", str(model), "--no-run"]
    assert cli.main([*args, "--out", str(text)]) == 2
    assert text.read_text() == tiny.TEXT


@pytest.mark.parametrize("link", ["symbolic", "hard", "folder", "case", "unicode"])
def test_links_and_spellings_lead_to_the_same_file(
    link: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "caf\u00e9.txt"
    text.write_text(tiny.TEXT)
    out = tmp_path / "out.txt"
    if link == "symbolic":
        out.symlink_to(text)
    elif link == "hard":
        os.link(text, out)
    elif link == "folder":
        (tmp_path / "elsewhere").symlink_to(tmp_path)
        out = tmp_path / "elsewhere" / text.name
    else:
        out = tmp_path / ("CAF\u00c9.TXT" if link == "case" else "cafe\u0301.txt")
    assert cli.main(["write", "--prompt-file", str(text), "--out", str(out), "--model", "/no/model"]) == 2
    assert " over the prompt" in capsys.readouterr().err
    assert text.read_text() == tiny.TEXT


def test_a_models_files_are_inputs(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, config = tmp_path / "t.txt", model / "config.json"
    text.write_text(tiny.TEXT)
    before = config.read_bytes()
    assert cli.main(["write", "--prompt-file", str(text), "--model", str(model), "--out", str(config)]) == 2
    assert config.read_bytes() == before and "over the model" in capsys.readouterr().err


def test_standard_input_is_an_input(tmp_path: Path) -> None:
    text = tmp_path / "report.json"
    text.write_text(tiny.TEXT)
    with text.open() as stream:
        done = subprocess.run(
            [sys.executable, "-m", "edge.cli", "score", "-", "--model", "/no/model", "--report", str(tmp_path)],
            stdin=stream, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 2 and "over the text" in done.stderr
    assert text.read_text() == tiny.TEXT


def test_outputs_do_not_take_each_others_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book = tmp_path / "b.html"
    book.write_text("<html><body><p>One.</p></body></html>")
    args = ["translate", str(book), *TO, "--model", "/no/model", "--report", str(tmp_path)]
    assert cli.main([*args, "--out", str(tmp_path / "report.html")]) == 2
    assert "over the other output" in capsys.readouterr().err


def test_records_of_runs_and_cached_models_are_no_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    (run / "files").mkdir(parents=True)
    (cache / "models" / "x").mkdir(parents=True)
    kept = [
        run / "records.jsonl",
        run / "manifest.json",
        run / "files" / "note",
        cache / "models" / "x" / "config.json",
    ]
    for path in kept:
        path.write_text("precious")
    monkeypatch.setenv("TEMPLORA_CACHE", str(cache))
    for path in kept:
        assert cli.main(["write", "--prompt", "x", "--model", "/no/model", "--out", str(path)]) == 2
        assert path.read_text() == "precious"
    assert cli.main(["write", "--prompt", "x", "--model", "/no/model", "--out", str(run / "new.txt")]) == 4


def test_a_named_graph_is_an_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "graph").mkdir()
    path = tmp_path / "graph" / "manifest.json"
    path.write_text("precious")
    args = ["write", "--prompt", "x", "--model", "/no/model", "--set", f"onnx.graph={path.parent}", "--out", str(path)]
    assert cli.main(args) == 2 and path.read_text() == "precious"


@pytest.mark.parametrize(("verb", "output"), sorted({(verb, output) for verb, _, output in cases()}))
def test_nothing_is_written_into_a_folder_that_is_read(
    verb: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = tmp_path / "read"
    (read / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(read)
    text = tmp_path / "text.txt"
    text.write_text("Some text.")
    for place in (read / "new", read / "inner" / "more", tmp_path / "link" / "new"):
        words = {"FILE": str(text), "MODEL": str(read), "OUT": str(place), "RUN": str(read)}
        args = [verb, *(words.get(word, word) for word in NEEDED[verb])]
        args += [] if "OUT" in NEEDED[verb] else outputs(verb, output, place)[0][0]
        args += [] if "MODEL" in NEEDED[verb] or verb == "render" else ["--model", str(read)]
        args += ["--out", str(tmp_path / "other.txt")] if verb == "render" and output != "out" else []
        assert cli.main(args) == 2, args
        (line,) = capsys.readouterr().err.splitlines()
        assert " into the " in line and line.endswith("expected a place outside of it; name another output")
        assert sorted(path.name for path in read.rglob("*")) == ["inner"]


def test_a_folder_called_as_an_embedded_model_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert cli.main(["score", "none.txt", "--model", "demo", "--report", "demo"]) == 3
    assert "none.txt" in capsys.readouterr().err
