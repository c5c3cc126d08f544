"""What is put in a library's place for a while: in the threads that asked for it alone, and gone after the last of them.

Two threads are inside at once, and the one that came first leaves first.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge.machine import standin
from edge.weights import alone, checkpoint, libraries, pieces
from tests import tiny

LONG = 60  # seconds, where something is wrong


@contextmanager
def staggered(work: Callable[[Callable[[], None]], Any], patience: float = LONG) -> Iterator[list[Any]]:
    """Two threads that `work`: both are inside before the first leaves, and the block runs while the first is inside.

    `work` calls what it is given once it is inside. With little `patience` the first leaves also where the second
    cannot come in. After the block what they gave lies in the list.
    """
    inside = [threading.Event(), threading.Event()]
    left = threading.Event()
    found: list[Any] = []

    def wait(number: int) -> None:
        inside[number].set()
        if number == 0:
            inside[1].wait(patience)
        else:
            assert left.wait(LONG)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(work, lambda: wait(0))
        first.add_done_callback(lambda _: left.set())
        while not inside[0].wait(0.01):
            assert not first.done(), first.exception()
        try:
            yield found
        finally:
            second = threads.submit(work, lambda: wait(1))
            found += [first.result(LONG), second.result(LONG)]


def as_they_are() -> dict[str, Any]:
    """What libraries look up where it is used, and somebody replaces."""
    import transformers
    from gguf import GGUFReader
    from huggingface_hub import constants
    from peft.tuners import tuners_utils
    from transformers import dynamic_module_utils, initialization

    tables = (torch.nn.init, torch.nn.Module, initialization, transformers.PreTrainedModel, GGUFReader)
    found = {f"{table.__name__}.{name}": value for table in tables for name, value in vars(table).items()}
    found |= {f"peft.{name}": value for name, value in vars(tuners_utils).items()}
    found |= {"compile": torch.compile, "linspace": torch.linspace, "dtype": torch.get_default_dtype()}
    found |= {"offline": constants.HF_HUB_OFFLINE, "asks": dynamic_module_utils.TIME_OUT_REMOTE_CODE}
    return found | {f"given {name}": value for name, value in initialization.TORCH_INIT_FUNCTIONS.items()}


def changed(before: dict[str, Any]) -> list[str]:
    """The names of what is another thing now."""
    now = as_they_are()
    return [name for name in {**before, **now} if before.get(name, before) is not now.get(name, before)]


def drawn() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.nn.Linear(3, 3).weight.detach().clone()


def test_each_thread_has_its_own_and_the_last_one_puts_the_first_back() -> None:
    library = types.SimpleNamespace(f=lambda x: x + 1)
    own = library.f

    def work(wait: Callable[[], None]) -> list[int]:
        with standin.instead(library, "f", lambda before, x: 10 * before(x)):
            wait()
            with standin.instead(library, "f", lambda before, x: -before(x)):
                inner = library.f(1)
            return [inner, library.f(1)]

    with staggered(work) as found:
        assert library.f(1) == 2
    assert found == [[-2, 20], [-2, 20]] and library.f is own
    with standin.instead(library, "g", own):
        assert not hasattr(library, "g")
    assert not hasattr(library, "g")


def test_what_another_puts_there_meanwhile_stays_and_grows_no_chain() -> None:
    library = types.SimpleNamespace(f=abs)
    for _ in range(3):
        with standin.instead(library, "f", lambda before, x: 7):
            saved, library.f = library.f, max
        assert library.f is max
        library.f = saved
        assert library.f(-1) == 1 and saved.__wrapped__ is abs
    with standin.instead(library, "f", lambda before, x: 7):
        assert library.f(-1) == 7
    assert library.f is abs


def test_sessions_opened_at_once_leave_the_libraries_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes = [tiny.runtime("llama"), tiny.runtime("llama")]
    with runtimes[0].session() as session:
        expected, wanted = session.adapter.fingerprint(), drawn()
    before = as_they_are()
    tuner = libraries.tuner()
    prepare = tuner._prepare_adapter_config
    waits = threading.local()

    def prepared(self: Any, config: Any, model_config: Any) -> Any:
        waits.inside()
        return prepare(self, config, model_config)

    monkeypatch.setattr(tuner, "_prepare_adapter_config", prepared)

    def work(wait: Callable[[], None]) -> str:
        waits.inside = wait
        with runtimes.pop().session() as session:
            return session.adapter.fingerprint()

    with staggered(work) as found:
        assert torch.equal(drawn(), wanted)
        assert not [name for name in changed(before) if name.startswith("peft")]
    assert found == [expected, expected]
    assert changed(before) == [] and torch.equal(drawn(), wanted)


@pytest.mark.parametrize("how", ["built", "loaded", "gguf"])
def test_models_made_at_once_leave_the_libraries_as_they_were(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    folder = tiny.folder(tmp_path / "m", "llama")
    config = checkpoint.load_config(folder, False)
    path = tiny.gguf(tmp_path / "m.gguf")
    alone.load_gguf(path, torch.float32)
    before, wanted = as_they_are(), drawn()
    made, waits = transformers.LlamaModel.__init__, threading.local()

    def begin(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        waits.inside()

    monkeypatch.setattr(transformers.LlamaModel, "__init__", begin)

    def work(wait: Callable[[], None]) -> Any:
        waits.inside = wait
        if how == "built":
            return pieces.skeleton(config, torch.bfloat16, False)
        if how == "gguf":
            return alone.load_gguf(path, torch.bfloat16)
        return checkpoint.load_pretrained(folder, tiny.CPU, False, False, torch.bfloat16)

    with staggered(work, patience=0.2) as found:
        assert not torch.nn.Linear(2, 2).weight.is_meta
    assert [next(model.parameters()).is_meta for model in found] == [how == "built"] * 2
    assert changed(before) == [] and torch.equal(drawn(), wanted)


def test_a_model_without_weights_is_made_in_this_thread_alone() -> None:
    before = as_they_are()

    def work(wait: Callable[[], None]) -> list[Any]:
        with libraries.weightless(), libraries.undrawn():
            wait()
            made = torch.nn.BatchNorm1d(3)
            return [made.weight, made.running_mean, torch.nn.Linear(3, 3, bias=False).weight]

    with staggered(work) as found:
        assert not torch.nn.Linear(3, 3).weight.is_meta
    assert [[part.is_meta for part in parts] for parts in found] == [[True, False, True]] * 2
    assert found[0][2].requires_grad and changed(before) == []


def test_a_reader_of_another_thread_keeps_its_file_mapped(tmp_path: Path) -> None:
    from gguf import GGUFReader

    path = tiny.gguf(tmp_path / "m.gguf")
    before = as_they_are()

    def work(wait: Callable[[], None]) -> Any:
        with alone._plain_arrays():
            wait()
            return GGUFReader(path)

    with staggered(work) as found:
        theirs = GGUFReader(path, "r+")
        name = theirs.fields["general.architecture"]
        assert type(theirs.data) is np.memmap and isinstance(name.parts[-1], np.memmap)
        assert theirs.tensors[0].data.flags.writeable
    for reader in found:
        assert type(reader.data) is type(reader.fields["general.architecture"].parts[-1]) is np.ndarray
        assert bytes(reader.fields["general.architecture"].parts[-1]) == bytes(name.parts[-1])
        assert [tensor.data.tobytes() for tensor in reader.tensors] == [
            tensor.data.tobytes() for tensor in theirs.tensors
        ]
    assert changed(before) == []


def test_an_adapter_is_the_same_whatever_torch_makes_by_itself() -> None:
    """Another thread may load a model of another dtype, and memory that was not filled may hold anything."""
    from edge.learning.optimizer import AdamW

    with tiny.runtime("llama").session() as session:
        expected = session.adapter.fingerprint()
    runtime = tiny.runtime("llama")
    torch.set_default_dtype(torch.bfloat16)
    torch.use_deterministic_algorithms(True)  # fills it with NaN
    try:
        with runtime.session() as session:
            adapter = session.adapter
            assert adapter.fingerprint() == expected
            assert {p.dtype for p in (*adapter.parameters(), *AdamW(adapter.parameters()).steps)} == {torch.float32}
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_default_dtype(torch.float32)


def test_libraries_imported_at_once_leave_torch_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function: "compiled")
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    before = as_they_are()
    waits = threading.local()

    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            if name != "bitsandbytes":
                return None
            waits.inside()
            return ModuleSpec(name, self)  # type: ignore[arg-type]

        def create_module(self, spec: Any) -> Any:
            return None

        def exec_module(self, module: Any) -> None:
            module.kernel = torch.compile(abs)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])

    def work(wait: Callable[[], None]) -> Any:
        waits.inside = wait
        libraries.load()
        return sys.modules["bitsandbytes"].kernel

    with staggered(work, patience=0.2) as found:
        assert torch.compile(abs) == "compiled"
    assert [callable(kernel) for kernel in found] == [True, True]
    assert changed(before) == []
