"""What an objective is to the trainer: a batch of lessons in, a loss with a gradient out."""

from __future__ import annotations

from typing import Any, Protocol

OBJECTIVES = ("sft", "dpo", "rloo", "grpo", "reward", "logits", "universal")
PAIRED = ("dpo", "reward")  # whose batches hold the rejected answers, too


class Objective(Protocol):
    """One way of learning to refuse.

    The price of departing from the student on benign requests is part of every objective: a
    refusal is never trained without it.
    """

    @property
    def name(self) -> str:
        """One of `OBJECTIVES`."""
        ...

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss a lesson, a scalar with a gradient.

        Args:
            model: the student, wrapped by PEFT where LoRA is trained.
            batch: as `collate.Collator` makes it; `batch["lesson"]` are the lessons' indices.
        """
        ...
