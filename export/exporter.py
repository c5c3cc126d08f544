"""A base -> an export folder, whole and checked, or nothing.

Owns: the order of the work, the staging folder, what is written beside the graphs.
Does not know: operators, sessions, arguments.
Units: bytes.
"""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import torch

from edge import journal
from edge.errors import ExportError, StorageError
from edge.machine.allocator import release_memory
from edge.model.base import Base
from edge.settings import OnnxSettings
from edge.weights import words

from . import check, graph, nf4
from .manifest import DECODER, HEAD, WEIGHTS, Manifest
from .rows import Place
from .writer import DataFile

_LIBRARIES = ("templora", "torch", "transformers", "onnx", "onnxruntime", "bitsandbytes")


def export(base: Base, out: Path, precision: str = "nf4", device: str = "cpu") -> Manifest:
    """Writes the graphs of a base to a new folder, and checks them against the base.

    Args:
        precision: `nf4` keeps 4-bit weights packed, and is float32 elsewhere; `fp32`; `int8` for weights and head;
            `int4` for most weights, and `int8` for the rest.
        device: what it is made for, cpu or cuda.

    Raises:
        ExportError: the architecture is not known, the folder is taken, or the graph does not say what the base says.
        ModelError: the base gives no numbers.
        StorageError: it cannot be written.
    """
    return export_from(lambda: base, out, precision, device)


def export_from(load: Callable[[], Base], out: Path, precision: str = "nf4", device: str = "cpu") -> Manifest:
    """`export` of a base that nobody else needs: it is gone before the graph is loaded to be compared with it.

    Raises:
        ExportError, StorageError: see `export`.
    """
    if precision not in OnnxSettings.PRECISIONS:
        raise ExportError(f"precision '{precision}'", "one of " + ", ".join(OnnxSettings.PRECISIONS), "name another")
    with _staging(out) as folder:
        said: check.Said | None = None
        for wide in (True, False) if precision == "int8" else (False,):
            made, said = _written(load(), folder, precision, device, wide, said)
            release_memory()  # modules hold each other: only a collection frees the base
            measured = _measured(folder, said, wide=wide)
            if measured is not None:
                break
            for path in folder.iterdir():
                path.unlink()
        assert measured is not None
        made = dataclasses.replace(made, parity=measured)
        made.save(folder)
    return made


def _measured(folder: Path, said: check.Said, *, wide: bool) -> dict[str, float] | None:
    """How far the graph is from its base; None where wide blocks put it too far, as some models' inputs do."""
    try:
        measured = check.parity(folder, said)
    except ExportError:
        if not wide:
            raise
        return None
    return None if wide and measured["nats"] > check.WIDE else measured


def _written(
    base: Base, folder: Path, precision: str, device: str, wide: bool, said: check.Said | None
) -> tuple[Manifest, check.Said]:
    """Everything in the folder, and what the base itself says, where it has not `said` it before."""
    graph.require_known(base)
    if said is None:
        check.require_numbers(base)
    digest, *places = _write_graphs(base, folder, precision, half=device == "cuda", wide=wide)
    base.config.to_json_file(folder / "config.json")
    words.save(base.tokenizer, folder)
    made = _manifest(base, folder, precision, device, digest, *places)
    made.save(folder)
    return made, said or check.say(base, made)


@torch.no_grad()
def _write_graphs(base: Base, folder: Path, precision: str, *, half: bool, wide: bool) -> tuple[str, Place, Place]:
    """The two graphs and their weights; sha256 of the weights, and where embedding and head lie in them.

    Tensor by tensor: what is held beside the base is one layer's weight, or one matrix of the vocabulary.
    """
    data = DataFile(folder / WEIGHTS)
    graph.DecoderGraph(base, data, precision, half=half, wide=wide).build().save(folder / DECODER, graph.OPSET)
    embedding = base.model.get_input_embeddings().weight
    tied = base.head.weight.data_ptr() == embedding.data_ptr()
    matrix = nf4.vocabulary(base.head.weight, precision)
    head = _place(data, matrix)
    graph.head(base, data, matrix).save(folder / HEAD, graph.OPSET)
    if tied:
        return data.close(), head, head
    data.forget()
    del matrix
    rows = _place(data, nf4.vocabulary(embedding, precision))
    return data.close(), rows, head


def _place(data: DataFile, matrix: nf4.Plain) -> Place:
    """Writes a matrix where it is not written yet."""
    places = [data.share(tensor)[0] for tensor in matrix.tensors()]
    block = {"block": matrix.block, "scales": places[1]} if isinstance(matrix, nf4.Int8) else {}
    return Place(matrix.rows, matrix.columns, places[0], **block)


def _manifest(
    base: Base, folder: Path, precision: str, device: str, digest: str, embedding: Place, head: Place
) -> Manifest:
    config = base.config
    windows = graph.windows(base)
    digests = {
        path.name: journal.file_fingerprint(path) if path.name != WEIGHTS else digest for path in folder.iterdir()
    }
    versions = {name: metadata.version(name) for name in _LIBRARIES if name != "templora"}
    return Manifest(
        base=base.fingerprint(),
        precision=precision,
        device=device,
        opset=graph.OPSET,
        layers=config.num_hidden_layers,
        groups=config.num_key_value_heads,
        head_size=graph.head_size(config),
        hidden=config.hidden_size,
        vocab=len(base.head.weight),
        cache="float16" if device == "cuda" else "float32",
        window=max(windows.values(), default=0),
        sliding=sorted(windows),
        embedding=embedding,
        head=head,
        lora=graph.lora_shapes(base),
        files={name: ((folder / name).stat().st_size, value) for name, value in sorted(digests.items())},
        versions={"python": platform.python_version(), **versions},
        parity={},
        source=base.origin(),
    )


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    """A folder that becomes `out` when all went well, and is gone when not."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ExportError(f"{out} exists", "a new or empty folder", "name another one or remove it")
    try:
        with journal.unfinished(out) as folder:
            yield folder
            journal.sync_tree(folder)
            if out.exists():
                out.rmdir()
            folder.rename(out)
            journal.sync_folder(out.parent)
    except OSError as error:
        raise StorageError(
            f"cannot write {out}: {error.strerror or error}", "a writable folder with room", "name another folder"
        ) from error
    except Exception as error:
        code = journal.system_error(error)  # a tokenizer is written in Rust
        if code is None:
            raise
        raise journal.storage_error(error, f"write {out}", code) from error
