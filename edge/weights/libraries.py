"""The libraries that a session stands on, imported at the cost of what it uses of them.

Owns: how bitsandbytes and peft are imported.
Does not know: what they are used for.

bitsandbytes hands some of its kernels to `torch.compile` while it is imported, which imports torch's compiler: a
second of processor time for kernels that a session with native ones never calls. They are compiled at their first
call instead.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import torch

from ..machine.allocator import importing


def load() -> None:
    """Imports them; nothing where that was done before."""
    with importing():
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
