"""What start-up does not pay for: a compiler that nothing uses, other processes, random weights that are overwritten,
other commands, a base that passed before, a vocabulary that is read twice. And how it is measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from edge import journal
from edge.model import checks
from edge.store import modelnames
from edge.weights import checkpoint, libraries, words
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]

IMPORTS = """
import sys
import torch
from edge.weights import libraries
before = torch.compile
libraries.load()
assert torch.compile is before
assert "bitsandbytes" in sys.modules and "peft" in sys.modules
print("torch._inductor.compile_fx" in sys.modules)
import bitsandbytes.functional as bnb
x = torch.randn(64, 64)
packed, state = bnb.quantize_4bit(x, quant_type="nf4")
assert (bnb.dequantize_4bit(packed, state) - x).abs().max() < 1
"""


FREED = """
import gc, sys, weakref
from pathlib import Path
from edge.machine import allocator
allocator.own_process()
from edge import settings
from edge.memory import planning
from edge.model import base as bases

def load():
    asked = settings.load("economical", ["learn.mode=none", "compute.device=cpu"])
    source = planning.find(sys.argv[1], asked)
    base = bases.load(source, planning.plan(source, asked, decodes=False, degrade=False).settings)
    return weakref.ref(base.model)

model = load()
assert gc.get_freeze_count() > 100_000
allocator.release_memory()
print(model() is None)
"""


def test_what_the_command_makes_after_its_imports_can_be_freed(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", "qwen2")
    done = subprocess.run(
        [sys.executable, "-c", FREED, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "True"


SCANNED = """
from pathlib import Path
import edge
edge.Session
import transformers
from transformers.utils import import_utils

folder = Path(transformers.__file__).parent / "models"
scan, scanned = import_utils.create_import_structure_from_path, []
import_utils.create_import_structure_from_path = lambda path: scanned.append(Path(path)) or scan(path)
from edge.weights import libraries
libraries.load()
import transformers.processing_utils
given = [import_utils.define_import_structure(*asked) for asked in ((folder / "__init__.py",), (folder, "models"))]
print(len([path for path in scanned if path in (folder, folder / "__init__.py")]), end=" ")
print([names[frozenset()].pop(kept) for names, kept in zip(given, ("kept", "models.kept"))], end=" ")
plain = import_utils.spread_import_structure(scan(folder))
named = {needed: {f"models.{name}": has for name, has in modules.items()} for needed, modules in plain.items()}
print(given == [plain, named], [list(names) for names in given[0].values()] == [list(names) for names in plain.values()])
from transformers import BertModel, LlamaForCausalLM
"""


def test_the_files_of_transformers_are_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is kept, and another process looks no more: its names are those that it would have found."""
    import transformers
    from transformers.utils import import_utils

    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path))
    models = Path(transformers.__file__).parent / "models"
    structure = import_utils.create_import_structure_from_path
    modelnames._names(models, lambda path: import_utils.spread_import_structure(structure(path)))
    (kept,) = (tmp_path / "names").iterdir()
    values = journal.read_sealed(kept)
    names = json.loads(values["names"])
    next(modules for needed, modules in names if not needed)["kept"] = ["Kept"]
    kept.write_bytes(journal.seal({**values, "names": json.dumps(names)}))
    done = subprocess.run([sys.executable, "-c", SCANNED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 [{'Kept'}, {'Kept'}] True True"


def installed(folder: Path) -> Path:
    """The models of a package that a package manager has installed there."""
    record = folder / "site-packages" / "transformers-5.17.0.dist-info" / "RECORD"
    models = folder / "site-packages" / "transformers" / "models"
    for parent in (record.parent, models):
        parent.mkdir(parents=True)
    record.write_text("a")
    return models


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-3],
    "object": lambda data: b"{}",
    "list": lambda data: b"[]",
    "letter": lambda data: data.replace(b"modeling_a", b"modeling_b"),
    "bytes": lambda data: b"\xff\xfe",
    "deep": lambda data: b"[" * 100_000,
    "unsealed": lambda data: b'[[["torch"], {"a.modeling_b": ["A"]}]]',
    "format": lambda data: journal.seal({"format": modelnames.FORMAT + 1, "names": "[]"}),
    "names": lambda data: journal.seal({"format": modelnames.FORMAT, "names": "[[3, {}]]"}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_names_that_are_damaged_are_looked_for_again(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    models = installed(tmp_path)
    names: modelnames.Names = {frozenset(["torch"]): {"a.modeling_a": {"A"}}}
    assert modelnames._names(models, lambda path: names) == names
    (kept,) = (tmp_path / "cache" / "names").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(DAMAGES[damage](whole))
    assert modelnames._names(models, lambda path: names) == names and kept.read_bytes() == whole
    assert modelnames._names(models, lambda path: pytest.fail("they were looked for")) == names
    kept.unlink()
    kept.mkdir()
    assert modelnames._names(models, lambda path: names) == names


def test_names_hold_until_the_package_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    models = installed(tmp_path)
    (record,) = models.parents[1].glob("*/RECORD")
    record.unlink()
    found: list[modelnames.Names] = []

    def scan(path: Path) -> modelnames.Names:
        found.append({frozenset(["torch"]): {"a.modeling_a": {f"A{len(found)}"}}})
        return found[-1]

    assert modelnames._names(models, scan) == found[0]
    assert modelnames._names(models, scan) == found[1]  # no record of an installation: nothing is kept
    record.write_text("a")
    for _ in range(2):
        assert modelnames._names(models, scan) == found[2]
    record.write_text("ab")
    for _ in range(2):
        assert modelnames._names(models, scan) == found[3]
    os.utime(models, ns=(0, 0))
    (models / "new").mkdir()  # by hand
    for _ in range(2):
        assert modelnames._names(models, scan) == found[4]
    monkeypatch.setenv("TEMPLORA_CACHE", str(record))  # no folder can be made there
    assert modelnames._names(models, scan) == found[5]
    assert len(found) == 6


def test_no_compiler_is_imported_with_the_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


COMMAND = """
import sys
from edge.machine import allocator
allocator.own_process()
from edge.commands import everything
from edge.model import checks
tried = []
try_logits = checks.try_logits
checks.try_logits = lambda base: tried.append(base) or try_logits(base)
code = everything.run(sys.argv[1:])
from edge.machine import compiler
unwanted = ("sympy", "torch.distributed.tensor", "torch.distributed.fsdp", "torch._inductor", "edge.translation.loop",
            "edge.documents.docx", "markdown_it", "export")
import torch
assert torch.distributed.is_available()
print([name for name in unwanted if name in sys.modules], compiler.is_read(), len(tried), code)
"""

WANTED = """
# what was put off comes when it is wanted, and knows what was said before it came
from transformers import masking_utils
assert len(compiler._told) > 0
with masking_utils.TransformGetItemToIndex():
    pass
assert compiler.is_read() and not compiler._told and type(torch._dynamo) is type(sys)
assert torch._dynamo.is_compiling() is False and torch._dynamo.disable is not compiler.disable
assert torch.compile(lambda x: x * 2, backend="eager")(torch.ones(3)).tolist() == [2, 2, 2]
layer = torch.nn.Linear(2, 2)
torch.utils.checkpoint.checkpoint(layer, torch.ones(1, 2), use_reentrant=False).sum().backward()
assert layer.weight.grad.tolist() == [[1, 1], [1, 1]]
print("came")
"""


def test_a_command_that_learns_imports_no_compiler_and_tries_its_base_once(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", "gemma3_text")
    four_bit = tmp_path / "four"
    text = tmp_path / "text.txt"
    text.write_text(tiny.TEXT)
    environment = {**os.environ, "TEMPLORA_CACHE": str(tmp_path / "cache")}
    score = ["score", str(text), "--model", str(four_bit), "--offline", "--no-run", "--set", "window.chunk=24",
             "--set", "window.size=48", "--set", "learn.epochs=1"]  # fmt: skip
    done = [
        subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=ROOT, capture_output=True, text=True, check=True, env=environment,
        )
        for code, arguments in (
            (COMMAND, ["quantize", str(folder), str(four_bit), "--offline"]), (COMMAND, score), (COMMAND + WANTED, score)
        )
    ]  # fmt: skip
    assert done[1].stdout.splitlines()[-1:] == ["[] False 1 0"]
    assert done[2].stdout.splitlines()[-2:] == ["[] False 0 0", "came"]


def test_a_base_passes_for_this_code_and_these_libraries_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    base = tiny.runtime("llama").base
    tried: list[Any] = []
    monkeypatch.setattr(checks, "try_logits", tried.append)
    checks.verify(base)
    checks.verify(base)
    assert len(tried) == 2  # in memory: nothing says what it is
    base.identity = "a"
    monkeypatch.setattr(type(base), "manifest", lambda self: {"format": 1})
    monkeypatch.setattr(type(base), "fingerprint", lambda self: self.identity)
    checks.verify(base)
    checks.verify(base)
    assert len(tried) == 3
    base.identity = "b"
    checks.verify(base)
    monkeypatch.setattr(metadata, "version", lambda name: "another")
    checks.verify(base)
    assert len(tried) == 5
    monkeypatch.setattr(checks, "try_logits", lambda base: 1 / 0)
    base.identity = "c"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):  # what fails is not kept
            checks.verify(base)


def test_nothing_is_drawn_without_memory_and_all_else_is() -> None:
    from transformers import initialization

    with libraries.undrawn():
        meta = torch.nn.Embedding(4, 3, device="meta")
        torch.manual_seed(0)
        drawn = torch.nn.Embedding(4, 3)
        ours = initialization.normal_(torch.zeros(3))
    torch.manual_seed(0)
    assert meta.weight.is_meta and torch.equal(drawn.weight, torch.nn.Embedding(4, 3).weight)
    assert ours.abs().sum() > 0 and torch.nn.init.normal_.__name__ == "normal_"


def test_what_is_compiled_later_is_what_was_handed_in() -> None:
    made: list[Any] = []

    def compiles(function: Any, **options: Any) -> Any:
        made.append(options)
        return lambda x: function(x) + 1

    @libraries._later(compiles, dynamic=False)
    def double(x: int) -> int:
        return 2 * x

    assert not made
    assert [double(3), double(4)] == [7, 9]
    assert made == [{"dynamic": False}]
    assert libraries._later(compiles, lambda x: x)(1) == 2


def test_a_tokenizer_without_its_json_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny.folder(tmp_path / "m", "qwen3")
    given = words.added_tokens(folder)["added_tokens_decoder"]
    assert {token["content"] for token in given.values()} >= {"<s>", "</s>"}
    fast = checkpoint.load_tokenizer(folder)
    with monkeypatch.context() as patch:
        patch.setattr(words, "added_tokens", lambda folder: {})
        plain = checkpoint.load_tokenizer(folder)
    assert fast.added_tokens_decoder == plain.added_tokens_decoder
    assert fast.special_tokens_map == plain.special_tokens_map
    assert fast.all_special_ids == plain.all_special_ids
    assert fast.init_kwargs == plain.init_kwargs
    assert fast(tiny.TEXT)["input_ids"] == plain(tiny.TEXT)["input_ids"]


def test_another_layout_is_read_as_transformers_reads_it(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", "qwen3")
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({"normalizer": values.pop("normalizer"), **values}))
    assert words.added_tokens(folder) == {}
    (folder / "added_tokens.json").write_text("{}")
    assert words.added_tokens(folder) == {}
    assert words.added_tokens(tmp_path) == {}


def test_a_tokenizer_is_written_as_it_is_read_fastest() -> None:
    """Merges as strings, where strings say the same; the same tokenizer, whatever its words are."""
    from tokenizers import Tokenizer, models

    parts = ['"', "],[", "\\", '"],["', "é", "▁", "[["]
    for more, strings in (([], True), ([(" ", "é")], False), ([("#version", "é")], False), ([("é", "#version")], True)):
        merges = [*((a, b) for a in parts for b in parts), *more]
        entries = dict.fromkeys([*parts, *(part for merge in more for part in merge), *(a + b for a, b in merges)])
        made = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(entries)}, merges=merges))
        text = made.to_str()
        short = words.compact(text)
        assert Tokenizer.from_str(short).to_str() == text
        assert (short != text) is strings
        assert len(json.loads(short)["model"]["merges"]) == len(merges)
    for kind in (models.WordLevel({"a": 0}, "a"), models.BPE(), models.Unigram([("a", 0.0)], 0)):
        text = Tokenizer(kind).to_str()
        assert Tokenizer.from_str(words.compact(text)).to_str() == text


def test_a_made_folder_has_the_tokenizer_of_its_model(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2, "</s>": 3}, merges=[("a", "b")]))
    made.add_special_tokens(["</s>"])
    loaded = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")
    words.save(loaded, tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path, **words.added_tokens(tmp_path))
    assert again.backend_tokenizer.to_str() == loaded.backend_tokenizer.to_str()
    assert again("ab</s>b")["input_ids"] == [2, 3, 1] and again.eos_token_id == 3
    assert json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))["model"]["merges"] == ["a b"]


@pytest.fixture
def bench() -> ModuleType:
    """The script that measures it."""
    made = ModuleType("bench_start")
    made.__file__ = str(ROOT / "scripts/bench/start")
    SourceFileLoader("bench_start", made.__file__).exec_module(made)
    return made


def test_what_is_measured_takes_nothing_that_another_checkout_made(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "models", "names", "verified"):
        (tmp_path / "cache" / name).mkdir(parents=True)
    for named, expected in (("cache", ["demo"]), ("missing", [])):
        monkeypatch.setenv("TEMPLORA_CACHE", named)
        made = bench.cache(tmp_path / f"for {named}")
        assert [path.name for path in made.iterdir()] == expected
        assert all(path.is_dir() for path in made.iterdir())


def test_each_checkout_is_compiled_before_it_is_measured(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setattr(bench, "WATCHED", "import edge.errors\nprint('at open 3')")
    package = tmp_path / "old" / "edge"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py"):
        (package / name).write_text("")
    for name in ("a", "b"):
        assert bench.measure(tmp_path / "old", bench.cache(tmp_path / name), "demo", [])["open"] < 0
        assert len([*(tmp_path / f"{name} compiled").rglob("errors*.pyc")]) == 1
    assert sorted(path.name for path in package.iterdir()) == ["__init__.py", "errors.py"]
