"""Loading from one place on this disk and nowhere else: no network, no question, no file that merely lies beside.

Owns: the seal around every loader of transformers, one at a time; the private folder that a GGUF file is read in, GGUF
weights. Does not know: model folders and what they hold (`checkpoint.py`), what a reference means
(`store/sources.py`), a GGUF file's tokenizer (`words.py`).

transformers reads a GGUF file as a part of the folder that it lies in: a config, an adapter or code beside it would be
read too, and each of them may name something on the hub.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
import torch

from ..errors import ModelError, StorageError, TemploraError, describe
from ..machine import standin
from ..machine.held import is_out_of_memory
from ..memory import gguf
from . import ggufvalues

NAME = "model.gguf"  # of the file in its private folder
_lock = RLock()


@contextmanager
def sealed() -> Iterator[None]:
    """Inside the block, transformers and the hub's client neither call anybody nor ask the user anything.

    Both keep the switch in a global that they read at each use, not in an argument that reaches every call. It is set
    back when the block ends, however it ends. One thread at a time is inside: where transformers makes a model it
    replaces more of the kind, torch's default dtype among them, and puts back what it found.
    """
    from huggingface_hub import constants
    from transformers import dynamic_module_utils

    with _lock:
        before = constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE
        constants.HF_HUB_OFFLINE = True
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # seconds to answer in; with 0 it is an error instead
        try:
            yield
        finally:
            constants.HF_HUB_OFFLINE, dynamic_module_utils.TIME_OUT_REMOTE_CODE = before


@contextmanager
def only(path: Path) -> Iterator[Path]:
    """A private folder that holds the file as `NAME` and nothing else; gone with the block.

    Raises:
        StorageError: there is no place for temporary files.
    """
    try:
        temporary = tempfile.TemporaryDirectory(prefix="templora-", ignore_cleanup_errors=True)
    except OSError as error:
        raise StorageError(
            f"no folder for temporary files ({error.strerror})", "a place to write", "set TMPDIR"
        ) from error
    with temporary as name:
        # a link by its whole path: transformers joins names to the folder that it was given, and follows no link back
        (Path(name) / NAME).symlink_to(path.resolve())
        yield Path(name)


def gguf_config(path: Path, header: gguf.Header) -> tuple[Any, dict[str, Any]]:
    """The config that a GGUF file's header describes, and its values as transformers reads them.

    Raises:
        ModelError: it says something that changes the model's numbers and is not known.
        Exception: damaged, or of an architecture that transformers cannot read.
    """
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    with only(path) as folder, sealed(), _plain_arrays():
        values, _ = PreTrainedConfig.get_config_dict(folder, gguf_file=NAME, local_files_only=True)
    values = ggufvalues.completed(values, header, path)
    return CONFIG_MAPPING[values["model_type"]].from_dict(dict(values)), values


@contextmanager
def _plain_arrays() -> Iterator[None]:
    """Inside, readers of GGUF headers in this thread, which are transformers', cut plain arrays. They make one of each
    of a vocabulary's 800,000 strings; as cuts of a mapped file they take more than twice as long.
    """
    from gguf.gguf_reader import GGUFReader

    with standin.instead(GGUFReader, "_build_fields", _plainly):
        yield


def _plainly(build: Callable[..., Any], reader: Any, *args: Any, **more: Any) -> Any:
    if type(reader.data) is np.memmap:
        reader.data = reader.data.view(np.ndarray)
    return build(reader, *args, **more)


def gguf_names(model: Any, header: gguf.Header, values: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """transformers' processor of such a file's tensors, and the model's name for each tensor of the file."""
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

    processor = TENSOR_PROCESSORS.get(str(header.values["general.architecture"]), TensorProcessor)(config=values)
    return processor, get_gguf_hf_weights_map(model, processor)


def load_gguf(path: Path, dtype: torch.dtype) -> Any:
    """Loads a GGUF file with every weight dequantised to `dtype`.

    Raises:
        ModelError: damaged, or of an architecture that transformers cannot read.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {}
    try:
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    except ImportError:
        pass  # older transformers always dequantise
    try:
        with path.open("rb") as file:
            header = gguf.read(file)
        options["config"], values = gguf_config(path, header)
        with only(path) as folder, sealed(), _plain_arrays():
            made = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=NAME, trust_remote_code=False, local_files_only=True, dtype=dtype, **options
            )
        if header.values["general.architecture"] not in ggufvalues.OWN:
            _, names = gguf_names(made, header, values)
            ggufvalues.require_used(header.tensors, {*names, *(f"{name}.weight" for name in names)}, path)
    except TemploraError:
        raise
    except Exception as error:
        raise damaged(path, error) from error
    made.name_or_path = path.name  # not the private folder's: what is saved must be the same each time
    made.config._name_or_path = path.name
    return made


WEIGHTS = "whole safetensors or GGUF weights of an architecture that transformers knows"


@contextmanager
def making(path: Path | str, expected: str = WEIGHTS) -> Iterator[None]:
    """Inside the block a model is made from `path`: whatever a library raises then is said of the model, in one line.

    A config may be wrong in more ways than can be foretold, and each shows somewhere else: in a constructor, in a
    layer's size, in the first forward. Errors of ours, and of memory, pass as they are.

    Raises:
        ModelError: the block raised an error of another kind.
    """
    try:
        yield
    except TemploraError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise damaged(path, error, expected) from error


def damaged(path: Path | str, error: Exception, expected: str = WEIGHTS) -> ModelError:
    """What is raised where a library cannot make a model of `path`."""
    return ModelError(f"{path} cannot be loaded ({describe(error)})", expected, "check or download it again")
