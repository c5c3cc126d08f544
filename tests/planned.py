"""What a lesson of a mixture takes, against what was planned: in a process of its own, by the runtime's own report.

Owns: the model, the text, the process. Does not know: what is adapted, which bounds hold.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from edge.weights import quantize
from tests import tiny

MEASURED = """
import json, sys
import edge
runtime = edge.load(sys.argv[1], "economical", overrides=sys.argv[2:], decodes=False)
with runtime.session() as session:
    for chunk in session.score_ids([i * 7919 % 300 + 10 for i in range(520)]):
        pass
    print(json.dumps(runtime.memory(session)))
"""


def lesson_of_experts(folder: Path, *overrides: str) -> tuple[int, int]:
    """Bytes measured and predicted while a Qwen3-MoE of 16 experts learns, beyond what the libraries take."""
    wide = {"hidden_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "layers": 4}
    mixture = {"num_experts": 16, "num_experts_per_tok": 4, "moe_intermediate_size": 384}
    tiny.model("qwen3_moe", **wide, **mixture).to(torch.bfloat16).save_pretrained(folder / "full")
    tiny.tokenizer().save_pretrained(folder / "full")
    quantize.quantize_to_folder(str(folder / "full"), folder / "four")
    chosen = ["window.chunk=256", "window.size=512", "compute.weights=packed", "compute.heap=return",
              "compute.checkpointing=on", "compute.device=cpu", *overrides]  # fmt: skip
    command = [sys.executable, "-c", MEASURED, str(folder / "four"), *chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    memory = json.loads(done.stdout.splitlines()[-1])
    baseline = memory["predicted"]["baseline"]
    return memory["measured"]["learn"] - baseline, memory["predicted"]["peaks"]["learn"] - baseline
