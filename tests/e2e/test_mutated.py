"""A model folder with one value changed: it loads, or one line says why not; never an internal error.

`python -m tests.e2e.test_mutated` tries every value of every key of every file, and lists what ended otherwise.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge import cli
from edge.weights import checkpoint, quantize
from tests import tiny

GONE = object()  # the key is taken away
VALUES = (GONE, None, -1, 0, 2**40, 0.5, "x", [], [1, "x"], {}, {"x": 1}, True, math.nan)
FILES = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "templora.json")
DOCUMENTED = (0, 4, 5)  # done, the model cannot be used, it does not fit the budget
SMALL = ["--set", "window.chunk=24", "--set", "window.size=64", "--set", "learn.mode=none", "--set", "compute.threads=1",
         "--memory-budget", "3GB"]  # fmt: skip


def folders(root: Path) -> Iterator[Path]:
    """An unquantised folder, and a 4-bit one that lists no files: with a list, every change is refused before it is
    read."""
    full = tiny.folder(root / "full", "gemma3_text", layers=2)
    quantize.quantize_to_folder(str(full), root / "nf4")
    path = root / "nf4" / "templora.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "contents"}))
    yield from (full, root / "nf4")


def mutated(values: dict[str, Any], depth: int = 2) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """The key's path, its new value, and the whole with it; down to `depth` levels."""
    for key, old in values.items():
        for new in VALUES:
            if new is GONE:
                yield key, new, {k: v for k, v in values.items() if k != key}
            elif new != old or type(new) is not type(old):
                yield key, new, {**values, key: new}
        if isinstance(old, dict) and depth > 1 and len(old) < 40:
            for inner, new, changed in mutated(old, depth - 1):
                yield f"{key}.{inner}", new, {**values, key: changed}


def codes(folder: Path, book: Path) -> list[int]:
    """How planning and scoring end."""
    args = ["--model", str(folder), *SMALL]
    return [cli.main(["plan", *args]), cli.main(["score", str(book), "--max-tokens", "40", "--no-run", *args])]


def said(new: Any) -> str:
    return "gone" if new is GONE else json.dumps(new)


def try_out(folder: Path, name: str, key: str, new: Any, changed: dict[str, Any], book: Path) -> list[int]:
    path = folder / name
    kept = path.read_bytes()
    path.write_text(json.dumps(changed))
    try:
        return codes(folder, book)
    finally:
        path.write_bytes(kept)


FEW = (  # of each file, what other places than its reader stumble over
    ("config.json", "rms_norm_eps", "x"), ("config.json", "query_pre_attn_scalar", 0),
    ("config.json", "query_pre_attn_scalar", -1), ("config.json", "pad_token_id", 2**40),
    ("config.json", "eos_token_id", "x"), ("config.json", "layer_types", []), ("config.json", "layer_types", ["x"]),
    ("config.json", "sliding_window", 0), ("config.json", "sliding_window", -1), ("config.json", "head_dim", 0),
    ("config.json", "rope_parameters", {}), ("config.json", "final_logit_softcapping", 0),
    ("config.json", "hidden_size", 0.5), ("config.json", "dtype", "x"), ("config.json", "architectures", 3),
    ("config.json", "quantization_config", {"x": 1}), ("config.json", "quantization_config", True),
    ("config.json", "num_key_value_heads", 3), ("config.json", "vocab_size", 8), ("config.json", "text_config", 3),
    ("generation_config.json", "eos_token_id", "x"), ("generation_config.json", "eos_token_id", 0.5),
    ("tokenizer_config.json", "tokenizer_class", 3), ("tokenizer_config.json", "bos_token", 3),
    ("tokenizer_config.json", "bos_token", {"x": 1}), ("tokenizer.json", "model", None),
    ("tokenizer.json", "added_tokens", [{"id": 2**31, "content": "<s>", "special": True}]),
    ("templora.json", "files", [3]), ("templora.json", "files", ["x"]), ("templora.json", "repair", 3),
    ("templora.json", "format", None), ("templora.json", "source", 3), ("templora.json", "weights_sha256", GONE),
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(folders(tmp_path_factory.mktemp("mutated")))


@pytest.mark.parametrize(("name", "key", "new"), FEW, ids=lambda part: str(part)[:20])
def test_a_changed_value_is_used_or_refused_in_one_line(
    name: str, key: str, new: Any, made: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TEMPLORA_CACHE", str(tmp_path / "cache"))
    book = tmp_path / "book.txt"
    book.write_text(tiny.TEXT)
    for folder in made:
        if not (folder / name).exists():
            continue
        values = json.loads((folder / name).read_text())
        changed = dict(values) | ({key: new} if new is not GONE else {})
        if new is GONE:
            del changed[key]
        found = try_out(folder, name, key, new, changed, book)
        err = capsys.readouterr().err
        assert set(found) <= set(DOCUMENTED) and "Traceback" not in err, (folder.name, found, err)


def main() -> int:
    """Everything; one line for each ending that is not documented."""
    checkpoint.quiet_libraries()
    checkpoint.warm_up(tiny.CPU)
    vars(checkpoint)["warm_up"] = lambda device: None  # once is enough
    root = Path(tempfile.mkdtemp(prefix="templora-mutated-"))
    book = root / "book.txt"
    book.write_text(tiny.TEXT)
    ended: Counter[tuple[str, int]] = Counter()
    wanted = sys.argv[1:] or FILES
    for folder in folders(root):
        for name in (name for name in wanted if (folder / name).exists()):
            for key, new, changed in mutated(json.loads((folder / name).read_text())):
                found = try_out(folder, name, key, new, changed, book)
                ended.update((f"{folder.name}/{name}", code) for code in found)
                if not set(found) <= set(DOCUMENTED):
                    print("ENDED", folder.name, name, key, said(new), found, flush=True)
    for (where, code), count in sorted(ended.items()):
        print(f"TOTAL {where}: {count} ended with {code}")
    shutil.rmtree(root)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
