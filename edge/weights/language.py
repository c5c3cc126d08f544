"""The language model inside a folder that holds more: a vision tower, an audio tower, projections between them.

Owns: which class and which config make the language model alone, and what its tensors are called in such a folder.
Does not know: how tensors are read (`checkpoint.py`), what the other parts are. Their weights are never read.

A folder may name the same tensor in three ways, `language_model.model.layers.0` as it was published,
`model.language_model.layers.0` as transformers writes it, or `model.text_model.layers.0` (SmolVLM); alone it is
`model.layers.0`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ..errors import ModelError, describe
from .alone import sealed

NAMES = {
    r"^(?:model\.)?(?:language|text)_model\.lm_head\.": "lm_head.",
    r"^(?:model\.)?(?:language|text)_model\.(?:model\.)?(?!lm_head)": "model.",
}
_OTHER = re.compile(r"(^|\.)(vision|visual|audio|speech|image|multi_modal|multimodal|embed_vision|embed_audio|mm_)")


def configs(folder: Path, remote_code: bool) -> tuple[Any, bool]:
    """The language model's config, and whether it lies inside a larger model.

    Raises:
        ModelError: damaged, or of an architecture that transformers does not know.
    """
    from transformers import AutoConfig

    try:
        with sealed():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=remote_code, local_files_only=True)
        text = None if remote_code and getattr(config, "auto_map", None) else inside(config)
        if text is None:
            return config, False
        # configs leave it out, or say it of one part only; the files know whether there is a head
        text.tie_word_embeddings = config.tie_word_embeddings and not any(
            name.endswith("lm_head.weight") for name in _stored(folder)
        )
        return text, True
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{folder}/config.json cannot be used ({describe(error)})",
            "a transformers model config",
            "check the folder",
        ) from error


def _stored(folder: Path) -> set[str]:
    """Names of the tensors in a folder, from its index or its files' headers; none where it has none that can be
    read."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return set(json.loads(index.read_text("utf-8"))["weight_map"])
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            names |= set(json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 100 << 20))))
    return names


def inside(config: Any) -> Any | None:
    """The language model's own config, where the folder's is of something larger; None where it is the language
    model's.

    Raises:
        ModelError: the language model reads with an encoder.
    """
    if config.is_encoder_decoder:
        raise ModelError(f"a {config.model_type} model", "a decoder-only transformer", "use another model")
    text = config.get_text_config(decoder=True)
    if text is config:
        return None
    for name in ("quantization_config", "dtype"):  # the larger config's, and true for all parts
        if getattr(text, name, None) is None and getattr(config, name, None) is not None:
            setattr(text, name, getattr(config, name))
    return text


def alone(name: str) -> str | None:
    """What a tensor of a larger folder is called in the language model alone; None for one of another part."""
    for pattern, replacement in NAMES.items():
        name, changed = re.subn(pattern, replacement, name)
        if changed:
            return name
    return None if _OTHER.search(name) else name


def is_listed(config: Any, remote_code: bool) -> bool:
    """Whether transformers has a causal language model with that config, or the folder's own code makes one."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or (remote_code and bool(getattr(config, "auto_map", None)))


def empty(config: Any, dtype: torch.dtype, remote_code: bool) -> Any:
    """A causal language model with that config and no weights."""
    from transformers import AutoModelForCausalLM

    if is_listed(config, remote_code):
        return AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=remote_code)
    return causal_class(config)._from_config(config, dtype=dtype)


def causal_class(config: Any) -> Any:
    """transformers' class of a causal language model with that config; one made of its decoder and a head where it has
    none.

    Raises:
        ModelError: transformers has no decoder with such a config.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

    found = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if found is not None and found.config_class is type(config):
        return found
    body = MODEL_MAPPING.get(type(config), None)
    if body is None or config.is_encoder_decoder:
        raise ModelError(
            f"a {config.model_type} model", "a causal language model that transformers knows", "use another model"
        )
    return _with_head(body)


def _with_head(body: Any) -> Any:
    """A causal language model of a decoder that transformers has inside a larger model only."""
    from transformers.modeling_outputs import CausalLMOutputWithPast

    class LanguageModel(body.__base__):  # type: ignore[misc]
        """Token ids in, logits out."""

        config_class = body.config_class
        base_model_prefix = "model"
        _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.model = body(config)
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self.post_init()

        def forward(self, input_ids: Any = None, **kwargs: Any) -> Any:
            out = self.model(input_ids=input_ids, **kwargs)
            logits = self.lm_head(out.last_hidden_state)
            return CausalLMOutputWithPast(logits=logits, past_key_values=getattr(out, "past_key_values", None))

    return LanguageModel
