"""A Chinese book in which given people recur, and a tokenizer's words."""

from __future__ import annotations

from collections.abc import Sequence

from edge.translation import sounds

SCENES = [
    "{}走进了院子。",
    "大家都看着{}，没有人说话。",
    "“{}，快回家吧！”",
    "我听见{}在唱歌。",
    "{}笑了笑，关上门。",
    "昨天晚上是{}做的饭。",
    "{}把信交给了他。",
]


def is_word(text: str) -> bool:
    """A tokenizer that knows the usual words."""
    return text in sounds.PLAIN or text in ("解放", "关上", "高大")


def book(*names: str, scenes: Sequence[str] = SCENES) -> list[str]:
    return [scene.format(name) for scene in scenes for name in names]
