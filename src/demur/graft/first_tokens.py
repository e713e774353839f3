"""The refusal margin at the first token: what a greedy answer begins with, and what that tells.

Greedy decoding takes the likeliest token, so that the first is known from reading the request. Of
most answers it tells the rest: a donor that was taught to refuse does so in a few ways, and what
begins otherwise is no refusal. So every token is of one of three kinds, learned from answers whose
verdicts are known:

* `refusing`: answers that began with it were refusals, (nearly) all of them;
* `open`: both kinds of answer begin with it ("I" may go on with "can't" or with "would love to"),
  or it is a word that refusals begin with and has not been seen often enough;
* all others: answers that do not refuse.

The margin is the logit of the likeliest refusing token less that of the likeliest of the others:
above 0 the answer begins with a refusal. Where an open token is the likeliest, or the margin is too
close to 0 to call, the answer has to be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from demur.judge.opening import normalise
from demur.judge.settled import HESITATION, REGRET

SEEN = 5  # answers from which on a token's kind is taken from them
PURE = 0.02  # of a token's answers may be of the other kind
CLOSE = 0.05  # logits between the two, within which an answer is written all the same


@dataclass(frozen=True)
class FirstTokens:
    """What kinds of tokens answers begin with; `open` and `refusing` share none."""

    refusing: frozenset[int]
    open: frozenset[int]

    @classmethod
    def learned(cls, tokenizer: Any, answers: Iterable[tuple[int, bool]]) -> Self:
        """Learn the kinds of a model's tokens.

        Args:
            tokenizer: the model's; its words tell which tokens refusals may begin with.
            answers: first token of each known answer, and whether it is a refusal.
        """
        seen, refused = Counter[int](), Counter[int]()
        for token, refuses in answers:
            seen[token] += 1
            refused[token] += refuses
        refusing = {t for t in seen if seen[t] >= SEEN and refused[t] >= (1 - PURE) * seen[t]}
        plain = {t for t in seen if seen[t] >= SEEN and refused[t] <= PURE * seen[t]}
        mixed = {t for t in seen if refused[t]} - refusing - plain
        size = len(tokenizer)
        special = set(tokenizer.all_special_ids)
        words = tokenizer.batch_decode([[token] for token in range(size)])
        hesitant = {t for t, word in enumerate(words) if t not in special and _hesitates(word)}
        return cls(frozenset(refusing), frozenset((mixed | hesitant) - refusing - plain))

    def read(self, logits: Any) -> Reading:
        """Read what answers begin with.

        Args:
            logits: (requests, vocabulary) float32, on any device.
        """
        import torch

        kinds = torch.zeros(logits.shape[1], dtype=torch.long)
        for number, tokens in ((1, self.refusing), (2, self.open)):
            kinds[[token for token in tokens if token < len(kinds)]] = number
        lowest = torch.finfo(logits.dtype).min
        best = [
            logits.masked_fill((kinds != number).to(logits.device), lowest).amax(1)
            for number in range(3)
        ]
        plain, refusing, either = (one.tolist() for one in best)
        margins = tuple(max(-50.0, min(50.0, r - p)) for r, p in zip(refusing, plain, strict=True))
        sure = tuple(
            max(r, p) - e > CLOSE and abs(r - p) > CLOSE
            for r, p, e in zip(refusing, plain, either, strict=True)
        )
        return Reading(margins, sure)


def _hesitates(word: str) -> bool:
    plain = normalise(word).strip()
    return bool(plain) and bool(HESITATION.match(plain) or REGRET.match(plain))


@dataclass(frozen=True)
class Reading:
    """What the first tokens of some answers tell.

    Attributes:
        margins: in logits, between -50 and 50; above 0 the answer begins with a refusal.
        sure: whether the first token tells.
    """

    margins: tuple[float, ...]
    sure: tuple[bool, ...]

    def refused(self) -> list[bool | None]:
        """Return whether each is a refusal; None where the answer has to be written."""
        return [
            margin > 0 if sure else None
            for margin, sure in zip(self.margins, self.sure, strict=True)
        ]
