"""Which requests are traced: those that the model refuses while it answers their twins.

As ROME traces only facts that the model knows, only refusals that are there can be traced. Of the
prompts at hand, those are asked first whose twins are nearest in length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from demur.errors import ModelError
from demur.graft.openings import DONOR_TOKENS, Openings, openings_for
from demur.graft.tracing.names import Corruption
from demur.graft.tracing.pairs import Pair, closest, make_pair
from demur.graft.tracing.places import template_of
from demur.judge.opening import OpeningJudge
from demur.prompts.types import Prompt
from demur.run.journal import Answer

POOL = 3  # times as many pairs are asked as are wanted
LEAST = 2  # pairs without which nothing can be said
COMMONEST = 2  # openings of the model's own refusals that count

Ask = Callable[[Sequence[str]], Sequence[Answer]]


@dataclass(frozen=True)
class Chosen:
    """What is traced.

    Attributes:
        harmful, benign: the requests and their twins, in the same order.
        answers, benign_answers: the model's answers to them.
        asked: how many pairs were asked to find them.
        same_length: how many of the pairs are as long as one another, in tokens.
    """

    harmful: tuple[str, ...]
    benign: tuple[str, ...]
    answers: tuple[Answer, ...]
    benign_answers: tuple[Answer, ...]
    asked: int
    same_length: int


def matched(
    chat: Any, harmful: Sequence[Prompt], benign: Sequence[Prompt]
) -> list[tuple[str, str, int, int]]:
    """Return (request, twin, tokens of each): its own twin, else one of like length."""
    partners = {prompt.pair: prompt.text for prompt in benign if prompt.pair}
    free = {p.text: len(chat.encode(p.text)) for p in benign if not p.pair}
    found = []
    for prompt in harmful:
        own = len(chat.encode(prompt.text))
        if prompt.pair in partners:
            twin = partners[prompt.pair]
            found.append((prompt.text, twin, own, len(chat.encode(twin))))
        elif free and not prompt.pair:
            twin = min(free, key=lambda text: abs(free[text] - own))
            found.append((prompt.text, twin, own, free.pop(twin)))
    return found


def choose(
    chat: Any,
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    count: int,
    ask: Ask,
    *,
    name: str = "The model",
) -> Chosen:
    """Return pairs of which the model refuses the one and answers the other.

    Args:
        chat: the model that is traced.
        harmful, benign: requests and their twins, matched by `Prompt.pair` where they have one.
        count: at most so many pairs.
        ask: has the model answer requests.
        name: what to call the model.

    Raises:
        ModelError: there are too few such pairs.
    """
    pool = matched(chat, harmful, benign)
    kept = closest([(one, other) for _, _, one, other in pool], POOL * count)
    asked = [pool[index] for index in kept]
    answers = ask([request for request, *_ in asked])
    twins = ask([twin for _, twin, *_ in asked])
    judge = OpeningJudge()
    refused = [judge.one(answer.text).outcome == "refused" for answer in answers]
    complied = [judge.one(answer.text).outcome == "complied" for answer in twins]
    both = [i for i in range(len(asked)) if refused[i] and complied[i]]
    if len(both) < LEAST:
        raise ModelError(
            f"{name} refuses {sum(refused)} of {len(asked)} harmful requests, and of "
            f"{len(both)} of these it answers the benign twin: there is too little to trace.",
            "Trace a model that refuses, name one with --donor, or give more --pairs.",
        )
    gaps = [(asked[i][2], asked[i][3]) for i in both]
    final = [both[index] for index in closest(gaps, count)]
    return Chosen(
        tuple(asked[i][0] for i in final),
        tuple(asked[i][1] for i in final),
        tuple(answers[i] for i in final),
        tuple(twins[i] for i in final),
        len(asked),
        sum(asked[i][2] == asked[i][3] for i in final),
    )


def commonest(answers: Sequence[Answer], count: int = COMMONEST) -> list[tuple[int, ...]]:
    """Return the token ids that most of a model's refusals begin with."""
    begun = Counter(answer.tokens[:DONOR_TOKENS] for answer in answers)
    return [tokens for tokens, _ in begun.most_common(count)]


def openings_of(chat: Any, chosen: Chosen) -> list[Openings]:
    """Return the openings of each pair: to comply is to begin as with the twin."""
    own = [answer.tokens for answer in chosen.benign_answers]
    return openings_for(chat, own, donor=commonest(chosen.answers))


def pairs_of(
    chat: Any, chosen: Chosen, corruption: Corruption, *, draws: int = 3, seed: int = 0
) -> list[Pair]:
    """Return what is traced, as token ids.

    Args:
        draws: of noise, where noise corrupts.
    """
    template = template_of(chat)
    return [
        make_pair(
            template,
            chat.encode(request),
            None if corruption == "noise" else chat.encode(twin),
            openings,
            draws=draws,
            seed=seed,
        )
        for request, twin, openings in zip(
            chosen.harmful, chosen.benign, openings_of(chat, chosen), strict=True
        )
    ]
