"""Making a 4-bit folder tensor by tensor: the same bytes as from the whole model, and the same after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edge.errors import BudgetError, ModelError
from edge.memory import conversion, shape
from edge.store import sources
from edge.weights import alone, checkpoint, originals, packed, packing, pieces, quantize, stream, tensorfile
from tests import tiny

HEADS = {"qwen3": {"head_dim": 128}}  # which transformers does not read from such a file


def whole(source: Path, out: Path) -> dict[str, bytes]:
    """A folder made of the whole model in memory."""
    found = sources.resolve(str(source))
    quantize._at_once(found, out, False, False, None, None)
    return files(out)


def in_pieces(source: Path, out: Path) -> dict[str, bytes]:
    found = sources.resolve(str(source))
    quantize._in_pieces(found, out, False, False, "cpu", None, lambda done, total: None, None)
    return files(out)


def files(folder: Path) -> dict[str, bytes]:
    """Every file's bytes; of the manifest, what does not name a time."""
    found = {path.name: path.read_bytes() for path in folder.iterdir()}
    manifest = json.loads(found["templora.json"])
    for entry in manifest["contents"].values():
        entry.pop("mtime_ns")
    return found | {"templora.json": json.dumps(manifest).encode()}


def same(one: dict[str, bytes], other: dict[str, bytes]) -> bool:
    assert one.keys() == other.keys()
    return all(one[name] == other[name] for name in one)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_folder_gives_the_same_bytes(architecture: str, dtype: str, tmp_path: Path) -> None:
    made = tiny.model(architecture).to(getattr(torch, dtype))
    made.save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    assert same(in_pieces(tmp_path / "full", tmp_path / "new"), whole(tmp_path / "full", tmp_path / "old"))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_gguf_file_gives_the_same_bytes(architecture: str, tmp_path: Path) -> None:
    path = tiny.gguf(tmp_path / "m.gguf", architecture, **HEADS.get(architecture, {}))
    assert same(in_pieces(path, tmp_path / "new"), whole(path, tmp_path / "old"))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_a_gguf_file_gives_the_model_that_it_was_made_of(architecture: str, tmp_path: Path) -> None:
    """Against its transformers folder, which has other names and other transforms: none."""
    tiny.model(architecture, **HEADS.get(architecture, {})).to(torch.bfloat16).save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    path = tiny.gguf(tmp_path / "m.gguf", architecture, **HEADS.get(architecture, {}))
    new, old = in_pieces(path, tmp_path / "new"), in_pieces(tmp_path / "full", tmp_path / "old")
    assert new["model.safetensors"] == old["model.safetensors"]


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"])
@pytest.mark.parametrize("tied", [False, True])
def test_every_kind_of_number_gives_the_same_bytes(kind: str, tied: bool, tmp_path: Path) -> None:
    wide = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "tie_word_embeddings": tied}
    path = tiny.gguf(tmp_path / "m.gguf", "llama", kind, **wide)
    assert same(in_pieces(path, tmp_path / "new"), whole(path, tmp_path / "old"))


def test_files_in_shards_give_the_same_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from several files, written to several."""
    tiny.model("qwen2").save_pretrained(tmp_path / "full", max_shard_size="100KB")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    assert len(list((tmp_path / "full").glob("*.safetensors"))) > 2
    monkeypatch.setattr(stream, "MAX_SHARD", 60_000)
    new, old = in_pieces(tmp_path / "full", tmp_path / "new"), whole(tmp_path / "full", tmp_path / "old")
    assert sum(name.endswith(".safetensors") for name in new) > 2
    assert new["config.json"] == old["config.json"]
    assert tensors(tmp_path / "new") == tensors(tmp_path / "old")
    index = json.loads(new["model.safetensors.index.json"])["weight_map"]
    for name, file in index.items():
        assert name in {entry.name for entry in tensorfile.entries(tmp_path / "new" / file)}
    assert list(index) == list(json.loads(old["model.safetensors.index.json"])["weight_map"])


@pytest.mark.parametrize("equal", [False, True])
def test_a_tensor_in_two_shards(equal: bool, tmp_path: Path) -> None:
    """It is taken where both say the same; a folder mixed of two downloads is refused."""
    from safetensors.torch import load_file, save_file

    path = tmp_path / "full"
    tiny.model("qwen2").save_pretrained(path, max_shard_size="100KB")
    tiny.tokenizer().save_pretrained(path)
    old = in_pieces(path, tmp_path / "old")
    first, *_, last = sorted(path.glob("*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(last) | {name: tensor * (1 if equal else 2)}, last, metadata={"format": "pt"})
    if equal:
        assert in_pieces(path, tmp_path / "new").keys() == old.keys()
        assert tensors(tmp_path / "new") == tensors(tmp_path / "old")
        return
    with pytest.raises(ModelError, match=f"two tensors {name} with different values; expected each weight once"):
        in_pieces(path, tmp_path / "new")


def tensors(folder: Path) -> dict[str, tuple[Any, ...]]:
    found = {}
    for path in folder.glob("*.safetensors"):
        for name, tensor in checkpoint.read_safetensors(path):
            found[name] = (tensor.dtype, tuple(tensor.shape), tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return found


@pytest.mark.parametrize("likely", [0.0, 0.125, 10**1500], ids=["short", "usual", "long"])
def test_a_header_of_another_length_than_was_likely(
    likely: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data are moved where the lengths of bitsandbytes' JSON change the length of the header."""
    path = tiny.folder(tmp_path / "full", layers=6)
    old = whole(path, tmp_path / "old")
    monkeypatch.setattr(packing, "_LIKELY", likely)
    moved, real = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, other: moved.append(self.suffix) or real(self, other))
    assert same(in_pieces(path, tmp_path / "new"), old)
    assert (".moved" in moved) == (likely > 1)


@pytest.mark.parametrize("equal", [False, True])
def test_a_head_that_is_tied_by_the_config_and_there_all_the_same(equal: bool, tmp_path: Path) -> None:
    """transformers ties it where it is the embedding, and keeps it where it is not."""
    from safetensors.torch import load_file, save_file

    path = tiny.folder(tmp_path / "full", "llama", tie_word_embeddings=True)
    held = load_file(path / "model.safetensors")
    held["lm_head.weight"] = held["model.embed_tokens.weight"] * (1 if equal else 2)
    save_file(held, path / "model.safetensors", metadata={"format": "pt"})
    new = in_pieces(path, tmp_path / "new")
    assert same(new, whole(path, tmp_path / "old"))
    assert ("lm_head.weight" in tensors(tmp_path / "new")) != equal


def test_biases_of_every_layer_are_kept(tmp_path: Path) -> None:
    path = tiny.folder(tmp_path / "full", "llama", attention_bias=True, mlp_bias=True)
    assert same(in_pieces(path, tmp_path / "new"), whole(path, tmp_path / "old"))
    assert "model.layers.0.mlp.up_proj.bias" in tensors(tmp_path / "new")


EXPERTS: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 40},  # 2560 numbers a matrix
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 33},  # no whole blocks of 64
    "llama4_text": {
        "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 96, "interleave_moe_layer_step": 2,
    },
    "gpt_oss": {
        "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
}  # fmt: skip


@pytest.mark.parametrize("family", EXPERTS)
def test_experts_are_converted_one_by_one_to_the_same_bytes(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single matrices that are stacked at loading, or parameters with all of a block: never more than one is read."""
    tiny.model(family, **EXPERTS[family]).to(torch.bfloat16).save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    source = tmp_path / "full"
    old = whole(source, tmp_path / "old")
    read: list[int] = []
    real = pieces.read
    monkeypatch.setattr(pieces, "read", lambda path, at, count: read.append(count) or real(path, at, count))
    assert same(in_pieces(source, tmp_path / "new"), old)
    names = [name for name in tensors(tmp_path / "new") if "experts" in name and name.endswith(".packed")]
    assert len(names) == 2 * (1 if family == "llama4_text" else 2)
    held = originals.of(source).tensors
    assert max(read) <= max(
        2 * 320 * 64, *(2 * held[name.removesuffix(".packed")].row(0).whole().numel() for name in names)
    )


GGUF_EXPERTS: dict[str, dict[str, Any]] = {  # of the sizes that transformers takes them to have
    "qwen3_moe": {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 768, "head_dim": 128,
                  "norm_topk_prob": True},
    "qwen2_moe": {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 1408,
                  "shared_expert_intermediate_size": 5632},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
@pytest.mark.parametrize("family", GGUF_EXPERTS)
def test_experts_of_a_gguf_file_are_converted_one_by_one_to_the_same_bytes(
    family: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the whole file in memory gives them; never more than one expert's gate, up or down is read."""
    path = tiny.gguf(tmp_path / "m.gguf", family, kind, **GGUF_EXPERTS[family])
    old = whole(path, tmp_path / "old")
    read: list[int] = []
    real = pieces.read
    monkeypatch.setattr(pieces, "read", lambda path, at, count: read.append(count) or real(path, at, count))
    said: list[str] = []
    quantize.quantize_to_folder(str(path), tmp_path / "new", notice=said.append)
    assert same(files(tmp_path / "new"), old) and not said
    assert len([name for name in tensors(tmp_path / "new") if name.endswith(".packed")]) == 4
    held = originals.of(path).tensors
    shared = [original.whole().numel() for name, original in held.items() if "shared_expert" in name]
    one = GGUF_EXPERTS[family]["moe_intermediate_size"] * 64
    assert max(read) <= 4 * max(one, 320 * 64, *shared)
    if not shared:
        assert max(read) < 4 * 2 * one
    planned = conversion.predict(sources.resolve(str(path))).phases["convert"]["largest tensors"]
    assert planned == 18 * 2 * one  # of one expert's gate and up: not of all three


@pytest.mark.parametrize("family", GGUF_EXPERTS)
def test_experts_of_a_gguf_file_are_as_large_as_its_header_says(family: str, tmp_path: Path) -> None:
    """transformers does not read that size; against the folder that the file was made of."""
    sizes = {**GGUF_EXPERTS[family], "moe_intermediate_size": 40}
    sizes |= {"shared_expert_intermediate_size": 96} if family == "qwen2_moe" else {}
    tiny.model(family, **sizes).to(torch.bfloat16).save_pretrained(tmp_path / "full")
    tiny.tokenizer().save_pretrained(tmp_path / "full")
    path = tiny.gguf(tmp_path / "m.gguf", family, **sizes)
    in_pieces(path, tmp_path / "new"), in_pieces(tmp_path / "full", tmp_path / "old")
    assert tensors(tmp_path / "new") == tensors(tmp_path / "old")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert config["moe_intermediate_size"] == 40


@pytest.mark.parametrize(("family", "named"), [("mixtral", "llama model with experts"), ("gpt_oss", "gpt-oss model")])
def test_experts_that_transformers_does_not_read_from_a_gguf_file_are_refused(
    family: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes Mixtral for a Llama, and knows no gate and up of gpt_oss: nothing is made up, read or written."""
    path = tiny.gguf(tmp_path / "m.gguf", family, **EXPERTS[family])
    monkeypatch.setattr(alone, "only", lambda path: pytest.fail("it was read"))
    for asked in (
        lambda: shape.read(sources.resolve(str(path))),
        lambda: quantize.quantize_to_folder(str(path), tmp_path / "new"),
    ):
        with pytest.raises(ModelError, match=named) as said:
            asked()
        assert "\n" not in str(said.value) and not (tmp_path / "new").exists()


def test_a_stopped_conversion_of_experts_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of a parameter with experts: it is made anew, and what was done before it is kept."""
    path = tiny.folder(tmp_path / "full", "qwen3_moe", **EXPERTS["qwen3_moe"])
    expected = in_pieces(path, tmp_path / "old")
    made: list[str] = []
    left = [3]
    real, write = packed.quantised, stream._write

    def stopping(blocks: Any, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
        left[0] -= 1
        if not left[0]:
            raise Stopped
        return real(blocks, shape)

    def counted(file: Any, shard: Any, target: Any, device: str) -> str:
        digest = write(file, shard, target, device)
        made.append(target.name)
        return digest

    monkeypatch.setattr(packed, "quantised", stopping)
    monkeypatch.setattr(stream, "_write", counted)
    with pytest.raises(Stopped):
        quantize.quantize_to_folder(str(path), tmp_path / "new")
    before = len(made)
    quantize.quantize_to_folder(str(path), tmp_path / "new")
    assert same(files(tmp_path / "new"), expected)
    assert before and len(made) == len(set(made))


def test_experts_are_planned_one_by_one(tmp_path: Path) -> None:
    """A budget far below all full-precision weights holds a conversion; the room on disk counts experts in 4 bits."""
    path = tiny.folder(tmp_path / "full", "qwen3_moe", **EXPERTS["qwen3_moe"])
    config = json.loads((path / "config.json").read_text())
    large = {
        "num_experts": 128,
        "num_local_experts": 128,
        "hidden_size": 2048,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
    }
    (path / "config.json").write_text(json.dumps(config | large | {"num_experts_per_tok": 8, "dtype": "bfloat16"}))
    source = sources.resolve(str(path))
    dims = shape.read(source)
    assert 28e9 < dims.expert_parameters < 30e9
    assert conversion.predict(source).peak() < 0.6e9 < 250e9 < conversion.predict(source, whole=True).peak()
    assert 0.5 < conversion.disk_bytes(source, tmp_path / "out") / dims.expert_parameters < 0.6


def test_experts_that_are_laid_out_otherwise_are_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said, with the family's name and what it takes; the bytes are the same."""
    path = tiny.folder(tmp_path / "full", "qwen3_moe", **EXPERTS["qwen3_moe"])
    expected = in_pieces(path, tmp_path / "old")
    monkeypatch.setattr(originals, "_stacks", lambda converter: False)
    said: list[str] = []
    quantize.quantize_to_folder(str(path), tmp_path / "new", notice=said.append)
    assert len(said) == 1 and "loaded whole (the experts of a qwen3_moe model are joined in a way" in said[0]
    assert same(files(tmp_path / "new"), expected)
    dims = shape.read(sources.resolve(str(path)))
    needed = conversion.predict(sources.resolve(str(path)), whole=True).phases["convert"]["full-precision weights"]
    assert needed > 10 * (dims.linear_parameters + dims.expert_parameters)  # bytes: the experts are in memory too


def test_what_a_file_lacks_is_refused_in_one_line(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = tiny.folder(tmp_path / "full")
    held = load_file(path / "model.safetensors")
    del held["model.layers.1.self_attn.q_proj.weight"]
    save_file(held, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"has no model\.layers\.1\.self_attn\.q_proj\.weight") as said:
        quantize.quantize_to_folder(str(path), tmp_path / "new")
    assert "\n" not in str(said.value) and not (tmp_path / "new").exists()
    path = tiny.gguf(tmp_path / "m.gguf")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ModelError, match="cut short at"):
        quantize.quantize_to_folder(str(path), tmp_path / "new")
    assert sorted(left.name for left in tmp_path.iterdir()) == ["full", "m.gguf"]


def test_what_cannot_be_read_in_pieces_is_loaded_whole_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.folder(tmp_path / "full")
    old = in_pieces(path, tmp_path / "old")

    def cannot(*args: Any) -> Any:
        raise pieces.Whole("for a reason")

    monkeypatch.setattr(pieces, "skeleton", cannot)
    said: list[str] = []
    quantize.quantize_to_folder(str(path), tmp_path / "new", notice=said.append)
    assert same(files(tmp_path / "new"), old)
    assert len(said) == 1 and "loaded whole (for a reason), which takes about 431 MB" in said[0]
    with pytest.raises(BudgetError, match=r"largest term: (full|framework)"):
        conversion.require(sources.resolve(str(path)), 430_000_000, whole=True)


def test_the_bytes_do_not_depend_on_the_number_of_threads() -> None:
    torch.manual_seed(0)
    weight, made = torch.randn(4096, 2048), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            made.append(packing.pack(iter([weight.view(-1)]), tuple(weight.shape)))
    finally:
        torch.set_num_threads(before)
    for other in made[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in made[0].items())


class Stopped(BaseException):
    """As a kill: nothing may be put right after it."""


def test_a_stopped_conversion_goes_on_with_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after each tensor in turn, three of them anew each time; the last one finds all the others done."""
    path = tiny.folder(tmp_path / "full", "qwen2")
    expected = in_pieces(path, tmp_path / "old")
    written: list[str] = []
    real = stream._write

    def counted(file: Any, shard: Any, target: Any, device: str) -> str:
        if len(written) == 3:
            raise Stopped
        written.append(target.name)
        return real(file, shard, target, device)

    monkeypatch.setattr(stream, "_write", counted)
    made: list[str] = []
    for _ in range(100):
        written.clear()
        try:
            quantize.quantize_to_folder(str(path), tmp_path / "new")
        except Stopped:
            assert not (tmp_path / "new").exists()
            made += written
            continue
        made += written
        break
    assert same(files(tmp_path / "new"), expected)
    assert len(made) == len(set(made)) > 20
    assert sorted(left.name for left in tmp_path.iterdir()) == ["full", "new", "old"]


@pytest.mark.parametrize("harm", ["byte", "cut", "record", "other", "version"])
def test_what_is_not_as_it_was_recorded_is_made_anew(
    harm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.folder(tmp_path / "full", "llama")
    expected = in_pieces(path, tmp_path / "old")
    real = quantize._complete
    monkeypatch.setattr(quantize, "_complete", lambda *args: (_ for _ in ()).throw(Stopped()))
    with pytest.raises(Stopped):
        quantize.quantize_to_folder(str(path), tmp_path / "new")
    monkeypatch.setattr(quantize, "_complete", real)
    begun = tmp_path / ".new-begun"
    weights, record = begun / "model.safetensors", begun / ".done.jsonl"
    data = bytearray(weights.read_bytes())
    assert bytes(data) == expected["model.safetensors"]
    if harm == "byte":
        data[len(data) // 2] ^= 1
        weights.write_bytes(data)
    elif harm == "cut":
        weights.write_bytes(data[: len(data) // 3])
    elif harm == "record":
        record.write_bytes(record.read_bytes().replace(b'"state":16', b'"state":17', 3))
    elif harm == "other":
        (begun / "added_tokens.json").write_text("{}")
    else:
        monkeypatch.setattr(torch, "__version__", "other")
    quantize.quantize_to_folder(str(path), tmp_path / "new")
    assert same(files(tmp_path / "new"), expected)


def test_a_source_that_changes_meanwhile_is_no_folder(tmp_path: Path) -> None:
    path = tiny.folder(tmp_path / "full")
    changed = False

    def change(done: int, total: int) -> None:
        nonlocal changed
        if not changed:
            changed = True
            (path / "model.safetensors").touch()

    with pytest.raises(ModelError, match="changed while it was read"):
        quantize.quantize_to_folder(str(path), tmp_path / "new", report=change)
    assert [left.name for left in tmp_path.iterdir()] == ["full"]


def test_a_budget_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny.gguf(tmp_path / "m.gguf")
    monkeypatch.setattr(alone, "only", lambda path: pytest.fail("it was read"))
    with pytest.raises(BudgetError, match="largest term") as said:
        quantize.quantize_to_folder(str(path), tmp_path / "new", budget=200_000_000)
    assert said.value.exit_code == 5 and [left.name for left in tmp_path.iterdir()] == ["m.gguf"]


def test_progress_is_told_in_bytes_to_the_end(tmp_path: Path) -> None:
    path, told = tiny.folder(tmp_path / "full"), []
    quantize.quantize_to_folder(str(path), tmp_path / "new", report=lambda done, total: told.append((done, total)))
    size = (tmp_path / "new/model.safetensors").stat().st_size
    totals = {total for _, total in told}
    assert len(totals) == 1 and abs(totals.pop() - size) < 1000
    assert [done for done, _ in told] == sorted(done for done, _ in told) and len(told) > 10
