"""Through the command line, as a user would: output, exit codes, one clear line for each mistake."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli
from tests import tiny
from tests.commands import Command

SMALL = [
    "--set",
    "compute.threads=1",
    "--set",
    "window.chunk=64",
    "--set",
    "window.size=128",
    "--set",
    "adapter.rank=4",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.folder(tmp_path_factory.mktemp("cli") / "model", "gemma3_text"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(tiny.TEXT * 3)
    return path


def run(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "edge.cli", *args], input=stdin, capture_output=True, timeout=120)


def last_json(capsys: pytest.CaptureFixture[str]) -> dict:  # type: ignore[type-arg]
    return json.loads(capsys.readouterr().out.splitlines()[-1])  # type: ignore[no-any-return]


def test_score_json_report_and_plot(model: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report"
    assert cli.main(["score", str(text), "--model", model, *SMALL, "--report", str(report), "--json"]) == 0
    result = last_json(capsys)
    assert result["tokens"] == sum(c["tokens"] for c in result["chunks"]) == len(tiny.TEXT) * 3
    for side in ("base", "adapter"):
        assert result[side]["nll"] == pytest.approx(sum(c[f"{side}_nll"] for c in result["chunks"]))
        assert result[side]["perplexity"] > 1 and result[side]["bits_per_byte"] > 0
    for chunk in result["chunks"]:
        assert {"start", "end", "tokens", "base_nll", "adapter_nll", "seconds"} <= chunk.keys()
    assert result["seconds"] > 0 and result["peak_bytes"] > 1e8
    assert json.loads((report / "report.json").read_text())["tokens"] == result["tokens"]
    assert (report / "perplexity.png").read_bytes()[:4] == b"\x89PNG"


def test_score_options(model: str, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["score", str(text), "--model", model, *SMALL, "--max-tokens", "100", "--no-base", "--json"]
    assert cli.main(args) == 0
    out = capsys.readouterr().out
    result = json.loads(out.splitlines()[-1])
    assert result["base"] is None and result["chunks"][-1]["end"] == 100
    assert "Perplexity by position" in out


def test_score_reads_standard_input(model: str) -> None:
    done = run("score", "-", "--model", model, *SMALL, "--json", stdin=tiny.TEXT.encode())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["tokens"] == len(tiny.TEXT)


def test_write_streams_and_reads_a_long_prompt(
    model: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.txt"
    args = ["write", "--prompt-file", str(text), "--tokens", "70", "--model", model, *SMALL]
    assert cli.main([*args, "--out", str(out), "--set", "generate.ignore_eos=true", "--json"]) == 0
    result = last_json(capsys)
    assert result["tokens"] == 70 and result["finish"] == "length"
    assert len(result["read"]) == result["prompt_tokens"] // 64
    assert out.read_text() == result["text"]


def test_quantize_then_score(model: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "nf4"
    assert cli.main(["quantize", model, str(folder), "--json"]) == 0
    assert last_json(capsys)["bytes"] > 0
    totals = []
    for reference in (model, str(folder)):
        assert cli.main(["score", str(text), "--model", reference, *SMALL, "--json"]) == 0
        totals.append(last_json(capsys)["adapter"]["nll"])
    assert totals[0] == pytest.approx(totals[1], rel=1e-3)


def test_doctor_outlives_a_gpu_that_bitsandbytes_has_no_kernels_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints one line and ends the process that asked, which is another one."""
    from edge.measure import doctor

    ended = tmp_path / "python"
    ended.write_text("#!/bin/sh\necho loading >&2; echo 'Error no kernel image is available' >&2; exit 1\n")
    ended.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(ended))
    check = doctor._try("NF4", lambda: doctor.alone(doctor.nf4_round_trip)("cuda:0"), "build it")
    assert not check.ok and check.result == "RuntimeError: Error no kernel image is available"
    ended.write_text("#!/bin/sh\necho '[\"works\", 0.5]'\n")
    assert doctor.alone(doctor.nf4_round_trip)("cuda:0") == ("works", 0.5)


def test_doctor_tries_things(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    checks = {c["name"]: c for c in last_json(capsys)["checks"]}
    assert checks["cpu NF4 forward and backward"]["ok"] and checks["cpu NF4 forward and backward"]["value"] < 0.05
    assert checks["cpu matmul float32"]["value"] > 1e8
    assert checks["cpu compute dtype"]["result"].split(";")[0] in (
        "float32",
        "bfloat16",
        "float32 with bfloat16 matmuls",
    )


def test_doctor_asks_for_what_is_needed_and_not_for_what_is_faster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge.measure import doctor

    slower = doctor.Check(f"cuda:0 {doctor.DECODING}", False, "ModuleNotFoundError: no triton", "pip install triton")
    for checks, code in (([slower], 0), ([slower, doctor.Check("cuda:0 8-bit AdamW", False, "broken")], 6)):
        monkeypatch.setattr(doctor, "examine", lambda checks=checks: iter(checks))
        assert cli.main(["doctor"]) == code
        assert "FAIL cuda:0 kernels that decode: ModuleNotFoundError: no triton" in capsys.readouterr().out


def mistakes(tmp_path: Path) -> dict[str, tuple[list[str], int, str]]:
    files = {
        "empty": b"",
        "blank": b" \n\t ",
        "binary": b"a\0b" * 99,
        "latin": "caf\xe9".encode("latin-1"),
        "fine": b"Some text.",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    fine = str(tmp_path / "fine")
    return {
        "missing": (["score", str(tmp_path / "none")], 3, "none"),
        "empty": (["score", str(tmp_path / "empty")], 3, "empty"),
        "blank": (["score", str(tmp_path / "blank")], 3, "blank"),
        "binary": (["score", str(tmp_path / "binary")], 3, "binary"),
        "latin": (["score", str(tmp_path / "latin")], 3, "UTF-8"),
        "folder": (["score", str(tmp_path)], 3, "folder"),
        "preset": (["score", fine, "--preset", "quik"], 2, "quick"),
        "key": (["score", fine, "--set", "learn.rate=1"], 2, "learn.rate"),
        "window": (["score", fine, "--set", "window.size=100"], 2, "window.size"),
        "model": (["score", fine, "--model", "/no/model"], 4, "/no/model"),
        "cuda": (["score", fine, "--device", "tpu"], 6, "tpu"),
        "budget": (["score", fine, "--memory-budget", "500MB"], 5, "needs at least"),
        "budget unit": (["score", fine, "--memory-budget", "5 apples"], 2, "amount of memory"),
        "prompt": (["write", "--prompt-file", str(tmp_path / "none")], 3, "none"),
        "quantize": (["quantize", "/no/model", str(tmp_path / "q")], 4, "/no/model"),
        "report": (["score", fine, "--report", fine + "/x"], 8, "whose parent is a folder"),
        "long prompt": (["write", "--prompt-file", "x" * 300, "--out", str(tmp_path / "o")], 3, "too long"),
        "long model": (["score", fine, "--model", "x" * 300], 4, "xxx"),
        "long run": (["render", "x" * 300, "--out", str(tmp_path / "o")], 7, "too long"),
        "long carry": (["write", "--prompt", "a", "--carry", "x" * 300], 7, "too long"),
        "share": (["score", fine, "--snapshot-share", "7", "--no-run"], 2, "snapshot fraction"),
        "every": (["score", fine, "--snapshot-every", "0"], 2, "snapshots every 0"),
        "list whole": (["runs", "list", "--whole"], 2, "--whole without prune"),
        "repair rank": (["quantize", "/no/model", str(tmp_path / "q"), "--repair-rank", "5"], 2, "--repair"),
        "long preset": (["score", fine, "--preset", "x" * 300 + ".yaml"], 2, "there is no preset"),
        "whole section": (["score", fine, "--set", "compute={}", "--model", "/no/model"], 4, "/no/model"),
    }


@pytest.mark.parametrize("case", [
    "missing", "empty", "blank", "binary", "latin", "folder", "preset", "key", "window", "model", "cuda", "budget", "budget unit",
    "prompt", "quantize", "report", "long prompt", "long model", "long run", "long carry", "whole section",
    "share", "every", "long preset", "list whole", "repair rank",
])  # fmt: skip
def test_mistakes_give_one_clear_line(
    case: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args, code, words = mistakes(tmp_path)[case]
    before = sorted(tmp_path.iterdir())
    if "--model" not in args and args[0] not in ("quantize", "render", "runs"):
        args = [*args, "--model", model]
    assert cli.main(args) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and words in lines[0]
    assert sorted(tmp_path.iterdir()) == before


def test_a_model_whose_texts_begin_with_no_token_continues_no_empty_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(tiny.folder(tmp_path / "model", "qwen3", bos=False))
    assert cli.main(["write", "--prompt", "", "--tokens", "5", "--model", model, *SMALL, "--no-run"]) == 3
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert "there is no text to continue" in line


def test_wrong_usage_exits_with_two() -> None:
    for args in ([], ["score"], ["score", "x", "--max-tokens", "-3"], ["write"], ["fly"]):
        done = run(*args)
        assert done.returncode == 2
        assert b"Traceback" not in done.stderr


def test_help_reads_well() -> None:
    assert b"exit codes" in run("--help").stdout
    assert b"economical" in run("score", "--help").stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_reports_what_was_done(model: str, tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "long.txt"
    path.write_text(tiny.TEXT * 400)
    args = ["score", str(path), "--model", model, *SMALL, "--run", str(tmp_path / "run"), "--json"]
    child = Command(args)
    assert b"scoring:" in child.line(child.stderr)  # some chunk is done
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    result = json.loads(out.splitlines()[-1])
    assert result["stopped"] and 0 < result["chunks"][-1]["end"] < result["document_tokens"]
    assert b"Traceback" not in err and b"stopped after" in err


def test_bench_side_by_side(model: str, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The paper's loop and the runtime read the same text: equal before learning, close after; all figures are
    there."""
    args = [
        "bench",
        str(text),
        "--model",
        model,
        *SMALL,
        "--chunks",
        "4",
        "--contenders",
        "paper,plain,exact,default,swift,base",
    ]
    more = ["--decode", "4", "--report", str(tmp_path), "--json", "--set", "learn.lr=1e-3"]
    assert cli.main([*args, *more]) == 0
    result = last_json(capsys)
    found = result["contenders"]
    assert (
        list(found) == ["paper", "plain", "exact", "default", "swift", "base"]
        and result["matmul_flops_per_second"] > 1e8
    )
    for name, entry in found.items():
        assert entry["failed"] is None and len(entry["chunks"]) == 4
        assert entry["seconds_per_chunk"] > 0 and entry["decode_tokens_per_second"] > 0
        assert 1e8 < entry["peak_bytes"] < 4e9 and sum(entry["flops_per_chunk"].values()) > 0
        assert entry["chunks"][0]["nll"] == pytest.approx(found["base"]["chunks"][0]["nll"], rel=1e-4), name
        assert sum(entry["phases"].values()) <= 1.2 * entry["seconds_per_chunk"]
    nll = {name: entry["nll"] for name, entry in found.items()}
    assert nll["paper"] == pytest.approx(nll["plain"], rel=0.01)  # other random A, other dropout
    assert nll["exact"] == pytest.approx(nll["plain"], rel=0.01)  # no dropout
    assert nll["default"] < nll["base"] and nll["swift"] < nll["base"]
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((tmp_path / "bench.json").read_text())["against"] == "paper"


def test_bench_mistakes(model: str, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more, said in ((["--contenders", "quik"], "quik"), (["--chunks", "900"], "tokens")):
        assert cli.main(["bench", str(text), "--model", model, *SMALL, "--contenders", "base", *more]) in (2, 3)
        assert said in capsys.readouterr().err


def test_what_is_wrong_for_every_contender_is_one_line(text: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is met in the contender's own process."""
    for model in ("/no/model", str(text)):
        for contender in ("paper", "base"):
            assert cli.main(["bench", str(text), "--model", model, *SMALL, "--contenders", contender]) == 4
            (line,) = capfd.readouterr().err.splitlines()
            assert line.startswith("error: ") and model in line


def test_bench_reports_a_contender_that_the_limit_ends(
    model: str, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["bench", str(text), "--model", model, *SMALL, "--chunks", "2", "--contenders", "paper,base"]
    assert cli.main([*args, "--limit", "150MB", "--json"]) == 0
    found = last_json(capsys)["contenders"]
    assert found["paper"]["failed"] == "out of memory" and found["paper"]["perplexity"] is None
