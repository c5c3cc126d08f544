"""The libraries that a session stands on, imported at the cost of what it uses of them.

Owns: how bitsandbytes and peft are imported; that no memory is taken and nothing drawn for weights that are about to be
read; what of peft puts an adapter on a model.
Does not know: what they are used for.

bitsandbytes hands some of its kernels to `torch.compile` while it is imported, which imports torch's compiler: a
second of processor time for kernels that a session with native ones never calls. They are compiled at their first
call instead.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from ..machine import compiler, standin
from ..machine.allocator import importing, own


def load() -> None:
    """Imports them; does nothing the second time. Where this process is the command and nothing else, the libraries are
    told that no other processes compute with it.
    """
    with importing(), compiler.alone() if own() else nullcontext():
        if "bitsandbytes" not in sys.modules:
            with standin.instead(torch, "compile", _later):
                import bitsandbytes
            assert bitsandbytes
        import peft
        from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, generation

        assert peft and AutoModelForCausalLM and AutoTokenizer and DynamicCache and generation.LogitsProcessorList


def _later(compiles: Callable[..., Any], function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """What `torch.compile` gives, made when it is called."""
    if function is None:
        return functools.partial(_later, compiles, **options)
    made: list[Callable[..., Any]] = []

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(compiles(function, **options))
        return made[0](*args, **kwargs)

    return run


DRAWN = ("normal_", "uniform_", "trunc_normal_", "xavier_normal_", "xavier_uniform_", "kaiming_normal_",
         "kaiming_uniform_", "orthogonal_", "sparse_")  # fmt: skip


@contextmanager
def undrawn() -> Iterator[None]:
    """Inside, this thread draws no random numbers for tensors without memory: torch has Python code for that, which
    imports sympy. Other tensors, and what is not random, are set as ever.
    """
    from transformers import initialization

    with ExitStack() as inside:
        for library in (torch.nn.init, initialization):
            for name in DRAWN:
                inside.enter_context(standin.instead(library, name, _unless_meta))
        yield


def _unless_meta(draw: Callable[..., Any], tensor: Any, *args: Any, **kwargs: Any) -> Any:
    return tensor if tensor.is_meta else draw(tensor, *args, **kwargs)


def _left_as_it_is(draw: Callable[..., Any], tensor: Any, *args: Any, **kwargs: Any) -> Any:
    return tensor


@contextmanager
def weightless() -> Iterator[None]:
    """Inside, modules that this thread makes have parameters without memory; their buffers have some.

    accelerate's `init_empty_weights` is the same for every thread of the process.
    """
    with standin.instead(torch.nn.Module, "register_parameter", _without_memory):
        yield


def _without_memory(register: Callable[..., Any], module: Any, name: str, parameter: Any) -> None:
    register(module, name, parameter)
    if parameter is not None:
        kept = module._parameters[name]
        said = {key: value for key, value in vars(kept).items() if key != "_is_hf_initialized"}
        made = type(kept)(kept.to("meta"), **{**said, "requires_grad": parameter.requires_grad})
        vars(made).update({key: value for key, value in vars(kept).items() if key not in said})
        module._parameters[name] = made


_ASKS = "is_transformers_ge_v5"  # what peft looks at before it asks for the list


@functools.cache
def tuner() -> Any:
    """The class that puts peft's layers in the place of a model's own."""
    import peft

    # a copy of the method that finds another answer to its question; older versions have no such list, and ask for none
    method = peft.LoraModel.inject_adapter
    inject = types.FunctionType(
        method.__code__, {**method.__globals__, _ASKS: False}, None, method.__defaults__, method.__closure__
    )

    class Tuner(peft.LoraModel):  # type: ignore[misc]
        """peft's own, for layers that are named one by one.

        For models with experts it would take the names for those of older checkpoints, and put the adapter on all
        experts. It is not asked to: what changed from one version of transformers to the next is a list for all
        families, whose making takes a fifth of a second. Nor does it draw numbers: A and B hold anything, and are to be
        filled.
        """

        def _prepare_adapter_config(self, config: Any, model_config: Any) -> Any:
            config.target_modules = set(config.templora_layers)
            config.target_parameters = None
            config.rank_pattern = {}
            config.alpha_pattern = {}
            return super()._prepare_adapter_config(config, model_config)

        def inject_adapter(self, *args: Any, **kwargs: Any) -> Any:
            with standin.instead(torch.nn.init, "kaiming_uniform_", _left_as_it_is):
                return inject(self, *args, **kwargs)

    return Tuner
