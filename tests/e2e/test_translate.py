"""`templora translate`, `glossary` and `eval` through the command line, as a user would."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from edge import cli
from edge.documents import open_document
from edge.machine import held
from edge.translation import decoding, evaluate, guards, loop, metrics
from edge.translation.learned import Sample
from tests import chinese, comets, tiny
from tests.commands import Command
from tests.unit.documents import books

SMALL = [
    "--set",
    "compute.threads=1",
    "--set",
    "window.chunk=256",
    "--set",
    "window.size=1024",
    "--set",
    "adapter.rank=4",
    "--set",
    "learn.lr=8e-4",
]
TO_GERMAN = ["--from", "en", "--to", "de"]
LINES = [
    f"{start} {middle}."
    for start in ("The captain", "Her old ship", "A white whale", "My brother")
    for middle in (
        "went out to sea",
        "was seen by all of us",
        "did not come back",
        "slept through the storm",
        "was never found",
    )
]
GERMAN = dict(
    zip(
        LINES,
        (
            f"{start} {middle}."
            for start in ("Der Kapitän", "Ihr altes Schiff", "Ein weißer Wal", "Mein Bruder")
            for middle in (
                "fuhr hinaus aufs Meer",
                "wurde von uns allen gesehen",
                "kam nicht zurück",
                "schlief während des Sturms",
                "wurde nie gefunden",
            )
        ),
        strict=True,
    )
)

SHORT = [
    f"{first} {second}." for first in ("Old", "New", "My", "His") for second in ("sea", "ship", "men", "dog", "bed")
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("translate") / "model", "qwen3", max_position_embeddings=2048))


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(LINES) + "\n", "utf-8")
    return path


@pytest.fixture
def german(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that knows the lines of the book."""

    def translate(self: Any, request: loop.Request) -> loop.Draft:
        self.session.at_rest = False
        return loop.Draft(GERMAN.get(request.source, ""), 9)

    monkeypatch.setattr(decoding.ModelTranslator, "translate", translate)


@pytest.fixture
def upper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that answers in capitals, and guards that let it."""
    monkeypatch.setattr(decoding.ModelTranslator, "translate", lambda self, r: loop.Draft(books.upper(r.source), 9))
    lenient = guards.Limits(off=frozenset({"copy", "language", "loop", "noise"}))
    judge = guards.problems
    monkeypatch.setattr(guards, "problems", lambda case, limits=None: judge(case, lenient))


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])  # type: ignore[no-any-return]


OWN = ["--learn", "self"]


def command(model: str, book: Path, *more: str) -> list[str]:
    return ["translate", str(book), *TO_GERMAN, "--model", model, *SMALL, *more]


def test_a_book_is_translated_and_reported(
    model: str, book: Path, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rep = tmp_path / "report"
    assert cli.main(command(model, book, "--run", str(tmp_path / "run"), "--report", str(rep), "--json", *OWN)) == 0
    result = last_json(capsys)
    assert [u.text for u in open_document(tmp_path / "book.de.txt").units] == list(GERMAN.values())
    assert result["units"] == {
        "total": 20,
        "done": 20,
        "model": 20,
        "pieces": 0,
        "corrected": 0,
        "copied": 0,
        "marked": 0,
    }
    assert len(result["lessons"]) >= 2 and all(
        lesson["of"] == "self" and lesson["kept"] for lesson in result["lessons"]
    )
    assert result["peak_bytes"] > 1e8 and result["seconds"] > 0
    assert json.loads((rep / "report.json").read_text("utf-8"))["units"] == result["units"]
    assert "Marked units" not in (rep / "report.html").read_text("utf-8")
    assert len((rep / "review.tsv").read_text("utf-8").splitlines()) == 21


def test_what_the_model_doubts_is_to_be_looked_at(
    model: str, book: Path, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rep = tmp_path / "report"
    assert cli.main(command(model, book, "--no-run", "--report", str(rep), "--json", "--judge", *OWN)) == 0
    result = last_json(capsys)
    assert result["lessons"] and 0 < len(result["doubtful"]) < result["units"]["total"]
    assert [d["gain"] for d in result["doubtful"]] == sorted(d["gain"] for d in result["doubtful"]) and result[
        "doubtful"
    ][-1]["gain"] < 0
    rows = [line.split("\t") for line in (rep / "review.tsv").read_text("utf-8").splitlines()[1:]]
    assert {row[3] for row in rows if row[5] == "?"} == {d["id"] for d in result["doubtful"]}
    assert "To be looked at first" in (rep / "report.html").read_text("utf-8")


def test_learning_changes_what_it_says_it_does(
    model: str, book: Path, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way of learning lowers the nats of its own next lessons, or is not there at all."""
    corrections = tmp_path / "mine.tsv"
    corrections.write_text("".join(f"{line}\t{GERMAN[line]}\n" for line in LINES[:8]), "utf-8")
    seen = {}
    for learn in ("off", "self", "source", "corrections", "self,source,corrections"):
        more = ["--corrections", str(corrections)] if "corrections" in learn else []
        assert (
            cli.main(command(model, book, "--no-run", "--learn", learn, *more, "--json", "--set", "learn.lr=1e-3")) == 0
        )
        seen[learn] = last_json(capsys)
    assert {lesson["of"] for lesson in seen["off"]["lessons"]} == {"none"}
    assert {lesson["of"] for lesson in seen["source"]["lessons"]} == {"source", "none"}
    assert seen["corrections"]["lessons"][0]["of"] == "corrections" and seen["corrections"]["units"]["corrected"] == 8
    assert {lesson["of"] for lesson in seen["self,source,corrections"]["lessons"]} == {"self", "source", "corrections"}
    first, *_, last = [lesson["perplexity"] for lesson in seen["self"]["lessons"]]
    assert last < first


def test_random_weights_end_with_every_unit_marked(
    model: str, book: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book.write_text("\n\n".join(SHORT[:5]) + "\n\n1894\n", "utf-8")
    rep = tmp_path / "report"
    assert cli.main(command(model, book, "--no-run", "--report", str(rep), "--json")) == 9
    captured = capsys.readouterr()
    result = json.loads(captured.out.splitlines()[-1])
    assert result["units"]["marked"] == result["units"]["total"] == 5 and result["lessons"] == []
    assert captured.err.strip().splitlines()[-1].startswith("error: 5 of 5 units could not be translated")
    assert [u.text for u in open_document(tmp_path / "book.de.txt").units] == [f"⚠ {line}" for line in SHORT[:5]]
    assert (tmp_path / "book.de.txt").read_text("utf-8").endswith("\n\n1894\n")
    assert "Marked units" in (rep / "report.html").read_text("utf-8")


def test_an_epub_keeps_its_structure(model: str, upper: None, tmp_path: Path) -> None:
    path, out = books.make_epub(tmp_path / "b.epub"), tmp_path / "out" / "b.epub"
    assert cli.main([*command(model, path, "--no-run", "--out", str(out)), "--learn", "off"]) == 0
    before, after = open_document(path), open_document(out)
    assert [u.text for u in after.units] == [books.upper(u.text) for u in before.units] and after.language == "de"
    assert set(books.entries_of(out)) == set(books.entries_of(path))


def test_bilingual_keeps_the_source(model: str, book: Path, german: None, tmp_path: Path) -> None:
    assert cli.main(command(model, book, "--no-run", "--bilingual")) == 0
    text = (tmp_path / "book.de.txt").read_text("utf-8")
    assert all(text.index(line) < text.index(GERMAN[line]) for line in LINES)


def test_an_edited_review_is_learned_and_used(
    model: str, book: Path, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rep = tmp_path / "report"
    assert cli.main(command(model, book, "--no-run", "--report", str(rep))) == 0
    review = rep / "review.tsv"
    review.write_text(
        review.read_text("utf-8").replace("Der Kapitän fuhr hinaus aufs Meer.", "Der Kapitän stach in See."), "utf-8"
    )
    capsys.readouterr()
    assert cli.main(command(model, book, "--no-run", "--corrections", str(review), "--json")) == 0
    result = last_json(capsys)
    assert result["units"]["corrected"] == 1 and result["lessons"][0]["of"] == "corrections"
    assert open_document(tmp_path / "book.de.txt").units[0].text == "Der Kapitän stach in See."


# --- continuing ---


def records(folder: Path) -> list[dict[str, Any]]:
    path = folder / "records.jsonl"
    return [json.loads(line)["record"] for line in path.read_bytes().splitlines()] if path.exists() else []


def plain(value: Any) -> Any:
    """Timings left aside."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k not in ("seconds", "peak_bytes")}
    return [plain(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("lines", ["1", "3"])
def test_killed_runs_give_the_same_book(lines: str, model: str, book: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, twice, between units that are looked up one by one or decoded side by side; then to the
    end: the same book, the same lessons.
    """
    corrections = tmp_path / "mine.tsv"  # what random weights make is marked: these pairs are what is learned
    corrections.write_text("".join(f"{line}\t{GERMAN[line]}\n" for n, line in enumerate(LINES) if n % 7), "utf-8")

    def args(name: str) -> list[str]:
        more = ["--run", str(tmp_path / name), "--out", str(tmp_path / f"{name}.txt"), "--set", "learn.lr=1e-3"]
        more += ["--lines", lines]
        return command(model, book, "--corrections", str(corrections), "--learn", "self,source,corrections", *more)

    whole = Command(args("whole"), anew=lines == "1")
    assert whole.wait(240) == 9
    chance, killed, folder = random.Random(0), 0, tmp_path / "killed"
    for attempt in range(2):
        child = Command([*args("killed"), *(["--resume"] if attempt else [])])
        wanted = len(records(folder)) + chance.randrange(2, 8)
        while child.poll() is None and len(records(folder)) < wanted:
            time.sleep(0.01)
        child.kill()
        killed += child.wait() == -signal.SIGKILL
    last = Command([*args("killed"), "--resume"])
    _, err = last.communicate(timeout=240)
    assert killed == 2 and last.returncode == 9, err
    assert (tmp_path / "killed.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()
    assert plain(records(folder)) == plain(records(tmp_path / "whole"))
    kinds = {r["of"] for r in records(folder) if r["kind"] == "lesson"}
    assert kinds == {"self", "source", "corrections"}


def test_a_stop_leaves_a_book_that_can_be_opened(model: str, book: Path, tmp_path: Path) -> None:
    book.write_text("\n\n".join(SHORT) + "\n", "utf-8")
    folder, out = tmp_path / "run", tmp_path / "out.txt"
    args = command(model, book, "--run", str(folder), "--out", str(out))
    child = Command(args)
    while child.poll() is None and len(records(folder)) < 3:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130 and b"--resume" in err and b"Traceback" not in err
    texts = [unit.text for unit in open_document(out).units]
    done = len(records(folder))
    assert len(texts) == 20 and texts[done:] == SHORT[done:] and texts[0] == f"⚠ {SHORT[0]}"
    for more in (["--learn", "off"], ["--judge"]):  # another way of learning, or judging too, is another run
        other = Command([*args[:-2], "--resume", *more])
        assert b"options" in other.communicate()[1] and other.returncode == 7


def test_a_long_book_in_flat_memory(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """100,000 characters, learned from to the end; a translator that is no model, to be done in a minute."""
    lines = [f"{LINES[n % 20][:-1]} on the {n}th day of the year." for n in range(2000)]
    path = tmp_path / "long.txt"
    path.write_text("\n\n".join(lines) + "\n", "utf-8")
    assert path.stat().st_size > 100_000
    sizes: list[int] = []

    def translate(self: Any, request: loop.Request) -> loop.Draft:
        day = int("".join(c for c in request.source if c.isdigit()))
        sizes.append(held.resident_memory())
        return loop.Draft(f"{GERMAN[LINES[day % 20]][:-1]} am {day}. Tag des Jahres.", 9)

    monkeypatch.setattr(decoding.ModelTranslator, "translate", translate)
    assert (
        cli.main(
            command(
                model,
                path,
                "--run",
                str(tmp_path / "run"),
                "--json",
                "--set",
                "learn.epochs=1",
                "--set",
                "window.chunk=512",
            )
        )
        == 0
    )
    result = last_json(capsys)
    assert result["units"]["model"] == 2000 and len(result["lessons"]) > 150
    assert max(sizes[1000:]) < 1.02 * max(sizes[200:1000])


# --- glossary and evaluation ---


def test_a_proposed_glossary_has_chinese_names_in_pinyin(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(chinese.book("张艳杰", "魏敏")))
    knows = partial(replace, is_word=chinese.is_word)  # a tokenizer that has the usual words: the tiny one has none
    monkeypatch.setattr("edge.commands.glossary.knowing_words", lambda job, runtime: knows(job))
    assert cli.main(["glossary", str(path), "--from", "zh", "--to", "en", "--model", model, *SMALL]) == 0
    rows = dict(line.split("\t")[:2] for line in capsys.readouterr().out.splitlines() if "\t" in line)
    assert rows["张艳杰"] == "Zhang Yanjie" and rows["魏敏"] == "Wei Min"


def test_a_glossary_is_proposed(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "b.txt", tmp_path / "g.tsv"
    path.write_text(
        "\n\n".join(f"Then old Ahab {verb} and Starbuck {verb}." for verb in ("ran", "sat", "slept")), "utf-8"
    )
    assert cli.main(["glossary", str(path), *TO_GERMAN, "--no-translations", "--out", str(out)]) == 0
    rows = [line.split("\t") for line in out.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert [row[:2] for row in rows] == [["Ahab", ""], ["Starbuck", ""]]
    assert cli.main(["glossary", str(path), *TO_GERMAN, "--model", model, *SMALL, "--json"]) == 0
    assert [term["source"] for term in last_json(capsys)["terms"]] == ["Ahab", "Starbuck"]


def test_protocols_are_measured_and_kept_apart(
    model: str, german: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "set[" / "novel].json"  # its path is no markup of the table's title
    data.parent.mkdir()
    chunks = [[{"en": line, "de": GERMAN[line]} for line in LINES[n : n + 4]] for n in range(0, 20, 4)]
    data.write_text(json.dumps([{"inference": chunk} for chunk in chunks]), "utf-8")
    (tmp_path / "marked.json").write_text(json.dumps(chunks[-1:]), "utf-8")
    args = ["eval", "translate", str(data), *TO_GERMAN, "--model", model, *SMALL, "--set", "learn.lr=1e-3", "--json",
            "--set", "compute.matmul=float32"]  # fmt: skip
    more = [
        "--protocols",
        "off,oracle,corrections,self,source",
        "--generate",
        str(tmp_path / "marked.json"),
        "--run",
        str(tmp_path / "run"),
    ]
    assert cli.main([*args, *more]) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    found = result["protocols"]
    assert list(found) == ["off", "oracle", "corrections", "self", "source"] and "version:" in out
    assert found["oracle"]["perplexity"] < found["off"]["perplexity"]
    assert {row["tokens"] for row in found.values()} == {found["off"]["tokens"]}
    for row in found.values():  # this model knows the lines of the book
        assert row["scored"] == 4 and row["marked"] == 0 and row["overlap"]["bleu"] == pytest.approx(100)
    assert [row["translated"] for row in found.values()] == [4, 4, 4, 20, 4]  # scored are the same in every protocol
    assert found["oracle"]["chunks"][0]["nll"] == pytest.approx(found["off"]["chunks"][0]["nll"], rel=1e-5)
    assert all(chunk["learned"] for chunk in found["source"]["chunks"])  # before the chunk itself is scored
    assert found["source"]["chunks"][0]["nll"] != pytest.approx(found["off"]["chunks"][0]["nll"], rel=1e-5)
    assert cli.main([*args, *more, "--resume"]) == 0  # all is there: nothing is measured again
    again = last_json(capsys)
    assert again["protocols"] == found and again["seconds"] < 5
    # 3. what was translated is scored by a learned metric, without being translated again
    metric = comets.write(tmp_path / "metric", "regression")
    assert cli.main([*args, *more, "--resume", "--metric", str(metric)]) == 0
    scored = last_json(capsys)["protocols"]
    samples = [Sample(line, GERMAN[line], GERMAN[line]) for line in LINES[16:20]]
    wanted = metrics.find(metric).load("cpu")(samples)  # this model writes the references
    for name, row in scored.items():
        assert {**row, "metric": None} == found[name]
        assert row["metric"]["name"] == "COMET" and row["metric"]["better"] == "higher"
        assert row["metric"]["scores"] == pytest.approx(wanted, abs=2e-6)
        assert row["metric"]["score"] == pytest.approx(sum(wanted) / 4, abs=2e-6)
    stored = torch.load(metric / "checkpoints" / "model.ckpt", weights_only=True)
    stored["state_dict"].pop("estimator.ff.6.bias")
    torch.save(stored, metric / "checkpoints" / "model.ckpt")
    assert cli.main([*args, *more, "--resume", "--metric", str(metric)]) == 4  # a metric that fails takes nothing along
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1])["protocols"] == found and "model.ckpt cannot be loaded" in err
    tight = str(held.resident_memory() + 200_000_000)  # the model's need fits, the metric's does not
    assert cli.main([*args, *more, "--resume", "--metric", str(metric), "--memory-budget", tight]) == 5
    assert "COMET takes" in capsys.readouterr().err


@pytest.mark.parametrize("at", [("off", 2), ("oracle", 1)], ids=["after a protocol", "in one"])
def test_a_stopped_measurement_says_how_to_go_on(
    at: tuple[str, int],
    model: str,
    german: None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, folder = tmp_path / "aligned.json", tmp_path / "run"
    chunks = [[{"en": line, "de": GERMAN[line]} for line in LINES[n : n + 4]] for n in range(0, 12, 4)]
    data.write_text(json.dumps([{"inference": chunk} for chunk in chunks]), "utf-8")
    args = ["eval", "translate", str(data), *TO_GERMAN, "--model", model, *SMALL, "--json", "--protocols", "off,oracle"]
    assert cli.main([*args, "--run", str(tmp_path / "whole")]) == 0
    whole = last_json(capsys)["protocols"]
    whole_way = evaluate.evaluate

    def stopped(protocol: str, *rest: Any) -> Iterator[Any]:
        for record in whole_way(protocol, *rest):
            if (protocol, record.index) == at:
                os.kill(os.getpid(), signal.SIGINT)
            yield record

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "evaluate", stopped)
        assert cli.main([*args, "--run", str(folder)]) == 130
    assert len(list(folder.iterdir())) == (1 if at[0] == "off" else 2)
    said = capsys.readouterr().err
    (how,) = re.findall(r"the same command with (.*) continues", said)
    assert how == f"--run {folder} --resume"
    assert cli.main([*args, *how.split()]) == 0
    found = last_json(capsys)["protocols"]
    assert {name: [c["nll"] for c in row["chunks"]] for name, row in found.items()} == {
        name: [c["nll"] for c in row["chunks"]] for name, row in whole.items()
    }


def test_a_measurement_that_was_not_begun_cannot_continue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "aligned.tsv"
    data.write_text("A ship.\tEin Schiff.\n", "utf-8")
    args = ["eval", "translate", str(data), *TO_GERMAN, "--model", "/no/model", "--protocols", "off", "--resume"]
    for more, said in (([], "--resume without --run"), (["--run", str(tmp_path / "run")], "no run of off in")):
        assert cli.main([*args, *more]) == 7
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# --- mistakes ---


def mistakes(folder: Path) -> dict[str, tuple[list[str], int, str]]:
    files: dict[str, str | bytes] = {
        "b.txt": "Some text.\n", "conflict.tsv": "a\tb\na\tc\n", "bad.tsv": "no tab\n", "c.tsv": "x\ty\n", "c.pdf": "x",
        "zip.epub": b"PK\x03\x04" + b"x" * 99, "empty.txt": "", "blank.txt": " \n", "x.odt": "x", "n.json": "{}",
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    books.make_epub(
        folder / "drm.epub",
        {
            "META-INF/encryption.xml": b'<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container" xmlns:enc="http://www.w3.org/2001/04/xmlenc#"><enc:EncryptedData><enc:EncryptionMethod Algorithm="http://www.w3.org/2001/04/xmlenc#aes128-cbc"/><enc:CipherData><enc:CipherReference URI="OEBPS/one.xhtml"/></enc:CipherData></enc:EncryptedData></encryption>',
            "META-INF/rights.xml": b"<rights/>",
        },
    )
    with zipfile.ZipFile(folder / "path.epub", "w") as archive:
        for name, data in {**books.epub_entries(), "../../evil": b"x"}.items():
            archive.writestr(name, data)
    with zipfile.ZipFile(folder / "bomb.epub", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**books.epub_entries(), "OEBPS/big.xhtml": b"\0" * 50_000_000}.items():
            archive.writestr(name, data)
    b, at = str(folder / "b.txt"), lambda name: str(folder / name)
    return {
        "language": (["translate", b, "--from", "xx", "--to", "de"], 2, "no language 'xx'"),
        "no language": (["translate", b, "--from", "en", "--to", ""], 2, "no language ''"),
        "missing": (["translate", at("none.txt"), *TO_GERMAN], 3, "none.txt"),
        "damaged": (["translate", at("zip.epub"), *TO_GERMAN], 3, "zip.epub"),
        "drm": (["translate", at("drm.epub"), *TO_GERMAN], 3, "drm.epub"),
        "traversal": (["translate", at("path.epub"), *TO_GERMAN], 3, "path.epub"),
        "bomb": (["translate", at("bomb.epub"), *TO_GERMAN], 3, "bomb.epub"),
        "format": (["translate", at("x.odt"), *TO_GERMAN], 3, ".odt"),
        "empty": (["translate", at("empty.txt"), *TO_GERMAN], 3, "empty.txt"),
        "blank": (["translate", at("blank.txt"), *TO_GERMAN], 3, "blank.txt"),
        "glossary": (["translate", b, *TO_GERMAN, "--glossary", at("conflict.tsv")], 3, "line 2 gives 'a' another"),
        "glossary tab": (["translate", b, *TO_GERMAN, "--glossary", at("bad.tsv")], 3, "line 1 has no tab"),
        "learn": (["translate", b, *TO_GERMAN, "--learn", "self,off"], 2, "--learn"),
        "learn from nothing": (["translate", b, *TO_GERMAN, "--learn", "corrections"], 2, "--corrections"),
        "corrections": (["translate", b, *TO_GERMAN, "--corrections", at("c.pdf")], 3, ".pdf"),
        "context": (["translate", b, *TO_GERMAN, "--context-units", "-1"], 2, "--context-units"),
        "same file": (["translate", b, *TO_GERMAN, "--out", b], 2, "over the document"),
        "model": (["translate", b, *TO_GERMAN, "--model", "/no/model"], 4, "/no/model"),
        "template": (["translate", b, *TO_GERMAN, "--template", "fancy"], 2, "no template 'fancy'"),
        "chat": (["translate", b, *TO_GERMAN, "--template", "chat"], 2, "no chat template"),
        "resume": (["translate", b, *TO_GERMAN, "--run", at("nothing"), "--resume"], 7, "nothing"),
        "terms": (["glossary", b, *TO_GERMAN], 3, "no name or term"),
        "eval form": (["eval", "translate", at("n.json"), *TO_GERMAN], 3, "is not a list"),
        "eval protocol": (["eval", "translate", at("c.tsv"), *TO_GERMAN, "--protocols", "magic"], 2, "magic"),
        "eval metric": (["eval", "translate", at("c.tsv"), *TO_GERMAN, "--metric", at("c.tsv")], 2, "--generate all"),
        "eval no metric": (
            ["eval", "translate", at("c.tsv"), *TO_GERMAN, "--generate", "all", "--metric", at("c.tsv")],
            4,
            "hparams",
        ),
        "eval off": (["eval", "translate", at("c.tsv"), *TO_GERMAN, "--set", "learn.mode=none"], 2, "learn.mode"),
    }


CASES = [
    "language", "no language", "missing", "damaged", "drm", "traversal", "bomb", "format", "empty", "blank", "glossary",
    "glossary tab", "learn", "learn from nothing", "corrections", "context", "same file", "model", "template", "chat", "resume",
    "terms", "eval form", "eval protocol", "eval metric", "eval no metric", "eval off",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_mistakes_give_one_clear_line(
    case: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path.with_name(tmp_path.name + "-state")))
    every = mistakes(tmp_path)
    assert set(every) == set(CASES)
    args, code, words = every[case]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    if "--model" not in args:
        args = [*args, "--model", model, *SMALL]
    assert cli.main(args) == code
    captured = capsys.readouterr()
    lines = captured.err.strip().splitlines()
    assert captured.out == "" and len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
