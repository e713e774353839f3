"""The trainer: TRL's SFTTrainer, whose steps ask one of demur's objectives for the loss.

Every second step also reads one text that the student wrote of itself, and adds its mean KL a token
times `text_weight`. What makes a step quick: the head is applied to answer positions only, the
template's common beginning is computed once a batch, and layers below the lowest trained one need
no gradient.
"""

from __future__ import annotations

from typing import Any

from trl import SFTTrainer

from demur.distill.objectives import Objective, Supervised
from demur.distill.scores import text_divergence

TEXT_WEIGHT = 8.0
TEXT_EVERY = 2


class RefusalTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with a loss of demur's; takes the batches of a `Collator`."""

    objective: Objective = Supervised()
    text_weight: float = TEXT_WEIGHT

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean loss of a batch of lessons, divided by the step's forward passes."""
        loss = self.objective.loss(model, inputs) / self.current_gradient_accumulation_steps
        for name, value in getattr(self.objective, "figures", {}).items():
            self._metrics["train"][name].append(value)
        if "text_ids" in inputs:  # in one of a step's forward passes at most
            loss = loss + self.text_weight * text_divergence(model, inputs)
        return (loss, {}) if return_outputs else loss
