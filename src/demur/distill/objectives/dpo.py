"""Direct preference optimisation, anchored to the student where it should go on answering.

The loss of a pair is -log sigmoid(beta * (c - r)), where c and r are by how much the chosen and the
rejected answer have become likelier (in log-probability) than the untouched student finds them
(Rafailov et al. 2023, arXiv 2305.18290, eq. 7). Since that alone is content to lower both, two
terms hold the chosen one up: cross-entropy a token, times `sft_weight`, over taught answers (as in
RPO, Pang et al. 2024, arXiv 2404.19733), and the anchor of supervised fine-tuning, `keep_weight`
times KL(student before || student now) over the tokens of benign answers. A lesson without a
rejected answer has only these. The mean is taken over lessons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demur.distill.scores import (
    answer_divergence,
    answer_logits,
    token_log_probabilities,
    without_dropout,
)
from demur.errors import ConfigError


@dataclass(frozen=True)
class DirectPreference:
    """The objective of this module; its batches are made by `Collator(..., pairs=True)`.

    Attributes:
        beta: how far preferring may lead away from the student; the lower, the farther.
        keep_weight: the price of divergence on benign requests.
        sft_weight: the weight of the taught answers' cross-entropy.
        normalised: divide log-probabilities by the answers' lengths, so that a long answer does
            not weigh more than a short one; beta is then some tens of times as large.

    Raises:
        ConfigError: beta is not above 0 (below it, compliance would be preferred), or a weight is
            negative.
    """

    beta: float = 0.1
    keep_weight: float = 1.0
    sft_weight: float = 1.0
    normalised: bool = False
    name: str = "dpo"

    def __post_init__(self) -> None:
        if not self.beta > 0 or min(self.keep_weight, self.sft_weight) < 0:
            raise ConfigError(
                "Direct preference needs a beta above 0 and weights that are not negative.",
                "Give a beta such as 0.1.",
            )

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss a lesson; see the module's docstring."""
        from torch.nn.functional import logsigmoid

        with without_dropout(model):
            logits = answer_logits(model, batch)
        tokens = token_log_probabilities(logits, batch["labels"])
        sums, lengths = tokens.sum(1), (batch["labels"] >= 0).sum(1)
        lessons = len(batch["lesson"])
        loss = self.keep_weight * answer_divergence(logits, batch)
        if "pair" in batch:
            chosen = sums[batch["pair"]] - batch["reference"][:, 0]
            rejected = sums[lessons:] - batch["reference"][:, 1]
            if self.normalised:
                chosen = chosen / lengths[batch["pair"]]
                rejected = rejected / lengths[lessons:]
            loss = loss - logsigmoid(self.beta * (chosen - rejected)).sum()
        if self.sft_weight:
            taught = ~batch["keep"][:lessons]
            loss = loss - self.sft_weight * (sums / lengths)[:lessons][taught].sum()
        return loss / lessons
