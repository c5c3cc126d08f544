"""`templora export` and `--forward onnx` through the command line, and what they refuse."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.capi import onnxruntime_pybind11_state
from transformers import PreTrainedTokenizerFast

from edge import cli, journal
from edge.errors import DeviceError, ExportError
from edge.store import sources
from export import engine, exporter, graph, manifest, nf4
from export.engine import Engine
from export.rows import Mapped, Rows
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "--set",
    "compute.matmul=float32",
    "--set",
    "window.chunk=48",
    "--set",
    "window.size=96",
    "--set",
    "adapter.rank=4",
    "--set",
    "learn.lr=1e-2",
    "--set",
    "learn.guard=off",
    "--set",
    "learn.prefix=full",
    "--set",
    "compute.threads=1",
    "--preset",
    "economical",
    "--no-run",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.folder(tmp_path_factory.mktemp("model") / "m", "gemma3_text")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "graph"
    exporter.export(tiny.runtime("llama").base, out)
    return out


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def _last_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_export_then_score_and_write(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    out, text = tmp_path / "graph", tmp_path / "text.txt"
    text.write_text(tiny.TEXT)
    assert cli.main(["export", str(model), str(out), "--precision", "nf4", "--json"]) == 0
    done = _last_json(capsys)
    assert max(done["parity"].values()) < 1e-3
    assert {"templora-onnx.json", "decoder.onnx", "head.onnx", "weights.data", "config.json", "tokenizer.json"} <= {
        path.name for path in out.iterdir()
    }
    graph = ["--forward", "onnx", "--set", f"onnx.graph={out}"]
    scored, written = {}, {}
    for name, options in {"torch": [], "graph": graph, "cached": ["--forward", "onnx"]}.items():
        common = ["--model", str(model), "--json", *SMALL, *options]
        assert cli.main(["score", str(text), "--max-tokens", "144", *common]) == 0
        scored[name] = _last_json(capsys)
        if name != "cached":
            assert cli.main(["write", "--prompt", "Call me", "--tokens", "60", *common]) == 0
            written[name] = _last_json(capsys)["text"]
    there = scored["torch"]["adapter"]["perplexity"]
    assert abs(there / scored["torch"]["base"]["perplexity"] - 1) > 0.01  # it did learn
    for name in ("graph", "cached"):
        assert scored[name]["adapter"]["perplexity"] == pytest.approx(there, rel=1e-4)
    assert written["graph"] == written["torch"]
    (made,) = (path for path in (tmp_path / "cache" / "onnx").iterdir() if path.is_dir())  # a lock lies beside
    assert manifest.read(made).precision == "nf4"


def test_translating_through_a_graph(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    data, book = tmp_path / "aligned.json", tmp_path / "book.txt"
    lines = ["Call me Ishmael.", "Some years ago.", "I went to sea.", "I had no money."]
    data.write_text(json.dumps([{"inference": [{"en": line, "de": line.upper()} for line in lines]}] * 2), "utf-8")
    book.write_text("\n\n".join(lines), "utf-8")
    found, books = {}, {}
    for name, options in {"torch": [], "graph": ["--forward", "onnx"]}.items():
        common = ["--from", "en", "--to", "de", "--model", str(model), *SMALL, *options, "--context-units", "1"]
        common += ["--no-run", "--set", "window.size=400", "--set", "window.chunk=200", "--json"]
        asked = [part for part in common if part != "--no-run"]
        assert cli.main(["eval", "translate", str(data), *asked, "--protocols", "off,oracle"]) == 0
        found[name] = _last_json(capsys)["protocols"]
        out = tmp_path / f"{name}.txt"
        assert cli.main(["translate", str(book), "--out", str(out), "--learn", "source", *common]) == 9
        books[name] = out.read_bytes()
    for protocol, row in found["torch"].items():
        assert found["graph"][protocol]["perplexity"] == pytest.approx(row["perplexity"], rel=1e-4)
    assert books["graph"] == books["torch"]


def test_a_manifest_of_another_graph_is_refused(exported: Path, damaged: Path) -> None:
    """Each sound alone, sealed too: arrays that the graph does not take or give, or takes in another shape."""
    made = manifest.read(exported)
    lora = made.lora
    name = next(iter(lora))
    (k, n) = lora[name]
    for change in (
        {"lora": {**lora, name: (k // 2, n)}},
        {"lora": {**lora, name: (k, 2 * n)}},
        {"lora": {**lora, "layers.9.q": (k, n)}},
        {"lora": {key: shape for key, shape in lora.items() if key != name}},
        {"layers": made.layers + 1},
        {"layers": made.layers - 1},
        {"groups": 2 * made.groups},
        {"head_size": made.head_size // 2},
        {"cache": "float16"},
        {"sliding": [0], "window": 16},
    ):
        replace(made, **change).save(damaged)
        with pytest.raises(ExportError, match=r"decoder\.onnx .*; expected .*; export it again"):
            Engine(damaged)
    for number in (10**12, -1):  # nothing of that size is made
        replace(made, layers=number).save(damaged)
        with pytest.raises(ExportError, match=r"says layers=.*as the graphs have; export it again"):
            Engine(damaged)
    made.save(damaged)
    assert Engine(damaged).manifest == made


def test_a_graph_that_cannot_be_computed_is_refused_in_one_line(
    exported: Path, damaged: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Sound for ONNX Runtime, sealed, and out of bounds when it runs; and a runtime without memory is out of memory."""
    path = damaged / manifest.HEAD
    graph = onnx.load(path, load_external_data=False)
    nodes = [node for outer in graph.graph.node for part in outer.attribute for node in part.g.node]
    (axis,) = {
        part.name: part for node in nodes if node.op_type == "GatherElements" for part in node.attribute
    }.values()
    assert axis.i == 1
    for node in nodes:
        for part in node.attribute:
            part.i = 0 if node.op_type == "GatherElements" else part.i
    path.write_bytes(graph.SerializeToString())
    made = manifest.read(exported)
    replace(made, files={**made.files, path.name: (path.stat().st_size, journal.file_fingerprint(path))}).save(damaged)
    opened = Engine(damaged)
    with pytest.raises(ExportError, match=r"cannot be computed \(.*GatherElements.*; export it again"):
        engine.Reader(opened).nll(np.arange(40, 60), 10, opened.nothing)
    assert capfd.readouterr().err == ""
    with pytest.raises(MemoryError), opened.computing():
        raise onnxruntime_pybind11_state.RuntimeException("Failed to allocate memory for requested buffer of size 9")


def test_a_taken_folder_is_refused(exported: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in exported.iterdir())
    with pytest.raises(ExportError, match="exists"):
        exporter.export(tiny.runtime("llama").base, exported)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in exported.iterdir()) == before


@pytest.mark.parametrize("name", ["decoder.onnx", "head.onnx", "weights.data", "tokenizer.json"])
def test_missing_cut_and_flipped_files_are_refused(damaged: Path, name: str) -> None:
    path = damaged / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExportError, match=r"damaged.*export it again"):
        Engine(damaged)
    path.write_bytes(data[:-1])
    with pytest.raises(ExportError, match="bytes"):
        Engine(damaged)
    path.unlink()
    with pytest.raises(ExportError, match=f"{name} is missing"):
        Engine(damaged)


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_rows_of_the_embedding_are_read_from_the_file(precision: str, tmp_path: Path) -> None:
    base = tiny.runtime("llama").base
    made = exporter.export(base, tmp_path / "graph", precision)
    rows, weight = Rows(tmp_path / "graph" / manifest.WEIGHTS, made.embedding), base.model.get_input_embeddings().weight
    ids = np.array([7, 3, 7, made.vocab - 1])
    kept = nf4.vocabulary(weight, precision)
    wanted = (nf4.from_int8(kept) if isinstance(kept, nf4.Int8) else kept.weight)[ids]
    assert np.array_equal(rows(ids), wanted.numpy())
    assert rows(ids[:0]).shape == (0, made.hidden)
    for wrong in (-1, made.vocab):
        with pytest.raises(IndexError, match=f"of a vocabulary of {made.vocab}"):
            rows(np.array([1, wrong]))
    os.truncate(rows.path, made.embedding.offset + 4)
    with pytest.raises(ExportError, match=r"cannot be read \(.* bytes of row 3\).*export it again"):
        rows(ids)


def test_the_head_is_mapped_and_gives_its_memory_back(tmp_path: Path) -> None:
    base = tiny.runtime("llama").base
    made = exporter.export(base, tmp_path / "graph", "nf4")
    mapped = Mapped(tmp_path / "graph" / manifest.WEIGHTS, made.head)
    assert np.array_equal(mapped.matrix, base.head.weight.numpy())
    resident = _resident(mapped)
    mapped.release()
    assert _resident(mapped) == 0 < resident
    assert np.array_equal(mapped.matrix, base.head.weight.numpy())
    with pytest.raises(ExportError, match=r"cannot be read.*export it again"):
        Mapped(tmp_path / "nothing", made.head)
    with pytest.raises(ExportError, match=r"cannot be read.*export it again"):
        Mapped(tmp_path / "graph" / manifest.WEIGHTS, replace(made.head, rows=1 << 30))


def _resident(mapped: Mapped) -> int:
    """KiB of the matrix that this process has in memory."""
    at = mapped.matrix.ctypes.data
    held, inside = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= at < int(found[2], 16)
        elif inside and line.startswith("Rss:"):
            held += int(line.split()[1])
    return held


DECODES = """
import resource, sys
from pathlib import Path
import numpy as np
from edge.machine.allocator import tune_allocator
from export.engine import Engine, Reader

tune_allocator()
engine = Engine(Path(sys.argv[1]), threads=1)
reader, buffers = Reader(engine), engine.buffers(64)
reader.extend(np.arange(2, 10), buffers, 0, engine.nothing)

def faults(start):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for position in range(start, start + 20):
        reader.decode(5, buffers, position, engine.nothing)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(8)
assert "torch" not in sys.modules
print(faults(28), engine.manifest.widened // resource.getpagesize())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_a_decoder_that_widens_its_weights_asks_for_no_pages(tmp_path: Path) -> None:
    base = tiny.runtime("llama", nf4=True, hidden_size=512, intermediate_size=2560).base
    exporter.export(base, tmp_path / "graph", "nf4")
    done = subprocess.run(
        [sys.executable, "-c", DECODES, str(tmp_path / "graph")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    faults, widened = map(int, done.stdout.split())
    assert widened == 4 * 512 * 2560 // os.sysconf("SC_PAGE_SIZE")
    assert faults < widened  # in 20 tokens; anew for each, it would be six times as many for every one


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", f'{{"format": {manifest.FORMAT}}}', f'{{"format": {manifest.FORMAT}, "files": 3, "lora": {{}}}}'],
)
def test_damaged_manifests_are_refused(damaged: Path, text: str) -> None:
    (damaged / manifest.MANIFEST).write_text(text)
    with pytest.raises(ExportError, match="damaged"):
        Engine(damaged)


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_places_that_were_changed_are_refused(precision: str, tmp_path: Path) -> None:
    """Another place gives other rows and no error: neither by hand, nor by a program that seals what it wrote."""
    folder = tmp_path / "graph"
    made = exporter.export(tiny.runtime("llama").base, folder, precision)
    path = folder / manifest.MANIFEST
    whole = path.read_text()
    values = json.loads(whole)
    for matrix in ("embedding", "head"):
        there = values[matrix]
        for name, number in (
            ("offset", there["offset"] + 256),
            ("rows", there["rows"] - 1),
            ("block", 32),
            ("scales", 4),
        ):
            path.write_text(json.dumps({**values, matrix: {**there, name: number}}))
            with pytest.raises(ExportError, match=r"was changed.*export it again"):
                Engine(folder)
        end = made.files[manifest.WEIGHTS][0]
        place = getattr(made, matrix)
        for name, number in (
            ("offset", end),
            ("offset", -4),
            ("offset", 1 << 70),
            ("rows", place.rows - 1),
            ("block", -1),
        ):
            replace(made, **{matrix: replace(place, **{name: number})}).save(folder)
            with pytest.raises(ExportError, match=rf"places the {matrix} at"):
                Engine(folder)
    other = replace(made.head, offset=made.embedding.offset + 4 * made.hidden)
    replace(made, head=other).save(folder)
    with pytest.raises(ExportError, match="places the head at"):  # inside the file, but over the embedding
        Engine(folder)
    path.write_text(whole)
    assert Engine(folder).manifest == made


def test_an_export_says_which_file_its_base_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that `models remove` finds it; seen from the command line to the folder that is gone."""
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    path, text = tiny.gguf(tmp_path / "m.gguf"), tmp_path / "text.txt"
    text.write_text(tiny.TEXT)
    score = ["score", str(text), "--model", str(path), "--max-tokens", "60", "--forward", "onnx", *SMALL]
    assert cli.main([*score, "--set", "learn.mode=none"]) == 0
    (made,) = (found for found in (tmp_path / "cache" / "onnx").iterdir() if found.is_dir())
    source = sources.resolve(str(path))
    assert manifest.read(made).source == source.sha256
    other = tmp_path / "cache" / "onnx" / "other"
    shutil.copytree(made, other)
    replace(manifest.read(made), source="ab" * 32).save(other)
    size = sum(found.stat().st_size for found in made.iterdir())
    assert sources.remove_exports(source, lambda line: None) == size
    assert not made.exists() and other.is_dir()


def test_no_manifest_older_manifest_other_base(damaged: Path) -> None:
    path = damaged / manifest.MANIFEST
    with pytest.raises(ExportError, match="another base"):
        Engine(damaged, fingerprint=tiny.runtime("llama", seed=1).base.fingerprint())
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format": 0}))
    with pytest.raises(ExportError, match=rf"version 0.*version {manifest.FORMAT}"):
        Engine(damaged)
    path.unlink()
    with pytest.raises(ExportError, match=r"there is no"):
        Engine(damaged)


def test_an_opset_that_the_runtime_does_not_know(damaged: Path) -> None:
    path = damaged / manifest.DECODER
    model = onnx.load(path, load_external_data=False)
    model.opset_import[0].version = 99
    path.write_bytes(model.SerializeToString())
    made = manifest.read(damaged)
    files = {**made.files, path.name: (path.stat().st_size, journal.file_fingerprint(path))}
    replace(made, opset=99, files=files).save(damaged)
    with pytest.raises(ExportError, match=r"cannot load .*opset 99"):
        Engine(damaged)


def test_unknown_architectures_and_parts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny.runtime("llama").base
    monkeypatch.setattr(base.model.config, "model_type", "mamba")
    with pytest.raises(ExportError, match="architecture 'mamba'"):
        exporter.export(base, tmp_path / "out")
    base = tiny.runtime("llama", hidden_act="relu").base
    with pytest.raises(ExportError, match="activation 'relu'"):
        exporter.export(base, tmp_path / "out")
    base = tiny.runtime("llama", rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}).base
    with pytest.raises(ExportError, match="rotary embedding of type 'dynamic'"):
        exporter.export(base, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_says_something_else_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graph._ACTIVATIONS, "silu", ("Gelu", {}))
    with pytest.raises(ExportError, match="spreads away"):
        exporter.export(tiny.runtime("llama").base, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_for_the_tokenizer_is_said(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file is written in Rust, whose error is no OSError."""
    save = PreTrainedTokenizerFast._save_pretrained

    def full(*args: Any, **options: Any) -> Any:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            return save(*args, **options)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(PreTrainedTokenizerFast, "_save_pretrained", full)
    assert cli.main(["export", str(model), str(tmp_path / "graph")]) == 8
    assert f"error: cannot write {tmp_path / 'graph'}: File too large" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_is_not_there(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match=r"CUDAExecutionProvider.*onnx-gpu"):
        Engine(exported, provider="cuda")
    assert Engine(exported).device == "cpu"
    # one that is named but does not take the graph: the runtime falls back to the CPU in silence
    monkeypatch.setattr(engine, "choose", lambda provider, exported_for: "cuda")
    with pytest.raises((DeviceError, ExportError), match="CUDAExecutionProvider"):
        Engine(exported, provider="cuda")


def test_the_cached_export_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path))
    base_runtime = tiny.runtime("qwen3", "forward=onnx")
    (made,) = (path for path in (tmp_path / "onnx").iterdir() if path.is_dir())  # a lock lies beside
    before = (made / "weights.data").stat().st_mtime_ns
    with tiny.runtime("qwen3", "forward=onnx").session() as session, base_runtime.session() as other:
        assert torch.equal(*(s.forward.nll(torch.arange(2, 40), 9) for s in (session, other)))
    assert (made / "weights.data").stat().st_mtime_ns == before


def test_optimum_cli(model: Path, tmp_path: Path) -> None:
    """The registration lies in Optimum's namespace: as installed, or put there where the package is not installed."""
    site = tmp_path / "site" / "optimum" / "commands" / "register"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = importlib.util.find_spec("optimum.commands.register")
    places = list(found.submodule_search_locations or ()) if found else []
    if not any((Path(place) / "register_templora.py").is_file() for place in places):
        site.parent.mkdir(parents=True)
        site.symlink_to(ROOT / "export" / "optimum_register", target_is_directory=True)
        environment["PYTHONPATH"] = f"{ROOT}:{tmp_path / 'site'}"
    command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "templora", str(model)]
    done = subprocess.run([*command, str(tmp_path / "out")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert manifest.read(tmp_path / "out").precision == "nf4"
    again = subprocess.run([*command, str(tmp_path / "out")], env=environment, capture_output=True, text=True)
    assert again.returncode == ExportError.exit_code
    assert again.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in again.stderr
