"""The trainer: TRL's SFTTrainer, whose steps ask one of demur's objectives for the loss.

Every step also reads a few texts that the student wrote of itself, and adds their mean KL a token
times `text_weight`. What makes a step quick: the head is applied to answer positions only, the
template's common beginning is computed once a batch, and layers below the lowest trained one need
no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trl import SFTTrainer

from demur.distill import whole
from demur.distill.objectives import Objective, Supervised
from demur.distill.scores import text_divergence


class RefusalTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with a loss of demur's; takes the batches of a `Collator`.

    Attributes:
        objective: gives the loss of a batch.
        text_weight: the price of divergence on texts outside a chat.
        whole: with full fine-tuning, the trained parameters: a checkpoint holds no others.
    """

    objective: Objective = Supervised()
    text_weight: float = 1.0
    whole: Mapping[str, Any] = MappingProxyType({})

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean loss of a batch of lessons, divided by the step's forward passes."""
        model = within(model)
        loss = self.objective.loss(model, inputs) / self.current_gradient_accumulation_steps
        for name, value in getattr(self.objective, "figures", {}).items():
            self._metrics["train"][name].append(value)
        if "text_ids" in inputs:  # in one of a step's forward passes at most
            loss = loss + self.text_weight * text_divergence(model, inputs)
        return (loss, {}) if return_outputs else loss

    def training_step(self, *given: Any, **named: Any) -> Any:
        """Take one forward and backward pass, and average gradients at the end of a step.

        The student is asked many times a step, by rollouts and as it was before: passes that the
        wrapping of torch's own data parallelism would not know from the one to be reduced. So the
        model within is asked, and gradients are reduced here.
        """
        loss = super().training_step(*given, **named)
        if self.accelerator.num_processes > 1 and self.accelerator.sync_gradients:
            average_gradients(self.model)
        return loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.whole:
            whole.save(self.whole, Path(output_dir or self.args.output_dir))
        else:
            super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.whole:
            whole.load(self.whole, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)


def within(model: Any) -> Any:
    """Return the model itself, where torch's data parallelism has wrapped it."""
    from torch.nn.parallel import DistributedDataParallel

    return model.module if isinstance(model, DistributedDataParallel) else model


def average_gradients(model: Any) -> None:
    """Have all processes hold the mean of their gradients."""
    import torch
    from torch import distributed

    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:  # of an expert that none of this process's tokens chose
                parameter.grad = torch.zeros_like(parameter)
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()
