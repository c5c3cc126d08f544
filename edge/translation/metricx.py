"""MetricX: how many errors a translation has, as an mT5 says that was trained on marked ones.

Owns: what a checkpoint of Google's is asked, and where its answer stands. Does not know: what is done with scores.
Units: tokens; scores from 0 to 25, lower is better. Source: WMT 2023 and 2024 (aclanthology 2023.wmt-1.63,
2024.wmt-1.35).

The answer is the logit of one unused word at the decoder's first position. Nothing in a checkpoint says which form of
question it was trained with; its published name does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..weights import tensorfile
from ..weights.alone import making, sealed
from ..weights.checkpoint import load_tokenizer, read_safetensors
from .learned import ROOM, Metric, Sample, Words, in_batches, tokenizer_folder

ANSWER = 250089  # <extra_id_10>
LARGEST = 25.0
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
WHOLE = "a MetricX folder as it was published"
VOCABULARIES = tuple(f"google/mt5-{size}" for size in ("xl", "large", "xxl", "base", "small"))  # all the same
TOKENS = {"metricx-23": 1024, "metricx-24": 1536}  # what a question is cut to


def find(folder: Path) -> Metric:
    """The metric of a folder with `config.json` and weights.

    Raises:
        ModelError: something is missing, or its path does not say which MetricX it is.
    """
    form = next((name for name in TOKENS if name in str(folder.resolve()).lower()), None)
    if form is None:
        raise ModelError(
            f"{folder} does not say which MetricX it is", f"{' or '.join(TOKENS)} in its path, as it was published",
            "rename it",
        )  # fmt: skip
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ModelError(f"{folder} has no weights", "safetensors, or pytorch_model.bin", "get the folder again, whole")
    words = tokenizer_folder(folder, VOCABULARIES)
    alone = "-qe-" in str(folder.resolve()).lower()
    if form == "metricx-24":
        reads: tuple[str, ...] = ("source", "reference")
    else:
        reads = ("source",) if alone else ("reference",)
    size = sum(4 * count for path in files for count in _sizes(path))
    return Metric("MetricX", "lower", reads, size + ROOM, partial(_load, folder, files, words, form, reads))


def question(sample: Sample, form: str, reads: Sequence[str]) -> str:
    """The text that the model is asked."""
    if form == "metricx-24":
        return f"source: {sample.source} candidate: {sample.translation} reference: {sample.reference}"
    if "source" in reads:
        return f"candidate: {sample.translation} source: {sample.source}"
    return f"candidate: {sample.translation} reference: {sample.reference}"


def _load(
    folder: Path, files: Sequence[Path], words: Path, form: str, reads: tuple[str, ...], device: str
) -> Callable[[Sequence[Sample]], list[float]]:
    from transformers import MT5Config, MT5Model

    with making(folder, WHOLE), sealed():
        config = MT5Config.from_pretrained(folder, local_files_only=True)
        state = dict(_read(files))
        # files name the shared embedding by any of these; transformers would take the head for one that is not there
        shared = next(state[name] for name in EMBEDDINGS if name in state)
        head = state.pop("lm_head.weight", None)
        answer = (shared[ANSWER] * config.d_model**-0.5 if head is None else head[ANSWER]).to(device, copy=True)
        del head
        model, found = MT5Model.from_pretrained(
            None, config=config, state_dict={**state, **dict.fromkeys(EMBEDDINGS, shared)}, dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
        if found["missing_keys"] or not torch.equal(model.encoder.embed_tokens.weight, shared):
            raise ModelError(
                f"{folder} lacks {min(found['missing_keys'], default='its embedding')}", WHOLE, "get it again"
            )
        scorer = Scorer(model.to(device).eval(), answer, Words(load_tokenizer(words)), form, reads, device)
        scorer.scores([Sample("a", "a", "a")])  # what does not fit together shows here
    return scorer.scores


def _sizes(path: Path) -> list[int]:
    """How many numbers each tensor of a file has."""
    if path.suffix == ".safetensors":
        return [math.prod(entry.shape) for entry in tensorfile.entries(path)]
    return [tensor.numel() for tensor in _pickled(path, "meta").values()]


def _read(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the files, in float32."""
    for path in files:
        safe = path.suffix == ".safetensors"
        for name, tensor in read_safetensors(path) if safe else _pickled(path, "cpu").items():
            yield name, tensor.float()


def _pickled(path: Path, device: str) -> dict[str, Tensor]:
    with making(path, WHOLE):
        found: dict[str, Tensor] = torch.load(path, map_location=device, weights_only=True, mmap=True)
    return found


@dataclass(frozen=True)
class Scorer:
    """A loaded checkpoint with its tokenizer."""

    model: Any
    answer: Tensor
    words: Words
    form: str
    reads: tuple[str, ...]
    device: str

    @torch.inference_mode()
    def scores(self, samples: Sequence[Sample]) -> list[float]:
        """One for each sample."""
        asked = [question(sample, self.form, self.reads) for sample in samples]
        rows = [row[:-1] for row in self.words.ids(asked, TOKENS[self.form])]  # trained without the end of a text
        answers: list[float] = in_batches(rows, self.words, self.device, self._answers).tolist()
        return answers

    def _answers(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(n,) scores of (n, S) questions."""
        read = self.model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        start = torch.zeros(len(ids), 1, dtype=torch.long, device=self.device)
        state: Tensor = self.model.decoder(
            input_ids=start, encoder_hidden_states=read, encoder_attention_mask=mask, use_cache=False
        ).last_hidden_state[:, 0]
        return (state @ self.answer).clamp(0, LARGEST)
