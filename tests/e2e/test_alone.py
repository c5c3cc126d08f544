"""A model file is read alone: what lies beside it is not read, no code runs, nothing is asked, nobody is called.

Each command runs in a process of its own, with a network that writes down who wanted it, and `yes` on standard input.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge.weights import alone, words
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
# Runs before anything else in the process: every connection and every look-up of a name is written down and refused.
NETWORK = """
import os, socket

def refused(*args, **kwargs):
    with open(os.environ["NETWORK_LOG"], "a") as log:
        log.write(f"{args[:2]}\\n")
    raise OSError("no network here")

inet = socket.socket.connect
socket.socket.connect = lambda self, *args: (inet if self.family == socket.AF_UNIX else refused)(self, *args)
socket.socket.connect_ex = socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refused
"""
CODE = """
with open({marker!r}, "a") as log:
    log.write(__name__)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

class Config(LlamaConfig):
    model_type = "foreign"

class Model(LlamaForCausalLM):
    config_class = Config

class Tokenizer(PreTrainedTokenizerFast):
    pass
"""
MAPPED = {
    "AutoConfig": "foreign.Config",
    "AutoModelForCausalLM": "foreign.Model",
    "AutoTokenizer": [None, "foreign.Tokenizer"],
}
# What transformers reads in a model's folder, each with something in it that would be seen.
NEIGHBOURS: dict[str, Any] = {
    "config.json": {"model_type": "foreign", "auto_map": MAPPED, "hidden_size": 8},
    "tokenizer_config.json": {"tokenizer_class": "Tokenizer", "auto_map": MAPPED, "bos_token": "Q"},
    "adapter_config.json": {
        "base_model_name_or_path": "someowner/somemodel", "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4,
        "lora_alpha": 4, "target_modules": ["q_proj"],
    },
    "generation_config.json": {"eos_token_id": 77, "custom_generate": "foreign"},
    "added_tokens.json": {"<foreign>": 259},
    "special_tokens_map.json": {"bos_token": "Q", "eos_token": "Z"},
    "tokenizer.json": {"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}},
    "chat_template.jinja": "{{ raise_exception('foreign') }}",
    "additional_chat_templates/rag.jinja": "{{ raise_exception('foreign') }}",
    "processor_config.json": {"auto_map": {"AutoProcessor": "foreign.Tokenizer"}},
    "preprocessor_config.json": {"auto_map": {"AutoProcessor": "foreign.Tokenizer"}},
    "model.safetensors.index.json": {"weight_map": {"x": "someowner--somemodel"}},
    "vocab.json": {"a": 0},
    "merges.txt": "a b",
    "requirements.txt": "foreign",
}  # fmt: skip
FULL = ["--set", "base.precision=full"]  # read by the loaders themselves at every load
SMALL = ["--set", "window.chunk=24", "--set", "window.size=64", "--set", "adapter.rank=4", "--set", "learn.mode=none",
         "--set", "compute.threads=1", "--max-tokens", "30", "--no-run", "--json"]  # fmt: skip


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def outcome(folder: Path, args: list[str], *, home: Path) -> tuple[int, dict[str, Any], str, str]:
    """Exit code, result and stderr of a command in a process of its own, and who it wanted to call."""
    (home / "site").mkdir(parents=True, exist_ok=True)
    write(home / "site" / "sitecustomize.py", NETWORK)
    log = home / "network.log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    paths = os.pathsep.join([str(home / "site"), str(ROOT), *sys.path])
    env = {**kept, "PYTHONPATH": paths, "NETWORK_LOG": str(log), "TEMPLORA_CACHE": str(home / "cache"),
           "HF_HOME": str(home / "hub"), "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "edge.cli", *args], cwd=folder, env=env, input="yes\n" * 50, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    said = done.stdout.splitlines()
    result = json.loads(said[-1]) if done.returncode == 0 else {}
    return done.returncode, result, done.stderr, log.read_text() if log.exists() else ""


def scored(result: dict[str, Any]) -> tuple[float, list[float]]:
    return result["base"]["perplexity"], [chunk["base_nll"] for chunk in result["chunks"]]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A GGUF file by itself, a text, and what the file makes of it."""
    root = tmp_path_factory.mktemp("alone")
    (root / "model").mkdir()
    path = tiny.gguf(root / "model" / "m.gguf")
    book = root / "book.txt"
    book.write_text(tiny.TEXT)
    code, result, err, calls = outcome(root, ["score", str(book), "--model", str(path), *SMALL, *FULL], home=root / "h")
    assert code == 0 and not calls, err
    return path, book, scored(result)


@pytest.mark.parametrize("options", [FULL, ["--offline"]], ids=["read at each load", "converted, offline"])
def test_no_neighbour_of_a_gguf_file_is_read(options: list[str], clean: tuple[Path, Path, Any], tmp_path: Path) -> None:
    """All hostile neighbours at once, under --offline and without."""
    path, book, alone_scored = clean
    folder, marker = tmp_path / "model", tmp_path / "ran"
    for name, content in NEIGHBOURS.items():
        write(folder / name, content)
    write(folder / "foreign.py", CODE.format(marker=str(marker)))
    (folder / "m.gguf").write_bytes(path.read_bytes())
    args = ["score", str(book), "--model", "m.gguf", *SMALL, *options]
    code, result, err, calls = outcome(folder, args, home=tmp_path / "h")
    assert code == 0, err
    assert not calls and not marker.exists() and "custom code" not in err
    if options is FULL:
        assert scored(result) == alone_scored
    else:
        (made,) = (p for p in (tmp_path / "h/cache/models").iterdir() if p.is_dir())
        assert json.loads((made / "templora.json").read_text())["source"]["sha256"].startswith(made.name[:16])
        assert "foreign" not in (made / "tokenizer.json").read_text() and not (made / "chat_template.jinja").exists()


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_each_neighbour_alone_changes_nothing(
    name: str, clean: tuple[Path, Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same in this process: model, tokenizer and template are those of the file alone."""
    import torch

    path, _, _ = clean
    marker = tmp_path / "ran"
    write(tmp_path / name, NEIGHBOURS[name])
    write(tmp_path / "foreign.py", CODE.format(marker=str(marker)))
    (tmp_path / "m.gguf").write_bytes(path.read_bytes())
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("a question was asked"))
    found, expected = alone.load_gguf(tmp_path / "m.gguf", torch.float32), alone.load_gguf(path, torch.float32)
    assert type(found) is type(expected) and found.config.to_dict() == expected.config.to_dict()
    assert found.generation_config.to_dict() == expected.generation_config.to_dict()
    theirs = expected.state_dict()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in found.state_dict().items())
    made, own = words.load(tmp_path / "m.gguf"), words.load(path)
    assert made.get_vocab() == own.get_vocab() and made.special_tokens_map == own.special_tokens_map
    assert made.chat_template == own.chat_template is None
    assert not marker.exists()


def test_the_private_folder_holds_the_file_alone_and_goes(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {})
    path = tiny.gguf(tmp_path / "m.gguf")
    with alone.only(path) as folder:
        assert [found.name for found in folder.iterdir()] == [alone.NAME]
        assert (folder / alone.NAME).samefile(path) and folder.stat().st_mode & 0o077 == 0
    assert not folder.exists() and path.is_file()


def test_the_network_is_off_inside_and_as_it_was_outside() -> None:
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import OfflineModeIsEnabled

    was = constants.HF_HUB_OFFLINE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        with pytest.raises(KeyError), alone.sealed():
            with alone.sealed():
                pass
            assert constants.is_offline_mode()  # still inside the outer one
            with pytest.raises(OfflineModeIsEnabled):
                get_session().get("https://example.invalid/")
            raise KeyError
        assert not constants.is_offline_mode()
    assert was == constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_folder_with_code_never_asks(
    name: str, trust: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused in one line, or run because it was asked for: never a question, never a call."""
    folder, marker, book = tiny.folder(tmp_path / "m"), tmp_path / "ran", tmp_path / "book.txt"
    book.write_text(tiny.TEXT)
    config = json.loads((folder / name).read_text())
    foreign = {"model_type": "foreign"} if name == "config.json" else {"tokenizer_class": "Tokenizer"}
    write(folder / name, {**config, **foreign, "auto_map": MAPPED})
    write(folder / "foreign.py", CODE.format(marker=str(marker)))
    trusted = ["--set", f"base.trust_remote_code={str(trust).lower()}"]
    args = ["score", str(book), "--model", "m", *SMALL, *trusted]
    code, _, err, calls = outcome(tmp_path, args, home=tmp_path / "h")
    assert not calls and "[y/N]" not in err and "Traceback" not in err
    assert marker.exists() == trust
    assert code == (0 if trust else 4), err


def test_a_model_folder_with_an_adapter_is_refused(tmp_path: Path) -> None:
    """transformers would put an adapter on the base, or load another base for it."""
    folder, book = tiny.folder(tmp_path / "m"), tmp_path / "book.txt"
    book.write_text(tiny.TEXT)
    write(folder / "adapter_config.json", NEIGHBOURS["adapter_config.json"])
    code, _, err, calls = outcome(tmp_path, ["score", str(book), "--model", "m", *SMALL], home=tmp_path / "h")
    assert code == 4 and "adapter_config.json" in err and not calls
