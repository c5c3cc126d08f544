"""The libraries that a session stands on, imported at the cost of what it uses of them.

Owns: how bitsandbytes and peft are imported; that nothing is drawn for weights that are about to be read; what of peft
puts an adapter on a model.
Does not know: what they are used for.

bitsandbytes hands some of its kernels to `torch.compile` while it is imported, which imports torch's compiler: a
second of processor time for kernels that a session with native ones never calls. They are compiled at their first
call instead.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from ..machine import compiler
from ..machine.allocator import importing, own


def load() -> None:
    """Imports them; does nothing the second time. Where this process is the command and nothing else, the libraries are
    told that no other processes compute with it.
    """
    with importing(), compiler.alone() if own() else nullcontext():
        if "bitsandbytes" not in sys.modules:
            compiles = torch.compile
            torch.compile = functools.partial(_later, compiles)
            try:
                import bitsandbytes
            finally:
                torch.compile = compiles
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
    """Inside, no random numbers are drawn for tensors without memory: torch has Python code for that, which imports
    sympy. Other tensors, and what is not random, are set as ever.
    """
    from transformers import initialization

    tables: list[Any] = [vars(torch.nn.init), getattr(initialization, "TORCH_INIT_FUNCTIONS", {})]
    before = [(table, name, table[name]) for table in tables for name in DRAWN if name in table]
    for table, name, function in before:
        table[name] = functools.partial(_unless_meta, function)
    try:
        yield
    finally:
        for table, name, function in before:
            table[name] = function


def _unless_meta(function: Callable[..., Any], tensor: Any, *args: Any, **kwargs: Any) -> Any:
    return tensor if tensor.is_meta else function(tensor, *args, **kwargs)


def _zero(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return tensor.detach().zero_()


_ASKS = "is_transformers_ge_v5"  # what peft looks at before it asks for the list


@functools.cache
def tuner() -> Any:
    """The class that puts peft's layers in the place of a model's own."""
    import peft
    from peft.tuners import tuners_utils

    class Tuner(peft.LoraModel):  # type: ignore[misc]
        """peft's own, for layers that are named one by one.

        For models with experts it would take the names for those of older checkpoints, and put the adapter on all
        experts. It is not asked to: what changed from one version of transformers to the next is a list for all
        families, whose making takes a fifth of a second. Nor does it draw numbers, each A's twice: they are zero.
        """

        def _prepare_adapter_config(self, config: Any, model_config: Any) -> Any:
            config.target_modules = set(config.templora_layers)
            config.target_parameters = None
            config.rank_pattern = {}
            config.alpha_pattern = {}
            return super()._prepare_adapter_config(config, model_config)

        def inject_adapter(self, *args: Any, **kwargs: Any) -> Any:
            table = vars(tuners_utils)  # older versions have no such list, and ask for none
            asks, table[_ASKS] = table.get(_ASKS), False
            draws, torch.nn.init.kaiming_uniform_ = torch.nn.init.kaiming_uniform_, _zero
            try:
                super().inject_adapter(*args, **kwargs)
            finally:
                table[_ASKS] = asks
                torch.nn.init.kaiming_uniform_ = draws

    return Tuner
