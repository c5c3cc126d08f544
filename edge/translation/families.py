"""Families of instruction-tuned models: which template a model is asked with, told from its own metadata.

Owns: how a family is recognised, which codes of languages a chat template knows.
Does not know: what a prompt says (`prompts`), torch.

Most families need no more than their own chat template around one text (`chat`): Qwen and others in ChatML's form,
Gemma, Llama, Mistral, Aya. Others were trained on one wording and answer worse to another: TranslateGemma's template
writes all of it and takes a text with the codes of two languages; Hunyuan-MT's model card gives one in Chinese for
pairs with Chinese, and one in English.
"""

from __future__ import annotations

import re
from typing import Any

from .languages import Language


def fitting(tokenizer: Any, source: Language, target: Language, *, architecture: str = "", reference: str = "") -> str:
    """The name of the shipped template that fits a model.

    Args:
        architecture: its config's `model_type`.
        reference: what the user called it; a model for translation may have its name alone to be told by.
    """
    written = template_of(tokenizer)
    if not written:
        return "plain"
    if "source_lang_code" in written:
        return "translategemma"
    if _is_hunyuan_mt(written, architecture, reference):
        return "hunyuan-zh" if "zh" in (source.code, target.code) else "hunyuan"
    return "chat"


def template_of(tokenizer: Any) -> str:
    """A tokenizer's chat template; empty where it has none."""
    written = getattr(tokenizer, "chat_template", None) or ""
    return str(written.get("default", "")) if isinstance(written, dict) else str(written)


def code_in(language: Language, tokenizer: Any) -> str:
    """The code of a language that a chat template lists, from the narrowest on; the two letters where it lists none."""
    written = template_of(tokenizer)
    quoted = (tag for tag in language.tags if f'"{tag}"' in written or f"'{tag}'" in written)
    return next(quoted, language.code)


def _is_hunyuan_mt(written: str, architecture: str, reference: str) -> bool:
    """Its turns are Hunyuan's; the models for chat differ from it by their thinking, or by their name."""
    turns = "hy_User" in written or ("<|startoftext|>" in written and "<|extra_0|>" in written)
    if not (turns or architecture.startswith("hunyuan")):
        return False
    return "think" not in written or bool(re.search(r"(?:hunyuan|hy)-?mt", reference.lower()))
