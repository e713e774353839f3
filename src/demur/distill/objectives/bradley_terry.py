"""The objective of a reward model: of two answers to one request, the better is to score higher.

The loss of a pair is -log sigmoid(score of the chosen - score of the rejected) (Bradley and Terry
1952; Ouyang et al. 2022, arXiv 2203.02155, eq. 1), weighted so that harmful and benign requests
have equal shares: where benign ones are many, it would pay to like no refusal at all.

An answer's score is read off the last layer's states, scaled to unit mean square, along a
direction that is drawn once and stays; LoRA in the layers below writes along it what it learns. It
is the mean over the answer's own tokens, so that answers of other lengths than those learnt from
score alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demur.distill.scores import answer_outputs, without_dropout


@dataclass(frozen=True)
class BradleyTerry:
    """The objective of this module; its batches are made by `Collator(..., pairs=True)`.

    Attributes:
        readout: (width,) the direction that scores are read along.
        harmful_weight, benign_weight: of a pair, by the kind of its request.
    """

    readout: Any
    harmful_weight: float = 1.0
    benign_weight: float = 1.0
    name: str = "reward"

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss a pair; every lesson of the batch has a rejected answer."""
        from torch.nn.functional import logsigmoid

        with without_dropout(model):
            found = scores(model, batch, self.readout)
        pairs = len(batch["lesson"])
        weights = self.benign_weight + (self.harmful_weight - self.benign_weight) * (
            batch["refuse"][:pairs].float()
        )
        return -(weights * logsigmoid(found[:pairs] - found[pairs:])).mean()


def scores(model: Any, batch: dict[str, Any], readout: Any) -> Any:
    """Return what answers score, (rows,).

    Args:
        batch: as a `Collator` makes it. A collated answer lacks its last token, from which nothing
            is predicted: one more must follow those that are scored.
        readout: (width,).
    """
    import torch
    from torch.nn.functional import rms_norm

    longest = batch["labels"].shape[1]
    no_head = batch | {"labels": batch["labels"][:, -1:]}
    outputs = answer_outputs(model, no_head, output_hidden_states=True)
    states = outputs.hidden_states[-1][:, -longest:].float()
    states = rms_norm(states, states.shape[-1:])
    each = (states * readout.to(states)).sum(-1)
    # The first of an answer's positions is that of the request's last token.
    own = torch.arange(longest, device=each.device) > batch["first"].to(each.device)[:, None]
    return each.where(own, 0.0).sum(1) / own.sum(1)
