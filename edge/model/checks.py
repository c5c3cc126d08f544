"""What is tried on a base before it is used: that its numbers are those that every loop will take them for.

Owns: the head of a model, trial forwards on four tokens, trial words; which bases passed before.
Does not know: how a base is loaded, adapters, texts.
Units: token ids, logits.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import journal
from ..errors import ModelError, StorageError
from ..memory import families
from ..store import folders
from ..weights import checkpoint
from .loss import Head

TRIED = 16  # tokens that a text is continued by, in parts


def head_of(model: Any, config: Any) -> Head:
    """The head of a causal language model, with what its config says of scale and cap.

    Raises:
        ModelError: it has none that is linear.
    """
    module = model.get_output_embeddings()
    if not isinstance(module, nn.Linear):
        raise ModelError(f"a {type(model).__name__} has no linear head", "a causal language model", "use another model")
    scale = getattr(config, "logit_scale", None) or 1.0 / (getattr(config, "logits_scaling", None) or 1.0)
    scale *= getattr(config, "lm_head_multiplier", None) or 1.0
    return Head(module.weight, module.bias, getattr(config, "final_logit_softcapping", None), float(scale))


def require_words(base: Any) -> None:
    """Refuses a tokenizer that gives no token ids of this model, and ends that are none, before a text is begun."""
    rows = base.model.get_input_embeddings().num_embeddings
    ids = base.encode("A word.")
    base.decode(ids)
    ends = base.eos_ids
    wrong = [value for value in (*ids, *ends) if isinstance(value, bool) or not isinstance(value, int) or value < 0]
    wrong += [value for value in ids if value not in wrong and value >= rows]
    if wrong:
        raise ModelError(
            f"token id {wrong[0]!r}", f"a number below the {rows} of the model's vocabulary",
            "the tokenizer or generation_config.json is of another model: check the folder",
        )  # fmt: skip


def verify(base: Any) -> None:
    """`try_logits`, once for a 4-bit folder made here: its files are known by their checksums, and the cache keeps that
    they passed with this code and these libraries on such a device.

    Raises:
        ModelError: see there.
    """
    path = _passed(base) if base.identity and base.manifest() else None
    if path is not None and path.is_file():
        return
    try_logits(base)
    if path is not None:
        folders.remember(path, b"{}")


def _passed(base: Any) -> Path | None:
    """Where the cache keeps that a base passed; None where there is no cache."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    what = {
        "base": base.fingerprint(),
        "code": [journal.file_fingerprint(path) for path in code],
        "libraries": [metadata.version(name) for name in ("torch", "transformers", "bitsandbytes")],
        "device": [base.device.kind, base.device.units, base.device.dtype, platform.machine()],
        "tokens": base.config.vocab_size,
    }
    try:
        return folders.cache_root() / "passed" / f"{journal.fingerprint(what)}.json"
    except StorageError:
        return None


@torch.no_grad()
def try_logits(base: Any) -> None:
    """Refuses a model whose logits are not what decoder + head give, or not the same from its own cache: its losses and
    its texts would be wrong in silence.
    """
    from transformers import DynamicCache

    if not any(families.adapts(name) for name, _ in base.linears()):
        raise ModelError(
            f"a {base.config.model_type} model has no linear layer that an adapter could change",
            "a decoder-only transformer with linear layers", "use another model",
        )  # fmt: skip
    checkpoint.require_shapes(base.linears())
    ids = torch.arange(1, 5, device=base.device.name)[None] % base.config.vocab_size
    hidden = base.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
    ours = base.head.logits(hidden)
    theirs = base.model(input_ids=ids, use_cache=False).logits[0].float()
    spread = float(theirs.std()) + 1e-6
    if ours.shape != theirs.shape or float((ours - theirs).abs().max()) > 0.05 * spread:
        raise ModelError(
            f"a {type(base.model).__name__} computes its logits in a way that templora does not know",
            "logits = softcap(scale * head(hidden))",
            "use another architecture",
        )
    if base.config.model_type in families.FUSED:
        return  # tested (`README.md`)
    ids = torch.arange(1, 1 + TRIED, device=base.device.name)[None] % base.config.vocab_size
    theirs = base.model(input_ids=ids, use_cache=False).logits[0].float()
    cache = DynamicCache(config=base.config)
    for part in (ids[:, :7], ids[:, 7:-1], ids[:, -1:]):  # several tokens after others, too: some forget a state there
        last = base.decoder(input_ids=part, past_key_values=cache, use_cache=True).last_hidden_state[0, -1:]
    # in two bytes a product of one row rounds otherwise than one of four
    allowed = (1e-3 if base.device.dtype == "float32" else 0.25) * spread
    if float((base.head.logits(last)[0] - theirs[-1]).abs().max()) > allowed:
        raise ModelError(
            f"a {base.config.model_type} model continues a text otherwise than it reads it in one piece",
            "the same logits with its cache as without",
            "use another model",
        )
