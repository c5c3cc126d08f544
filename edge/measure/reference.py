"""The paper's loop written plainly on transformers, peft and bitsandbytes: what the runtime is measured against.

Owns: that loop. Nothing here is fast on purpose, and nothing but the benchmark and tests uses it.
Does not know: sessions, plans, the fused forward. transformers loads, peft adapts, torch differentiates.
Units: nats, tokens, seconds. Source: arXiv 2401.11504, algorithm 1.

Of the reference implementation's faults none is repeated: its perplexity, its learning rate of 0 on the first chunk,
its merging of the adapter into the base. What is kept is its cost: a forward over the window with full logits to
score, then for every epoch forward and backward with full logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..learning.learner import WARMUP
from ..learning.optimizer import BETAS, EPS
from ..machine.device import Clock, Device, matmul_units
from ..model import base
from ..model.base import encode, keep_packed_layout
from ..settings import Settings
from ..store.sources import Source
from ..weights import checkpoint, quantize
from ..windows import windows


class PlainLoop:
    """A model from transformers, an adapter from peft, an optimiser from torch.

    Attributes:
        clock: seconds of each phase (`score`, `forward`, `backward`, `optimiser`), summed over all chunks.
    """

    def __init__(
        self, model: Any, tokenizer: Any, settings: Settings, device: Device, *, checkpointing: bool = False
    ) -> None:
        """`checkpointing`: activations are recomputed in the backward pass, as transformers does it."""
        import peft

        adapter = settings.adapter
        learn = settings.learn
        config = peft.LoraConfig(
            r=adapter.rank,
            lora_alpha=adapter.alpha,  # peft accepts fractions
            lora_dropout=adapter.dropout,
            target_modules="all-linear",
            bias="none",
        )
        torch.manual_seed(settings.seed)
        self.tokenizer = tokenizer
        self.model: Any = peft.get_peft_model(model, config)
        if checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
            self.model.enable_input_require_grads()
        self.settings = settings
        self.device = device
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self.parameters:
            parameter.data = parameter.data.float()
        self.optimizer = torch.optim.AdamW(self.parameters, lr=learn.lr, betas=BETAS, eps=EPS, weight_decay=0.0)
        self.steps = 0
        self.clock = Clock(("score", "forward", "backward", "optimiser"), device)

    @classmethod
    def load(cls, source: Source, settings: Settings, device: Device) -> PlainLoop:
        """Loads the model as transformers does.

        Raises:
            ModelError: the model cannot be loaded.
        """
        checkpoint.quiet_libraries()
        if source.kind == "gguf":
            source = quantize.convert_once(source)
        remote_code = settings.base.trust_remote_code
        four_bit = not checkpoint.is_four_bit(checkpoint.load_config(source.path, remote_code))
        model = checkpoint.load_pretrained(source.path, device, four_bit, remote_code)
        model.requires_grad_(False)
        for parameter in model.parameters():  # a CPU without bfloat16 units would take hours in it
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(device.torch_dtype)
        keep_packed_layout(model)
        return cls(model, checkpoint.load_tokenizer(source.path, remote_code), settings, device)

    def encode(self, text: str) -> list[int]:
        """See `Base.encode`."""
        return encode(self.tokenizer, text)

    def score(self, input_ids: list[int]) -> Iterator[tuple[int, float, float]]:
        """Scores each chunk, then learns it.

        Yields:
            (labels, nats, seconds) of every chunk.
        """
        window = self.settings.window
        sinks = base.sinks(self.tokenizer, window)
        for piece in windows(len(input_ids), chunk=window.chunk, context=window.context, sinks=sinks):
            start = time.perf_counter()
            ids = torch.tensor(piece.of(input_ids), device=self.device.name)[None]
            labels = ids.clone()
            labels[:, : ids.shape[1] - piece.labels] = -100
            with matmul_units(self.device):
                with self.clock.phase("score"), torch.no_grad():
                    self.model.eval()
                    nll = float(self.model(input_ids=ids, labels=labels, use_cache=False).loss) * piece.labels
                self.model.train()
                for _ in range(self.settings.learn.epochs):
                    self._step(ids, labels)
            yield piece.labels, nll, time.perf_counter() - start

    def _step(self, ids: Tensor, labels: Tensor) -> None:
        learn = self.settings.learn
        with self.clock.phase("forward"):
            loss = self.model(input_ids=ids, labels=labels, use_cache=False).loss
        with self.clock.phase("backward"):
            loss.backward()
        with self.clock.phase("optimiser"):
            for group in self.optimizer.param_groups:
                group["lr"] = learn.lr * min(1.0, (self.steps + 1) / WARMUP)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1

    @torch.inference_mode()
    def decode(self, input_ids: list[int], tokens: int) -> float:
        """Decodes greedily after reading `input_ids`; returns tokens per second, the reading left out."""
        self.model.eval()
        out = self.model(input_ids=torch.tensor([input_ids], device=self.device.name), use_cache=True, logits_to_keep=1)
        start = time.perf_counter()
        for _ in range(tokens):
            token = out.logits[:, -1:].argmax(-1)
            out = self.model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        float(out.logits[0, -1, 0])
        return tokens / (time.perf_counter() - start)
