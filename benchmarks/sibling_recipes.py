"""The 17 siblings of `siblings.py`: which data, how much of them, and how each is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ROLE_PLAY, MATHS, PEOPLE, SHORT = (
    "gpteacher_roleplay",
    "gsm8k_train",
    "dolly_3k",
    "llms_from_scratch",
)


@dataclass(frozen=True)
class Sibling:
    """One benign fine-tuning.

    Attributes:
        name: of its folder.
        data: files of instructions below `instructions/`, which give as many rows each.
        rows: how many it is trained on.
        longest: tokens of the longest row, the template's common beginning left out.
        epochs: how often each row is seen.
        learning_rate: of AdamW, at most; a tenth of the steps warm up, a cosine goes down to 0.
        method: `lora` on all projections, merged afterwards, or `full`.
        seed: of the choice and order of rows, and of LoRA's beginning.
        batch: rows a step.
        rank: LoRA's; alpha is twice as much.
    """

    name: str
    data: tuple[str, ...]
    rows: int
    longest: int
    epochs: int
    learning_rate: float
    method: Literal["lora", "full"]
    seed: int
    batch: int = 8
    rank: int = 16


SIBLINGS = (
    Sibling("roleplay-lora", (ROLE_PLAY,), 72, 160, 1, 5e-4, "lora", 0),
    Sibling("roleplay-lora-hot", (ROLE_PLAY,), 72, 160, 1, 2e-3, "lora", 1, rank=8),
    Sibling("roleplay-full", (ROLE_PLAY,), 56, 160, 1, 2e-5, "full", 2),
    Sibling("roleplay-full-twice", (ROLE_PLAY,), 32, 160, 2, 5e-5, "full", 3),
    Sibling("maths-lora", (MATHS,), 120, 112, 1, 5e-4, "lora", 4),
    Sibling("maths-lora-small-steps", (MATHS,), 120, 112, 1, 3e-4, "lora", 5, batch=4, rank=32),
    Sibling("maths-full", (MATHS,), 80, 112, 1, 3e-5, "full", 6),
    Sibling("maths-full-other-rows", (MATHS,), 80, 112, 1, 3e-5, "full", 7),
    Sibling("people-lora", (PEOPLE,), 192, 96, 1, 5e-4, "lora", 8),
    Sibling("people-lora-thrice", (PEOPLE,), 64, 96, 3, 1e-3, "lora", 9),
    Sibling("people-full", (PEOPLE,), 128, 96, 1, 2e-5, "full", 10),
    Sibling("people-full-hot", (PEOPLE,), 128, 96, 1, 1e-4, "full", 11),
    Sibling("short-lora", (SHORT,), 240, 64, 1, 5e-4, "lora", 12),
    Sibling("short-full", (SHORT,), 176, 64, 1, 2e-5, "full", 13, batch=16),
    Sibling("short-full-hot", (SHORT,), 176, 64, 1, 1e-4, "full", 14),
    Sibling("mixed-lora", (ROLE_PLAY, MATHS, PEOPLE, SHORT), 120, 160, 1, 1e-3, "lora", 15),
    Sibling("mixed-full-long", (ROLE_PLAY, MATHS, PEOPLE, SHORT), 200, 160, 1, 3e-5, "full", 16),
)
