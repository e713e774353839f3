"""Reinforcement: the student answers, is judged, and what earned more than its like is reinforced.

To each request of a batch the student draws `samples` answers and each is rewarded (`rewards`). An
answer's advantage is its reward less the mean reward of the others to the same request (REINFORCE
leave-one-out: Ahmadian et al. 2024, arXiv 2402.14740), or less the group's mean and divided
by its spread (GRPO: Shao et al. 2024, arXiv 2402.03300, section 4.1.2). The loss is minus advantage
times the answer's log-probability, plus KL(student now || student before), exact over the
vocabulary and summed over the positions of drawn answers, times `beta` on harmful and
`keep_weight` on benign requests; the mean is taken over answers. There is one update a draw, so
that nothing is off-policy and nothing needs clipping. Log-probabilities are summed, not divided by
length, in both: to divide is to favour long failures (Liu et al. 2025, arXiv 2503.20783).

A student that never refuses earns the same whatever it draws, and learns nothing. Therefore
`guided` of the answers to a harmful request are the taught refusal: a demonstration in the group,
rewarded like the rest, with importance weight 1 (as off-policy traces in LUFFY, Yan et al. 2025,
arXiv 2504.14945, without its shaping). Where it earns less than what was drawn, as by a learned
reward it may, its weight is the probability that the student itself gives it: to push away what is
hardly ever said has no end, and takes the rest along (tapered off-policy REINFORCE, Le Roux et al.
2025, arXiv 2503.14286). It is compared with the mean of what the student drew, and
drawn answers with each other: what comes of them stays the unbiased gradient, and pushes nothing
away where all earned the same; and once the student refuses by itself, the demonstration's
advantage is nothing. The same is done with the taught answer where the student refuses a benign
request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from demur.distill.collate import Collator
from demur.distill.lessons import Lesson
from demur.distill.objectives.rewards import Reward
from demur.distill.sampling import sample
from demur.distill.scores import (
    answer_logits,
    part_of,
    read_before,
    token_log_probabilities,
    without_dropout,
)
from demur.distill.untouched import untouched
from demur.errors import ConfigError
from demur.models.forward import can_share_prefix
from demur.run.processes import launched

Decided = Callable[[Lesson, Sequence[int]], bool]
SPARED = 64  # tokens of padding that are worth a forward pass more
SPREAD = 1e-4  # added to a group's spread, so that equal rewards have no advantage


@dataclass(frozen=True)
class PolicyGradient:
    """The objective of this module.

    Attributes:
        lessons: those that are trained on, whole; their `request` must be told.
        reward: of an answer.
        stops: the tokens that end an answer.
        advantage: `rloo` or `grpo`.
        samples: answers to each request, the demonstrations among them.
        tokens: of an answer at most so many.
        guided: how many of a group's answers are the one that is taught.
        beta: the price of divergence on harmful requests, a nat.
        keep_weight: the price of divergence on benign requests, a nat.
        decided: told a request and the answer so far, says whether what it is worth is known:
            it is then written no further. What would follow has no part in the reward, and to
            reinforce it would add noise and take time.
        figures: of the last batch: mean reward of drawn answers to harmful and to benign requests.

    Raises:
        ConfigError: fewer than two samples that the student draws itself, or a negative price.
        ValueError: a lesson whose request is not told.
    """

    lessons: Sequence[Lesson]
    reward: Reward
    stops: frozenset[int]
    advantage: Literal["rloo", "grpo"] = "rloo"
    samples: int = 4
    tokens: int = 24
    guided: int = 1
    beta: float = 0.02
    keep_weight: float = 1.0
    decided: Decided | None = None
    figures: dict[str, float] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.guided < 0 or self.samples - self.guided < 2:
            raise ConfigError(
                f"Reinforcement compares answers to the same request, and cannot with "
                f"{self.samples} of them, {self.guided} demonstrated.",
                "Draw at least two answers beside those that are demonstrated.",
            )
        if min(self.beta, self.keep_weight) < 0:
            raise ConfigError("A price of divergence is negative.", "Give 0 or more.")
        if not all(lesson.request for lesson in self.lessons if lesson.kind != "text"):
            raise ValueError("lessons for reinforcement need the request's own words")

    @property
    def name(self) -> str:
        """The kind of advantage."""
        return self.advantage

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Draw, reward, and return the mean loss an answer; see the module's docstring."""
        import torch

        lessons = [self.lessons[place] for place in batch["lesson"].tolist()]
        divided = launched().divided  # all processes then make the same forward passes
        shared = 0 if divided else batch["prefix"].shape[1]
        with without_dropout(model):
            rows, taught = self.answers(model, lessons, shared)
            rewards = torch.tensor(self.reward(rows, [row.answer for row in rows]))
            self._note(rows, rewards, taught)
            groups = (len(lessons), self.samples)
            shown = torch.tensor(taught)
            worth = advantages(rewards.reshape(groups), shown.reshape(groups), self.advantage)
            prices = torch.tensor(
                [self.beta if one.kind == "refuse" else self.keep_weight for one in rows]
            )
            prices[shown] = 0.0
            drawn = Collator(rows, self._shared(model, rows, shared), branch=not divided)(
                [{"lesson": place} for place in range(len(rows))]
            )
            drawn = {name: one.to(model.device) for name, one in drawn.items()}
            parts = [list(range(len(rows)))] if divided else by_length(rows)
            loss = _loss(model, drawn, parts, worth.flatten(), prices, shown)
        return loss / len(rows)

    def answers(
        self, model: Any, lessons: Sequence[Lesson], shared: int
    ) -> tuple[list[Lesson], list[bool]]:
        """Return the answers to be judged, a group a lesson, and which of them were not drawn.

        Args:
            shared: how many tokens all requests begin with.
        """
        requests = [lesson.prompt for lesson in lessons]

        def over(row: int, answer: Sequence[int]) -> bool:
            return self.decided is not None and self.decided(lessons[row // self.samples], answer)

        groups = sample(
            model, requests, self.samples, self.tokens, self.stops, shared=shared, over=over
        )
        rows: list[Lesson] = []
        taught: list[bool] = []
        for lesson, group in zip(lessons, groups, strict=True):
            shown = self.guided if lesson.kind in {"refuse", "answer"} else 0
            answers = [*group[: self.samples - shown], *[lesson.answer] * shown]
            kind: Literal["refuse", "answer"] = "refuse" if lesson.kind == "refuse" else "answer"
            rows += [Lesson(kind, lesson.prompt, one, request=lesson.request) for one in answers]
            taught += [False] * (self.samples - shown) + [True] * shown
        return rows, taught

    def _shared(self, model: Any, rows: Sequence[Lesson], shared: int) -> int:
        longest = max(len(row.prompt) + len(row.answer) for row in rows)
        return shared if can_share_prefix(model, longest) else 0

    def _note(self, rows: Sequence[Lesson], rewards: Any, taught: Sequence[bool]) -> None:
        sides: dict[str, list[float]] = {"harmful_reward": [], "benign_reward": []}
        for row, reward, shown in zip(rows, rewards.tolist(), taught, strict=True):
            if not shown:
                side = "harmful_reward" if row.kind == "refuse" else "benign_reward"
                sides[side].append(reward)
        self.figures.clear()
        self.figures.update({side: sum(one) / len(one) for side, one in sides.items() if one})


def _loss(
    model: Any,
    drawn: dict[str, Any],
    parts: Sequence[Sequence[int]],
    worth: Any,
    prices: Any,
    shown: Any,
) -> Any:
    """Return the summed loss of answers; their requests are read once, however many parts.

    Args:
        drawn: the answers, as a `Collator` makes them.
        parts: places of answers that are computed together.
        worth, prices, shown: (answers,) advantages, prices of divergence, and whether an answer is
            a demonstration.
    """
    import torch

    held_in = launched().divided or bool(prices.any())
    read, read_untouched = read_before(model, drawn), None
    if held_in:
        with torch.no_grad(), untouched(model) as untrained:
            read_untouched = read_before(untrained, drawn)
    losses = []
    for places in parts:
        rows = torch.tensor(places)
        part = part_of(drawn, rows.to(model.device))
        logits = answer_logits(model, part, read)
        at = (one[rows].to(logits.device) for one in (worth, prices, shown))
        worth_here, prices_here, shown_here = at
        likely = token_log_probabilities(logits, part["labels"]).sum(1)
        losses.append(-(tapered(worth_here, likely.detach(), shown_here) * likely).sum())
        if held_in:
            with torch.no_grad(), untouched(model) as untrained:
                before = answer_logits(untrained, part, read_untouched)
            moved = (exact_divergence(logits, before) * (part["labels"] >= 0)).sum(1)
            losses.append((prices_here * moved).sum())
    return torch.stack(losses).sum()


def by_length(rows: Sequence[Lesson]) -> list[list[int]]:
    """Return the places of answers in parts of like length, since all of a part are padded to one.

    A part is divided where that saves more than `SPARED` tokens of padding.
    """
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].answer))

    def divided(part: list[int]) -> list[list[int]]:
        lengths = [len(rows[place].answer) for place in part]
        saved = [cut * (lengths[-1] - lengths[cut - 1]) for cut in range(1, len(part))]
        if not saved or max(saved) <= SPARED:
            return [part]
        cut = saved.index(max(saved)) + 1
        return [*divided(part[:cut]), *divided(part[cut:])]

    return divided(order)


def advantages(rewards: Any, shown: Any, kind: Literal["rloo", "grpo"]) -> Any:
    """Return the advantages of answers within their own groups.

    Args:
        rewards: (requests, samples).
        shown: (requests, samples) whether an answer is a demonstration; at least two of a group
            are none.
    """
    drawn = (~shown).float()
    count = drawn.sum(1, keepdim=True)
    centred = rewards - (rewards * drawn).sum(1, keepdim=True) / count
    if kind == "rloo":  # r - mean of the others = (r - mean of all) * k / (k - 1)
        return centred.where(shown, centred * count / (count - 1))
    return centred / (rewards.std(1, keepdim=True) + SPREAD)


def tapered(worth: Any, likely: Any, shown: Any) -> Any:
    """Return advantages, those of demonstrations that are below 0 times their probability.

    Args:
        worth: (answers,) advantages.
        likely: (answers,) log-probabilities of the whole answers.
        shown: (answers,) whether an answer is a demonstration.
    """
    return worth * likely.exp().where(shown & (worth < 0), 1.0)


def exact_divergence(logits: Any, before: Any) -> Any:
    """Return KL(now || before) at each position, over the whole vocabulary.

    Less noise than an estimate from the drawn token alone, at no further pass (Amini et al. 2025,
    arXiv 2504.10637).

    Args:
        logits, before: (rows, positions, vocabulary).
    """
    now = logits.log_softmax(-1)
    return (now.exp() * (now - before.log_softmax(-1))).sum(-1)
