"""The README against the code: snippets run, options exist, the map is whole; rooms import only rooms above them."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli, settings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")

# Each room may import the rooms before it. `session` hands itself to the loops, so they name it for types only.
HOUSE = (ROOT / "edge/README.md").read_text("utf-8")
MAP = {name: bool(star) for name, star in re.findall(r"^  (\w+)(?:\.py|/) +(\*?) ", HOUSE, re.M)}
ORDER = list(MAP)  # each room may import those before it
NO_TORCH = [name for name, star in MAP.items() if star]


def test_the_map_names_every_room() -> None:
    exported = (ROOT / "export/README.md").read_text("utf-8").split("## The rooms")[1]
    for package, named in (("edge", set(MAP)), ("export", set(re.findall(r"^  (\w+)(?:\.py|/) ", exported, re.M)))):
        found = {p.stem for p in (ROOT / package).iterdir() if p.suffix == ".py" or any(p.glob("*.py"))}
        assert found - {"__init__"} == named
    assert len(NO_TORCH) > 20


@pytest.mark.parametrize("room", ORDER)
def test_rooms_import_only_rooms_above(room: str) -> None:
    path = ROOT / "edge" / f"{room}.py"
    files = [path] if path.exists() else sorted((ROOT / "edge" / room).glob("*.py"))
    assert files
    above = set(ORDER[: ORDER.index(room)])
    for file in files:
        assert len(file.read_text().splitlines()) <= 400, file
        tree = ast.parse(file.read_text())
        assert ast.get_docstring(tree), f"{file} has no header"
        level = 1 if path.exists() else 2
        typing_only = {
            id(n) for top in tree.body if isinstance(top, ast.If) and "TYPE_CHECKING" in ast.dump(top.test)
            for n in ast.walk(top)
        }  # fmt: skip
        for node in ast.walk(tree):
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.ImportFrom) and node.level == level:
                names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
                assert {n for n in names if n in ORDER} <= above, f"{file}:{node.lineno}"
            if room in NO_TORCH and node in tree.body and isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                names = [module] if module else [a.name for a in node.names]
                assert all(name.split(".")[0] not in ("torch", "transformers") for name in names), file


def test_documented_commands_parse() -> None:
    lines = re.findall(r"^templora (.+?)(?:\s+#.*)?$", README, re.M)
    assert len(lines) >= 5
    for line in lines:
        args = line.split(" < ")[0].split()
        assert cli.parser().parse_args(args).run


def test_every_promise_names_what_holds_it() -> None:
    table = (
        (ROOT / "edge/journal/README.md")
        .read_text("utf-8")
        .split("## What is promised")[1]
        .split("\n\n")[1]
        .splitlines()
    )
    assert len(table) > 20
    for row in table[2:]:
        named = re.findall(r"`((?:tests|scripts)/[^`]+)`", row)
        assert any(name.startswith("tests/") for name in named), row
        for name in named:
            file, _, function = name.partition("::")
            text = (ROOT / file).read_text("utf-8")
            assert f"def {function}(" in text if function else file.startswith("scripts/") or "def test_" in text, name


def test_presets_are_documented() -> None:
    for name in settings.preset_names():
        loaded = settings.load(name)
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}` |"))
        assert f"| {loaded.window.chunk} | {loaded.window.size} |" in row


def test_help_needs_no_torch() -> None:
    code = "import sys, edge, edge.cli; edge.cli.parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.model
def test_readme_library_snippet_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.+?)```", README, re.S)
    monkeypatch.chdir(ROOT)
    exec(compile(snippet, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["0", "512"], ["512", "1024"]]


def test_gpu_check_runs_its_code_on_the_cpu() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/gpu_check", "--device", "cpu", "--shape", "tiny", "--no-tests"],
        cwd=ROOT, capture_output=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    import json

    result = json.loads(done.stdout)
    assert [len(r["seconds_per_chunk"]) for r in result["runs"]] == [3, 3]
    assert all(r["tokens_per_second_decode"] > 0 for r in result["runs"])
    assert result["copy_bytes_per_second"] > 1e8
    for entry in result["runs"]:
        on, off = entry["decoding"]["adapter_on"], entry["decoding"]["adapter_off"]
        assert 0 < on["share"] < 1 and 0 < off["share"] < 1 and on["bandwidth_limit"] < off["bandwidth_limit"]
        assert entry["learn_flops"] > 1e8 and entry["learn_share_of_matmul_peak"] > 0


def test_the_package_holds_nothing_of_optimums_namespace() -> None:
    """A part of it would make libraries take Optimum for installed."""
    import tomllib

    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert packages and not any(name.startswith("optimum") for name in packages)
    files = [str(path) for path in importlib.metadata.files("templora") or ()]
    assert files and not any("optimum/" in name for name in files)


def test_dependencies_are_imported_by_the_product() -> None:
    """What the tests alone need is no dependency of it."""
    import tomllib

    named = {
        re.split(r"[><=]", line)[0]
        for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    }
    modules = {
        "pyyaml": "yaml",
        "huggingface-hub": "huggingface_hub",
        "markdown-it-py": "markdown_it",
        "mdit-py-plugins": "mdit_py_plugins",
    }
    code = "\n".join(path.read_text() for package in ("edge", "export") for path in (ROOT / package).rglob("*.py"))
    for name in named - {"gguf"}:  # transformers reads GGUF files through it
        assert re.search(rf"^\s*(?:import|from) {modules.get(name, name)}\b", code, re.M), name
