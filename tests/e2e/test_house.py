"""The README against the code: snippets run, options exist, the map is whole; rooms import only floors below."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge import cli, settings
from tests.commands import script

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text("utf-8")

HOUSE = (ROOT / "edge/README.md").read_text("utf-8")
FLOORS: dict[str, int] = {}  # room -> floor
NO_TORCH: list[str] = []
_floor = 0
for _number, _name, _star in re.findall(r"^(\d\d| \d|  )  (\w+)(?:\.py|/) +(\*?) ", HOUSE, re.M):
    _floor = int(_number) if _number.strip() else _floor
    FLOORS[_name] = _floor
    NO_TORCH += [_name] if _star else []
# a folder -> its modules, each of which may import those before it
INSIDE = {name: rooms.split() for name, rooms in re.findall(r"^(\w+)/ +([a-z0-9_ ]+)$", HOUSE, re.M)}
TORCH = {"torch", "transformers", "peft", "bitsandbytes", "accelerate"}


def _module(path: Path) -> str:
    """`edge.model.base` for edge/model/base.py; a folder's name for its `__init__.py`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in sorted((ROOT / "edge").rglob("*.py"))}


def _imported(path: Path, node: ast.Import | ast.ImportFrom) -> set[str]:
    """Full names of what one statement imports: modules of `edge` where there are such, else as written."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    package = list(path.relative_to(ROOT).parent.parts)
    start = package[: len(package) - node.level + 1] if node.level else []
    source = ".".join([*start, *([node.module] if node.module else [])])
    return {f"{source}.{a.name}" if f"{source}.{a.name}" in MODULES else source for a in node.names}


def _imports(path: Path) -> set[str]:
    """All that a file imports anywhere, also for types alone and inside functions."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    return {name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for name in _imported(path, node)}


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_the_map_names_every_room() -> None:
    exported = (ROOT / "export/README.md").read_text("utf-8").split("## The rooms")[1]
    for package, named in (("edge", set(FLOORS)), ("export", set(re.findall(r"^  (\w+)(?:\.py|/) ", exported, re.M)))):
        found = {p.stem for p in (ROOT / package).iterdir() if p.suffix == ".py" or any(p.glob("*.py"))}
        assert found - {"__init__"} == named
    for folder, modules in INSIDE.items():
        assert {p.stem for p in (ROOT / "edge" / folder).glob("*.py")} - {"__init__"} == set(modules)
    assert len(FLOORS) <= 30 and max(FLOORS.values()) <= 14 and sorted({*FLOORS.values()}) == [*range(1, 15)]
    assert len(NO_TORCH) > 12 and set(INSIDE) == {room for room in FLOORS if (ROOT / "edge" / room).is_dir()}


@pytest.mark.parametrize("room", FLOORS)
def test_rooms_import_only_floors_below(room: str) -> None:
    files = {name: path for name, path in MODULES.items() if _room(name) == room}
    assert files
    order = INSIDE.get(room, [])
    for name, path in files.items():
        assert len(path.read_text("utf-8").splitlines()) <= 400, path
        tree = ast.parse(path.read_text("utf-8"))
        assert ast.get_docstring(tree), f"{path} has no header"
        for other in _imports(path):
            if other.split(".")[0] == "export":
                raise AssertionError(f"{path} imports {other}")
            if not other.startswith("edge.") or other not in MODULES:
                continue
            if _room(other) != room:
                assert FLOORS[_room(other)] < FLOORS[room], f"{path} imports {other}, which is not on a floor below"
            elif order and other.count(".") == 2 and name.count(".") == 2:
                mine, theirs = name.rpartition(".")[2], other.rpartition(".")[2]
                assert order.index(theirs) < order.index(mine), f"{path} imports {other}, which is named after it"
        if room in NO_TORCH:
            at_import = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            found = {name.split(".")[0] for node in at_import for name in _imported(path, node)}
            assert not found & TORCH, path


def test_no_module_imports_itself_in_a_circle() -> None:
    """Over all imports, those for types and those inside functions too; a folder's own face names its modules."""
    below: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        below[name] = {other for other in _imports(path) if other in MODULES and other != "edge"} - {name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(below[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in below:
        if name != "edge":
            visit(name, ())


def test_each_loop_fits_one_screen_and_knows_no_journal() -> None:
    """What a loop resumes from is put back before it begins (`resume.py`) or asked of its log (`translation/log.py`)."""
    for module, name in (("score", "score"), ("generate", "generate"), ("translation.loop", "translate")):
        path = MODULES[f"edge.{module}"]
        tree = ast.parse(path.read_text("utf-8"))
        (loop,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
        assert loop.end_lineno is not None and loop.end_lineno - loop.lineno < 60, path
        called = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not called & {"restore", "restored", "kept", "snapshot", "journal"}, path
        assert not any(_room(other) in ("journal", "resume", "places") for other in _imports(path)), path


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


def test_gpu_check_runs_its_code_on_the_cpu(tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    stages = ["decode", "learn", "token", "memory", "parity", "resume"]
    tried = ["--device", "cpu", "--shape", "tiny", "--out", str(out)]
    for command in (["resume", "--limit", "300"], [*stages[:-1], "--here"]):  # stages of their own, and in one process
        script("scripts/gpu_check", *command, *tried)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["stage"] for line in lines if "ended" in line] == ["resume"]
    of = {name: [line for line in lines if line["stage"] == name and "ended" not in line] for name in stages}
    alone = [line for line in of["decode"] if "share" in line]
    assert len(alone) == 20 and all(line["share"] > 0 for line in alone)
    timed = [line for line in of["decode"] if "tokens_per_second" in line]
    assert len(timed) == 24 and all(line["tokens_per_second"] > 0 for line in timed)
    assert [line["found"] for line in of["decode"] if line["way"] == "kernels"] == [
        [],
        [],
    ]  # nothing is chosen on a CPU
    plans = {line["plan"]: line for line in of["learn"] if "plan" in line}
    assert len(plans) == 9 and all(len(line["seconds_per_chunk"]) >= 3 for line in plans.values())
    assert plans["exact"]["learn_flops"] > 1e8 and plans["exact"]["share_of_matmul_peak"] > 0
    assert [(line["adapter"], line["lines"]) for line in of["token"]] == [(True, 1), (False, 1), (True, 4)]
    assert all(line["microseconds"] > 0 and len(line["most"]) == 20 for line in of["token"])
    assert all(line["predicted_above"] for line in of["memory"])
    for line in of["parity"]:
        assert line["nats"]["cpu"] == line["nats"]["float32"]
    assert all(line["same_twice"] and line["same_resumed"] for line in of["resume"])


def test_gpu_check_goes_on_after_a_stage_that_takes_too_long(tmp_path: Path) -> None:
    out = tmp_path / "lines.jsonl"
    command = [sys.executable, "scripts/gpu_check", "parity", "resume", "--device", "cpu", "--shape", "tiny"]
    done = subprocess.run([*command, "--limit", "1", "--out", str(out)], cwd=ROOT, capture_output=True, timeout=60)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.returncode == 1 and [line["ended"] for line in lines] == ["took too long"] * 2


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
    for name in named - {"gguf", "accelerate"}:  # transformers reads GGUF files and 4-bit checkpoints through them
        assert re.search(rf"^\s*(?:import|from) {modules.get(name, name)}\b", code, re.M), name
