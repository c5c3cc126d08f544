"""A 4-bit folder is what was made: each file that decides what comes out is checked at load, on resume, and by the
doctor."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from edge import cli, settings
from edge.errors import ModelError
from edge.measure import doctor
from edge.model import base
from edge.store import contents, sources
from edge.weights import quantize
from tests import tiny
from tests.e2e.test_faults import no_memory, run
from tests.e2e.test_resume import command

SETTINGS = settings.load("economical", [*tiny.WINDOW, "learn.mode=none"])
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every kind of file, and weights too large to be read at every load."""
    root = tmp_path_factory.mktemp("contents")
    full = tiny.folder(root / "full", "qwen3", vocab_size=6000)
    (full / "chat_template.jinja").write_text(TEMPLATE)
    quantize.quantize_to_folder(str(full), root / "nf4")
    weights = (root / "nf4" / "model.safetensors").stat()
    assert weights.st_size > contents.SMALL
    return root / "nf4"


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy with the same times, and a cache of its own."""
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    shutil.copytree(made, tmp_path / "nf4")
    return tmp_path / "nf4"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read whole from now on."""
    names: list[str] = []
    real = sources.sha256_file

    def digest(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(sources, "sha256_file", digest)
    return names


def without_list(folder: Path) -> None:
    """The folder as versions before this one made it."""
    path = folder / "templora.json"
    manifest = json.loads(path.read_text())
    del manifest["contents"]
    path.write_text(json.dumps(manifest))


def flip(path: Path) -> None:
    """One bit of a number, far from the header; the size stays."""
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def change(path: Path) -> None:
    """One character of a JSON file or template, so that it stays one; the size stays."""
    text = path.read_text()
    one, other = {
        "config.json": ('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-02'),
        "generation_config.json": ('"eos_token_id": 1', '"eos_token_id": 7'),
        "tokenizer_config.json": ('"bos_token": "<s>"', '"bos_token": "<t>"'),
        "tokenizer.json": ('"</s>":', '"</t>":'),  # also where it is written without spaces
        "chat_template.jinja": ("content", "comment"),
    }[path.name]
    assert one in text, text[:2000]
    path.write_text(text.replace(one, other))


def load(folder: Path) -> base.Base:
    return base.load(sources.resolve(str(folder)), SETTINGS)


CHANGED = ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "chat_template.jinja"]


def test_the_manifest_lists_all_files(made: Path) -> None:
    listed = json.loads((made / "templora.json").read_text())["contents"]
    assert set(listed) == {path.name for path in made.iterdir()} - {"templora.json"}
    assert {*CHANGED, "model.safetensors"} <= set(listed)
    for name, entry in listed.items():
        found = (made / name).stat()
        assert (entry["bytes"], entry["mtime_ns"]) == (found.st_size, found.st_mtime_ns)
        assert entry["sha256"] == sources.sha256_file(made / name)


@pytest.mark.parametrize("name", [*CHANGED, "model.safetensors"])
def test_a_changed_file_is_refused(name: str, folder: Path) -> None:
    """Same size, another time; the small ones even with the time set back."""
    path = folder / name
    before = path.stat()
    (flip if name == "model.safetensors" else change)(path)
    if before.st_size <= contents.SMALL:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(
        ModelError, match=rf"{name} is not what was made: sha256 .*expected .*; copy it again"
    ) as caught:
        load(folder)
    assert caught.value.exit_code == 4 and "\n" not in caught.value.line()


def test_a_cut_missing_or_added_file_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1])
    with pytest.raises(ModelError, match=f"holds {len(data) - 1} bytes; expected {len(data)}"):
        load(folder)
    weights.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        load(folder)
    weights.write_bytes(data)
    (folder / "added_tokens.json").write_text('{"<new>": 300}')
    with pytest.raises(ModelError, match=r"added_tokens\.json was added"):
        load(folder)
    (folder / "added_tokens.json").rename(folder / "notes.json")  # what no loader reads may lie there
    load(folder)


def test_a_header_that_differs_is_found_whatever_size_and_time_say(folder: Path) -> None:
    path = folder / "model.safetensors"
    before, data = path.stat(), bytearray(path.read_bytes())
    at = data.index(b'"F32"')
    data[at : at + 5] = b'"I32"'
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match="a head that differs"):
        load(folder)


def test_a_copy_is_read_whole_once(folder: Path, read: list[str]) -> None:
    load(folder)
    assert "model.safetensors" not in read  # size and time are the manifest's
    for path in folder.iterdir():
        os.utime(path)
    expected = load(folder).fingerprint()
    assert read.count("model.safetensors") == 1
    assert load(folder).fingerprint() == expected and read.count("model.safetensors") == 1
    os.utime(folder / "model.safetensors")
    load(folder)
    assert read.count("model.safetensors") == 2
    flip(folder / "model.safetensors")
    with pytest.raises(ModelError, match="is not what was made"):
        load(folder)


def test_a_damaged_memory_of_it_costs_a_reading(folder: Path, read: list[str], tmp_path: Path) -> None:
    os.utime(folder / "model.safetensors")
    load(folder)
    (kept,) = (tmp_path / "cache" / "verified").iterdir()
    for damage in ("", "[]", "{}", '{"model.safetensors": 3}', '{"model.safetensors": []}', "{"):
        kept.write_text(damage)
        read.clear()
        load(folder)
        assert read.count("model.safetensors") == 1


def test_a_folder_of_before_loads_and_is_compared_by_its_weights(folder: Path, read: list[str]) -> None:
    listed = load(folder).fingerprint()
    without_list(folder)
    assert load(folder).fingerprint() == listed  # a run continues whichever of the two it began with
    assert read.count("model.safetensors") == 1
    load(folder)
    assert read.count("model.safetensors") == 1
    flip(folder / "model.safetensors")
    with pytest.raises(ModelError, match="weights with sha256"):
        load(folder)


def test_every_byte_is_read_by_the_doctor(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Damage that neither size nor time show."""
    monkeypatch.setattr(doctor, "examine", lambda: iter(()))
    monkeypatch.setattr(doctor, "examine_model", lambda reference: iter(()))
    args = ["doctor", "--model", str(folder), "--verify"]
    assert cli.main(args) == 0
    assert "files are as they were made" in capsys.readouterr().out
    path = folder / "model.safetensors"
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cli.main(args) == 4
    assert "is not what was made" in capsys.readouterr().err
    assert cli.main(["doctor", "--verify"]) == 2


@pytest.mark.parametrize(
    "damage", [{"contents": None}, {"contents": 3}, {"contents": {"../x": {}}}, {"contents": {"config.json": 1}},
               {"files": None}, {"files": [3]}, {"format": 9}, {"weights_sha256": 3}, {"repair": 3}, None],
)  # fmt: skip
def test_a_damaged_manifest_is_one_line(damage: dict[str, Any] | None, folder: Path) -> None:
    path = folder / "templora.json"
    changed = json.dumps({**json.loads(path.read_text()), **damage}) if damage else "{"
    path.write_text(changed)
    with pytest.raises(ModelError, match=r"templora\.json"):
        load(folder)


@pytest.mark.parametrize(
    ("kind", "name"),
    [*(("before", name) for name in CHANGED), ("listed anew", "config.json"), ("unquantised", "config.json"),
     ("unquantised", "tokenizer.json")],
)  # fmt: skip
def test_a_run_does_not_go_on_with_another_model(
    kind: str, name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A change that loads, because nothing says what was there: the run says it."""
    if kind == "before":
        without_list(folder)
    if kind == "unquantised":
        folder = tiny.folder(tmp_path / "full", "qwen3")
    book = tmp_path / "book.txt"
    book.write_text(tiny.TEXT * 2)
    args = command("score", str(folder), book, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        no_memory(patch, 5)
        assert run(args, capsys)[0] == 5
    change(folder / name)
    if kind == "listed anew":
        path = folder / "templora.json"
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({**manifest, "contents": contents.record(folder)}))
    code, _, err = run([*args, "--resume"], capsys)
    assert code == 7 and "base" in err, err
