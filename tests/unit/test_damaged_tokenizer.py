"""A tokenizer whose library fails, its panics included, is a model that cannot be used: one line, exit code 4."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge import cli, tokenstream
from edge.commands import everything
from edge.errors import InputError, Interrupted, ModelError
from edge.model import base as bases
from edge.model import control
from edge.tokenstream import TokenStream, asked
from edge.translation import decoding, languages
from edge.weights import checkpoint, words
from tests import tiny
from tests.e2e.test_resume import COMMON

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {"chat_template", "is_fast", "name_or_path"}  # attributes that are Python's alone
Values = dict[str, Any]


def _no_special_tokens(values: Values) -> None:
    """The template of a text names a token that it does not explain: Rust panics at the first word."""
    values["post_processor"]["special_tokens"].clear()


def _no_unknown(values: Values) -> None:
    """Letters as they are, and no token for one that is unknown: an exception at the first that is."""
    values["pre_tokenizer"] = None
    values["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "\u0120"}
    values["model"]["unk_token"] = "<x>"


def _no_table(values: Values) -> None:
    """A table of characters that ends too soon: Rust panics."""
    values["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAAAAA="}


def _damage(folder: Path, change: Callable[[Values], None]) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values), "utf-8")


def _score(folder: Path, text: str, tmp_path: Path) -> list[str]:
    book = tmp_path / "book.txt"
    book.write_text(text)
    return ["score", str(book), "--model", str(folder), *COMMON, "--no-run"]


@pytest.mark.parametrize("change", [_no_special_tokens, _no_table, _no_unknown])
def test_a_tokenizer_that_fails_at_a_text_is_refused(
    change: Callable[[Values], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.folder(tmp_path / "model", max_position_embeddings=2048)
    _damage(folder, change)
    assert cli.main(_score(folder, "A plain word, then one of a letter that is unknown: \u65e5. " * 9, tmp_path)) == 4
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: the model's tokenizer fails (")
    assert "; expected one that takes and gives any text; its file is damaged" in line


def test_nothing_of_the_panic_is_shown(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "model")
    _damage(folder, _no_special_tokens)
    env = {**os.environ, "RUST_BACKTRACE": "1", "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-m", "edge.cli", *_score(folder, "A word. " * 99, tmp_path)]
    done = subprocess.run(line, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("\n") <= 2 and "panicked" not in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the model's tokenizer fails (PanicException: no entry")


class PanicException(BaseException):
    """As pyo3 makes one for each library."""


class _Panics:
    """A tokenizer that panics whatever it is asked for."""

    is_fast = True
    chat_template = None

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise PanicException("called `Option::unwrap()` on a `None` value\nmore")

    def __len__(self) -> int:
        raise PanicException

    def __getattr__(self, name: str) -> Any:
        raise PanicException(name)


def _asks() -> dict[str, Callable[[Any], Any]]:
    """All that the product asks a tokenizer for while it works, by what asks."""
    chinese, english = languages.find("zh"), languages.find("en")
    return {
        "encode": lambda base: base.encode("x"),
        "stream": lambda base: TokenStream(base.tokenizer, ["x"]).take(1),
        "slow stream": lambda base: TokenStream(_slow(base.tokenizer), ["x"]).take(1),
        "BOS before a text": lambda base: base.stream(["x"]),
        "decode": lambda base: base.decode([1]),
        "ends": lambda base: base.eos_ids,
        "BOS": lambda base: base.bos_id,
        "control": control._ids,
        "mark": lambda base: words.mark(base.tokenizer),
        "shown": lambda base: words._shown(base.tokenizer, [1]),
        "more of a prompt": lambda base: decoding.encode_more(_State(base), "x"),  # type: ignore[arg-type]
        "languages": lambda base: decoding.require_languages(_State(base), ["x"], chinese, english),  # type: ignore[arg-type]
    }


class _State:
    def __init__(self, base: Any) -> None:
        self.base = base


def _slow(tokenizer: Any) -> Any:
    tokenizer.is_fast = False
    return tokenizer


@pytest.mark.parametrize("ask", list(_asks()))
def test_every_question_to_a_tokenizer_may_panic(ask: str) -> None:
    base = bases.from_model(tiny.model("llama"), tiny.tokenizer(), tiny.CPU)
    base.model.generation_config.eos_token_id = None
    base.tokenizer = _Panics()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="the model's tokenizer fails") as raised:
        _asks()[ask](base)
    assert "\n" not in raised.value.line()


def test_a_panic_of_the_loader_is_the_tokenizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    def panics(*_: Any, **__: Any) -> Any:
        raise PanicException("out of bounds")

    folder = tiny.folder(tmp_path / "model")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", panics)
    with pytest.raises(ModelError, match="no usable tokenizer"):
        checkpoint.load_tokenizer(folder)


def test_a_panic_of_another_library_is_an_internal_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def panics(*_: Any, **__: Any) -> int:
        raise PanicException("out of bounds\nmore")

    monkeypatch.setattr(everything.overwrite, "check", panics)
    assert cli.main(["runs"]) == everything.INTERNAL
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("error: internal failure (PanicException: out of bounds)")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, Interrupted, MemoryError, InputError("a", "b", "c")])
@pytest.mark.parametrize("own", [True, False])
def test_what_is_no_failure_of_a_tokenizer_passes(
    error: Any, own: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokenstream._Process, "own", own)

    def fails() -> int:
        os.write(2, b"said before\n")
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        asked(fails)
    os.write(2, b"said after\n")
    assert capfd.readouterr().err == "said before\nsaid after\n"  # the descriptor is what it was


def test_what_others_say_meanwhile_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokenstream._Process, "own", True)

    def panics() -> int:
        os.write(2, b"thread panicked\n")
        raise PanicException("index")

    assert asked(lambda: os.write(2, b"a warning\n")) == 10
    with pytest.raises(ModelError):
        asked(panics)
    assert capfd.readouterr().err == "a warning\n"


def _asks_directly(tree: ast.Module) -> list[int]:
    """Lines that call a tokenizer, or take an attribute of one that may need its library, outside `asked`."""
    inside = {
        id(node)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "asked"
        for node in ast.walk(call)
    }

    def is_tokenizer(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute):
            return node.attr in ("tokenizer", "_tokenizer")
        return isinstance(node, ast.Name) and node.id == "tokenizer"

    found = []
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and is_tokenizer(node.func)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "len":
            called = any(is_tokenizer(argument) for argument in node.args)
        taken = isinstance(node, ast.Attribute) and is_tokenizer(node.value) and node.attr not in PLAIN
        if (called or taken) and id(node) not in inside:
            found.append(getattr(node, "lineno", 0))
    return found


def test_a_tokenizer_is_asked_in_one_place() -> None:
    # Saving is told of a full disk by the library's own error; a chat template is bounded, and what it raises is caught.
    allowed = {"save_pretrained", "apply_chat_template"}
    for folder in ("edge", "export"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            lines = path.read_text("utf-8").splitlines()
            direct = [
                n for n in _asks_directly(ast.parse("\n".join(lines))) if not any(w in lines[n - 1] for w in allowed)
            ]
            assert not direct, (path, [lines[n - 1] for n in direct])
    assert _asks_directly(ast.parse("x = tokenizer('a')\ny = base.tokenizer.eos_token_id")) == [1, 2]
