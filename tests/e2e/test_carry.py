"""Between volumes: adapter, corrections and terms of one go on in the next; adapters come and go as peft folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edge import cli, journal, resume
from edge.commands import carry
from edge.documents import open_document
from edge.errors import JournalError
from edge.translation import decoding, glossary, languages, lessons, loop
from edge.weights import tensorfile
from tests import tiny
from tests.e2e.test_translate import (
    GERMAN,
    LINES,
    OWN,
    SMALL,
    TO_GERMAN,
    command,
    german,
    last_json,
    model,
    plain,
    records,
)  # fmt: skip
from tests.parity.test_experts import FAMILIES

__all__ = ["german", "model"]  # fixtures
FAST = ["--set", "learn.lr=1e-3"]
EN, DE = languages.find("en"), languages.find("de")


@pytest.fixture
def books(tmp_path: Path) -> tuple[Path, Path]:
    """Two volumes."""
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("\n\n".join(LINES[:10]) + "\n", "utf-8")
    two.write_text("\n\n".join(LINES[10:]) + "\n", "utf-8")
    return one, two


def adapter(run: Path) -> dict[str, torch.Tensor]:
    return dict(tensorfile.TensorFile(run / "files" / journal.ADAPTER).items())


def test_a_term_of_the_second_volume_goes_before_the_same_of_the_first() -> None:
    left = carry.Carried(Path("first"), None, "", terms={"O'Brien": "A", "Whale": "B", "sea": "C"})
    job = loop.Job((), EN, DE, glossary=glossary.Glossary({"O’Brien": "D", "whale": "E"}))
    assert left.into(job).glossary.terms == {"sea": "C", "O’Brien": "D", "whale": "E"}


def test_a_second_volume_begins_where_the_first_ended(
    model: str, books: tuple[Path, Path], german: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    one, two = books
    terms, mine = tmp_path / "terms.tsv", tmp_path / "mine.tsv"
    terms.write_text("ship\tSchiff\nwhale\tWal\n", "utf-8")
    mine.write_text(f"{LINES[12]}\tDer Wal kam nie wieder.\n{LINES[0]}\t{GERMAN[LINES[0]]}\n", "utf-8")
    first, second = tmp_path / "first", tmp_path / "second"
    given = ["--glossary", str(terms), "--corrections", str(mine), "--learn", "self,corrections"]
    assert cli.main(command(model, one, *FAST, *given, "--run", str(first))) == 0
    assert not list((first / "snapshots").iterdir())
    began: list[dict[str, torch.Tensor]] = []
    started = carry.Carried.begin

    def seen(self: carry.Carried, session: Any, runtime: Any) -> float:
        used = started(self, session, runtime)
        began.append(session.adapter.snapshot())
        return used

    monkeypatch.setattr(carry.Carried, "begin", seen)
    asked: list[loop.Request] = []
    translate = decoding.ModelTranslator.translate

    def noted(self: Any, request: loop.Request) -> loop.Draft:
        asked.append(request)
        return translate(self, request)

    monkeypatch.setattr(decoding.ModelTranslator, "translate", noted)
    capsys.readouterr()
    report = ["--report", str(tmp_path / "rep")]
    assert (
        cli.main(command(model, two, *FAST, *OWN, "--carry", str(first), "--run", str(second), "--json", *report)) == 0
    )
    captured = capsys.readouterr()
    assert f"begins with the adapter, 2 corrections and 2 terms of {first}" in captured.err
    result = json.loads(captured.out.splitlines()[-1])
    assert result["carried"] == {
        "from": str(first), "corrections": 2, "terms": 2,
        "adapter_file_sha256": journal.file_fingerprint(first / "files" / journal.ADAPTER),
    }  # fmt: skip
    assert "2 corrections and 2 terms" in (tmp_path / "rep/report.html").read_text("utf-8")
    # bit for bit that adapter, and what was learned since
    (start,) = began
    assert start.keys() == adapter(first).keys() and all(torch.equal(start[n], t) for n, t in adapter(first).items())
    assert any(not torch.equal(start[name], tensor) for name, tensor in adapter(second).items())
    # the correction is taken as it is, and not taught a second time; the terms are asked for
    assert open_document(tmp_path / "two.de.txt").units[2].text == "Der Wal kam nie wieder."
    assert {lesson["of"] for lesson in result["lessons"]} == {"self"} and LINES[12] not in [r.source for r in asked]
    assert any(("whale", "Wal") in request.terms for request in asked)
    # another run than one that begins fresh, and exactly the same again
    again = command(model, two, *FAST, *OWN, "--carry", str(first), "--run", str(tmp_path / "again"))
    assert cli.main([*again, "--limit", "4"]) == 0 and cli.main(again) == 0
    assert plain(records(tmp_path / "again")) == plain(records(second))
    assert all(torch.equal(adapter(tmp_path / "again")[name], tensor) for name, tensor in adapter(second).items())
    assert cli.main(command(model, two, *FAST, *OWN, "--run", str(tmp_path / "again"))) == 7
    # and a third takes it all on: what was accepted in both is where names are remembered from
    third = carry.find(str(second))
    assert len(third.corrections) == 2
    assert [pair.source for pair in third.earlier] == [line for line in LINES if line not in (LINES[0], LINES[12])]


def test_what_does_not_fit_is_refused_in_one_line(
    model: str, books: tuple[Path, Path], german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = books
    first = tmp_path / "first"
    assert cli.main(command(model, one, "--run", str(first), "--limit", "5")) == 0
    other = str(tiny.folder(tmp_path / "other", "qwen3", seed=3, max_position_embeddings=2048))

    def refused(code: int, words: str, *more: str, on: str = model, carried: Path = first) -> None:
        capsys.readouterr()
        assert cli.main(command(on, two, "--no-run", "--carry", str(carried), *more)) == code
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("error: ") and words in line, line

    refused(7, "is resumable; expected a finished run")
    assert cli.main(command(model, one, "--run", str(first))) == 0
    refused(7, "holds no run", carried=tmp_path / "nothing")
    refused(2, "has rank 4; expected adapter.rank=8; --set adapter.rank=4", "--set", "adapter.rank=8")
    refused(2, "lies on 14 layers", "--set", "adapter.modules=[attention]")
    refused(2, "learn.mode=none", "--set", "learn.mode=none")
    refused(4, "made on another base", on=other)
    off = tmp_path / "off"
    assert cli.main(command(model, one, "--run", str(off), "--learn", "off")) == 0
    refused(7, "learned nothing that was kept", carried=off)
    path = first / "files" / journal.ADAPTER
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    refused(4, "is damaged")
    assert cli.main(["runs", "prune", "first", "--root", str(tmp_path)]) == 0
    assert not path.exists() and (first / "records.jsonl").exists()
    refused(7, "was removed")


def test_an_adapter_goes_out_as_a_peft_folder_and_comes_in(
    model: str, books: tuple[Path, Path], german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plain transformers with plain peft give the session's logits with it; a session that takes it in begins as one
    that carries the run."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import edge

    one, two = books
    run, folder = tmp_path / "first", tmp_path / "adapter"
    full = ["--set", "base.precision=full", *FAST, *OWN]
    assert cli.main(command(model, one, *full, "--run", str(run))) == 0
    assert cli.main(["runs", "export-adapter", "first", "--root", str(tmp_path), "--out", str(folder)]) == 0
    plainly = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), str(folder))
    ids = torch.tensor(tiny.tokenizer()(tiny.TEXT)["input_ids"][:200])
    with torch.inference_mode():
        wanted = plainly.eval()(ids[None]).logits[0]
        base = plainly.unload()(ids[None]).logits[0]
    runtime = edge.load(model, overrides=["base.precision=full", "window.size=1024", "window.chunk=256",
                                          "adapter.rank=4", "compute.threads=1", "compute.matmul=float32"])  # fmt: skip
    with runtime.session() as session:
        carry.find(str(folder)).begin(session, runtime)
        with torch.inference_mode():
            found = torch.log_softmax(session.torch_forward.prefill(ids)[0].float(), -1)
        fingerprint = session.adapter.fingerprint() if session.adapter else ""
    last = torch.log_softmax(wanted[-1], -1)
    away = (found.flatten() - last).abs().max()
    assert away < 1e-3 < 0.01 < (last - torch.log_softmax(base[-1], -1)).abs().max()
    assert fingerprint == json.loads((run / "files/adapter.json").read_text())["adapter_sha256"]
    capsys.readouterr()
    done = []
    for carried in (run, folder):
        args = command(model, two, *full, "--carry", str(carried), "--run", str(tmp_path / f"from-{carried.name}"))
        assert cli.main([*args, "--json"]) == 0
        done.append(last_json(capsys)["lessons"])
    assert done[0] == done[1]
    bare = resume.journal.file_fingerprint(folder / "adapter_model.safetensors")
    (folder / "templora.json").unlink()  # as another program writes one
    assert carry.find(str(folder)).sha256 == bare
    assert cli.main(command(model, two, *full, "--carry", str(folder), "--no-run")) == 0
    config = folder / "adapter_config.json"
    whole = config.read_text()
    large = 10**400  # no float holds it
    changes = (
        {"use_dora": True},
        {"r": "x"},
        {"peft_type": "IA3"},
        {"bias": "all"},
        {"r": large},
        {"lora_alpha": large},
    )
    for change in changes:
        config.write_text(json.dumps({**json.loads(whole), **change}))
        capsys.readouterr()
        assert cli.main(command(model, two, *full, "--carry", str(folder), "--no-run")) == 4
        assert str(config) in capsys.readouterr().err.splitlines()[-1]


def test_what_corrections_have_taught_is_used_in_part_wherever_it_goes(
    model: str, books: tuple[Path, Path], german: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = books
    data, mine = tmp_path / "pairs.tsv", tmp_path / "mine.tsv"
    data.write_text("".join(f"{line}\t{GERMAN[line]}\n" for line in LINES[:6]), "utf-8")
    mine.write_text(data.read_text("utf-8"), "utf-8")
    run, folder = tmp_path / "first", tmp_path / "adapter"
    used: list[float] = []
    translate = decoding.ModelTranslator.translate

    def noted(self: Any, request: loop.Request) -> loop.Draft:
        used.append(self.session.adapter.strength)
        return translate(self, request)

    monkeypatch.setattr(decoding.ModelTranslator, "translate", noted)

    def strengths(*args: str) -> set[float]:
        used.clear()
        assert cli.main(list(args)) == 0
        return set(used)

    part = lessons.STRENGTH
    given = ["--corrections", str(mine), "--run", str(run), "--set", "adapter.alpha=12"]
    assert strengths(*command(model, one, *FAST, *given)) == {part}
    assert cli.main(["runs", "export-adapter", "first", "--root", str(tmp_path), "--out", str(folder)]) == 0
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] == pytest.approx(12 * part)
    for learn, expected in (([], part), (["--learn", "off"], part), (OWN, 1.0)):
        for place in (run, folder):
            more = ["--carry", str(place), *learn, "--set", "adapter.alpha=12", "--no-run"]
            assert strengths(*command(model, two, *FAST, *more)) == {expected}
    evaluating = ["eval", "translate", str(data), *TO_GERMAN, "--model", model, *SMALL, "--generate", "all"]
    assert strengths(*evaluating, "--protocols", "corrections", "--given", "1") == {part}
    assert strengths(*evaluating, "--protocols", "self,oracle,off") == {1.0}

    import edge

    runtime = edge.load(model, overrides=["window.size=1024", "window.chunk=256", "adapter.rank=4", "adapter.alpha=12"])
    ids = torch.arange(2, 60)

    def begun() -> tuple[str, float, torch.Tensor]:
        with runtime.session() as session:
            session.adapter.strength = carry.find(str(folder)).begin(session, runtime)
            return session.adapter.fingerprint(), session.adapter.strength, session.torch_forward.prefill(ids)[0]

    sum_of_all, strength, wanted = begun()
    assert sum_of_all == json.loads((run / "files/adapter.json").read_text())["adapter_sha256"] and strength == part
    (folder / "templora.json").unlink()  # as another program writes one: what peft computes is there, and no more
    _, strength, found = begun()
    assert strength == 1.0 and torch.allclose(found, wanted, rtol=1e-4, atol=1e-5)
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 1e-9}))
    assert (begun()[2] - wanted).abs().max() > 0.01


@pytest.mark.parametrize("damage", [
    "[]", "3", '{"corrections": 3}', '{"corrections": [["one"]]}', '{"earlier": [[1, 2]]}', '{"glossary": ["x"]}',
    '{"glossary": {"ship": 3}}', '{"corrections": null}', "{", "\xff",
])  # fmt: skip
def test_what_a_run_left_is_read_or_refused_in_one_line(
    damage: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By `render`, and by the volume that carries it."""
    path = finished / "files" / carry.JOB
    whole = path.read_bytes()
    path.write_bytes(damage.encode("latin-1"))
    try:
        capsys.readouterr()
        assert cli.main(["render", str(finished), "--out", str(tmp_path / "out.txt")]) == 7
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ") and str(path) in line
        with pytest.raises(JournalError, match="cannot be read"):
            carry.find(str(finished))
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def finished(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a short volume, with a random model's own words."""
    root = tmp_path_factory.mktemp("finished")
    book = root / "one.txt"
    book.write_text("\n\n".join(LINES[:2]) + "\n", "utf-8")
    assert cli.main(command(model, book, "--run", str(root / "run"))) in (0, 9)
    return root / "run"


@pytest.mark.parametrize("family", ["mixtral", "llama4_text"])
def test_experts_go_out_and_come_in_too(
    family: str, books: tuple[Path, Path], german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the commands alone: plain peft on the full-precision model gives the logits of a session that carries."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    import edge

    one, two = books
    folder = str(tiny.folder(tmp_path / family, family, **FAMILIES[family], max_position_embeddings=2048))
    experts = ["--set", "base.precision=full", "--set", "adapter.modules=[attention,mlp,experts]", *FAST, *OWN]
    run, out = tmp_path / "first", tmp_path / "adapter"
    assert cli.main(command(folder, one, *experts, "--run", str(run))) == 0
    assert any(tensor.ndim == 3 and bool(tensor.any()) for name, tensor in adapter(run).items() if "lora_B" in name)
    assert cli.main(["runs", "export-adapter", "first", "--root", str(tmp_path), "--out", str(out)]) == 0
    ids = torch.tensor(tiny.tokenizer()(tiny.TEXT)["input_ids"][:200])
    plainly = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), str(out))
    with torch.inference_mode():
        wanted = torch.log_softmax(plainly.eval()(ids[None]).logits[0, -1], -1)
        base = torch.log_softmax(plainly.unload()(ids[None]).logits[0, -1], -1)
    overrides = ["base.precision=full", "window.size=1024", "window.chunk=256", "adapter.rank=4", "compute.threads=1",
                 "compute.matmul=float32", "adapter.modules=[attention,mlp,experts]"]  # fmt: skip
    runtime = edge.load(folder, overrides=overrides)
    for carried in (run, out):
        with runtime.session() as session:
            carry.find(str(carried)).begin(session, runtime)
            with torch.inference_mode():
                found = torch.log_softmax(session.torch_forward.prefill(ids)[0].float(), -1).flatten()
            assert session.adapter and session.adapter.fingerprint() == json.loads(
                (run / "files/adapter.json").read_text()
            )["adapter_sha256"]  # fmt: skip
        assert (found - wanted).abs().max() < 1e-3 < 0.01 < (wanted - base).abs().max()
    capsys.readouterr()
    assert cli.main(command(folder, two, *experts[:2], *FAST, *OWN, "--carry", str(out), "--no-run")) == 2
    assert "use the same model, adapter.modules and adapter.layers" in capsys.readouterr().err.splitlines()[-1]
