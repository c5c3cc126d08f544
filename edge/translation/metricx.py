"""MetricX: how many errors a translation has, as an mT5 says that was trained on marked ones.

Owns: what a checkpoint of Google's is asked, and where its answer stands. Does not know: what is done with scores.
Units: tokens; scores from 0 to 25, lower is better. Source: WMT 2023 and 2024 (aclanthology 2023.wmt-1.63,
2024.wmt-1.35).

The answer is the logit of one unused word at the decoder's first position. Nothing in a checkpoint says which form of
question it was trained with; its published name does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ModelError
from ..weights.alone import making, sealed
from ..weights.checkpoint import load_tokenizer
from .learned import ROOM, Metric, Sample, Words, batches, padded, tokenizer_folder

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
    words = tokenizer_folder(folder, VOCABULARIES, "config.json")
    alone = "-qe-" in str(folder.resolve()).lower()
    if form == "metricx-24":
        reads: tuple[str, ...] = ("source", "reference")
    else:
        reads = ("source",) if alone else ("reference",)
    halves = "bfloat16" in (folder / "config.json").read_text("utf-8", "replace")
    size = sum(path.stat().st_size for path in files) * (2 if halves else 1)
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
        head = state.pop("lm_head.weight", shared * config.d_model**-0.5)
        answer = head[ANSWER].to(device, copy=True)
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


def _read(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the files, in float32."""
    from safetensors.torch import load_file

    for path in files:
        safe = path.suffix == ".safetensors"
        found = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        yield from ((name, tensor.float()) for name, tensor in found.items())


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
        rows = [
            row[:-1] for row in self.words.ids(asked, TOKENS[self.form])
        ]  # it was trained without the end of a text
        found: dict[int, float] = {}
        for batch in batches([len(row) for row in rows]):
            ids, mask = padded([rows[i] for i in batch], self.words.filler, self.device)
            read = self.model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            start = torch.zeros(len(batch), 1, dtype=torch.long, device=self.device)
            state = self.model.decoder(
                input_ids=start, encoder_hidden_states=read, encoder_attention_mask=mask, use_cache=False
            ).last_hidden_state[:, 0]
            found |= zip(batch, (state @ self.answer).clamp(0, LARGEST).tolist(), strict=True)
        return [found[i] for i in range(len(rows))]
