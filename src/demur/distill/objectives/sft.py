"""Supervised fine-tuning on refusals, anchored to the student where it should go on answering.

The loss of one lesson is cross-entropy over the tokens of a refusal, or of an answer where the
student used to refuse a benign request; on any other benign request it is KL(student before ||
student now) over the answer's tokens, times `keep_weight`. To both is added the *decision*,
`decision_weight` times softplus(1 - m) on harmful and softplus(1 + m) on benign requests, where m
is the log-probability of the likeliest first token of a refusal less that of the best other one:
greedy decoding refuses exactly where m > 0, while cross-entropy and KL would let it refuse a benign
request whose answers are many and each unlikely. The mean is taken over lessons, so that a long
answer weighs more than a short one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demur.distill.collate import IGNORED
from demur.distill.scores import answer_divergence, answer_logits


@dataclass(frozen=True)
class Supervised:
    """The objective of this module.

    Attributes:
        refusal_tokens: the first tokens of the refusals that are taught.
        keep_weight: the price of divergence on benign requests.
        decision_weight: the weight of deciding rightly at the answer's first token.
    """

    refusal_tokens: tuple[int, ...] = ()
    keep_weight: float = 1.0
    decision_weight: float = 1.0
    name: str = "sft"

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss a lesson; see the module's docstring."""
        return self.priced(answer_logits(model, batch), batch)

    def priced(self, logits: Any, batch: dict[str, Any]) -> Any:
        """Return the loss of logits that `answer_logits` made of the batch."""
        labels, keep = batch["labels"], batch["keep"][:, None]
        taught = (labels != IGNORED) & ~keep
        chosen = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(-1)
        loss = -chosen.where(taught, 0.0).sum()
        loss = loss + self.keep_weight * answer_divergence(logits, batch)
        if self.decision_weight and self.refusal_tokens:
            loss = loss + self.decision_weight * decision(logits, batch, self.refusal_tokens)
        return loss / len(labels)


def decision(logits: Any, batch: dict[str, Any], refusal_tokens: tuple[int, ...]) -> Any:
    """Return the summed loss of the decision at each answer's first token.

    Benign lessons whose own answer begins with a refusal's first token have none.
    """
    import torch
    from torch.nn.functional import softplus

    places, refuse = batch["first"], batch["refuse"]
    rows = torch.arange(len(places), device=places.device)
    first = logits[rows, places]
    tokens = torch.tensor(refusal_tokens, device=first.device)
    rival = first.index_fill(1, tokens, float("-inf")).amax(1)
    margin = first[:, tokens].amax(1) - rival
    same = torch.isin(batch["labels"][rows, places], tokens)
    losses = softplus(1 - torch.where(refuse, margin, -margin))
    return losses[refuse | ~same].sum()
