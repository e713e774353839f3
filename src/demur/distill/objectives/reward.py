"""A learned reward, the classic way: a small head on the untouched student, from preferences.

The student's hidden state at the last token of request and answer goes through a network of one
hidden layer (or none), trained so that the better of two answers scores higher: the loss of a pair
is -log sigmoid(score of the chosen - score of the rejected) (Bradley and Terry 1952; Ouyang et al.
2022, arXiv 2203.02155, eq. 1). A fifth of the requests is held out and tells how often it does.

    learned = learn_reward(chat, preferences.lessons, journal, advance)
    learned.held_out                                # a `Rate`, on pairs of requests not seen
    objective = PolicyGradient(lessons, LearnedReward(chat, learned), chat.stops)

What such a reward finds good need not be: it has seen refusals and answers, not nonsense, and a
student that is paid by it alone may learn to please it. `rewards.VerdictReward` is the one that
pays no nonsense.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demur.console import Advance
from demur.distill.lessons import Lesson
from demur.distill.states import hidden_states, kept_states
from demur.errors import CheckpointError, TrainingError
from demur.models.chat_model import ChatModel
from demur.run.journal import Journal, content_key
from demur.stats import Rate, rate

LEAST = 10  # pairs on either side of the division
HELD_OUT = 5  # one request of so many
STEPS, LEARNING_RATE, DECAY = 300, 1e-2, 0.1


@dataclass(frozen=True)
class RewardModel:
    """What `learn_reward` learns.

    Attributes:
        tensors: by name: `mean` and `spread` (width,) of the hidden states; the head, `in.weight`
            (hidden, width) and `in.bias` (hidden,), absent where it is linear, and `out.weight`;
            `centre` and `scale` (1,), which give its scores mean 0 and spread 1.
        student: identity of the student whose hidden states it reads.
        layer: after how many of its layers.
        held_out: how often the chosen answer scores higher, on pairs of requests not trained on.
        harmful, benign: the same on harmful and on benign requests alone.
        trained: the same on the pairs that it was trained on.
    """

    tensors: dict[str, Any]
    student: str
    layer: int
    held_out: Rate
    harmful: Rate
    benign: Rate
    trained: Rate

    def score(self, states: Any) -> Any:
        """Return what answers are worth, (answers,), from (answers, width) hidden states."""
        at = self.tensors
        return (_score(at, states) - at["centre"]) / at["scale"]


@dataclass(frozen=True)
class LearnedReward:
    """A reward (`rewards.Reward`) that asks no judge and is not told what is harmful."""

    chat: ChatModel
    learned: RewardModel

    def __call__(
        self, lessons: Sequence[Lesson], answers: Sequence[tuple[int, ...]]
    ) -> list[float]:
        """Return one number an answer, the higher the better."""
        texts = [(lesson.prompt, answer) for lesson, answer in zip(lessons, answers, strict=True)]
        states = hidden_states(self.chat.model, texts, self.learned.layer)
        scores: list[float] = self.learned.score(states).tolist()
        return scores


def learn_reward(
    chat: ChatModel,
    lessons: Sequence[Lesson],
    journal: Journal,
    advance: Advance,
    *,
    hidden: int = 32,
    depth: float = 1.0,
    seed: int = 0,
) -> RewardModel:
    """Learn from preference lessons which answers are good; those without `rejected` are ignored.

    Hidden states are in the journal batch by batch; the head takes seconds and is the same again.

    Args:
        hidden: width of the hidden layer; 0 for a linear head, which cannot see that a refusal is
            good on one request and bad on another unless the student's state already says so.
        depth: after which share of the student's layers its state is read.
        seed: of the head's initial weights.
        advance: called with the number of answers whose states have become known.

    Raises:
        TrainingError: too few pairs.
    """
    import torch

    pairs = [lesson for lesson in lessons if lesson.rejected]
    out = torch.tensor([_held_out(lesson) for lesson in pairs], dtype=torch.bool)
    if min(int(out.sum()), int((~out).sum())) < LEAST:
        raise TrainingError(
            f"There are {len(pairs)} pairs of answers, {int(out.sum())} of them held out: too few "
            "to learn a reward from.",
            "Give more prompts, or take the judge's verdict as the reward.",
        )
    layer = round(depth * int(chat.model.config.get_text_config().num_hidden_layers))
    texts = [(one.prompt, answer) for one in pairs for answer in (one.answer, one.rejected)]
    states = kept_states(chat, texts, layer, journal, advance).reshape(len(pairs), 2, -1)
    tensors = _fit(states[~out], hidden, seed)
    right = _score(tensors, states[:, 0]) > _score(tensors, states[:, 1])
    bad = torch.tensor([lesson.kind == "refuse" for lesson in pairs])

    def share(chosen: Any) -> Rate:
        return rate(int(right[chosen].sum()), int(chosen.sum()))

    return RewardModel(
        tensors, chat.identity, layer, share(out), share(out & bad), share(out & ~bad), share(~out)
    )


def _held_out(lesson: Lesson) -> bool:
    return int(content_key("held out", lesson.prompt), 16) % HELD_OUT == 0


def _fit(states: Any, hidden: int, seed: int) -> dict[str, Any]:
    """Return a reward model's tensors, learnt from (pairs, 2, width): chosen, rejected."""
    import torch
    from torch.nn.functional import logsigmoid

    both = states.flatten(0, 1)
    width = both.shape[1]
    tensors = {"mean": both.mean(0), "spread": both.std(0) + 1e-6}
    generator = torch.Generator().manual_seed(seed)
    head = {"out.weight": torch.zeros(width)}
    if hidden:
        head = {
            "in.weight": torch.randn((hidden, width), generator=generator) / width**0.5,
            "in.bias": torch.zeros(hidden),
            "out.weight": torch.randn(hidden, generator=generator) / hidden**0.5,
        }
    for one in head.values():
        one.requires_grad_(True)
    tensors |= head
    optimizer = torch.optim.AdamW(head.values(), lr=LEARNING_RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        margins = _score(tensors, states[:, 0]) - _score(tensors, states[:, 1])
        loss: Any = -logsigmoid(margins).mean()
        loss.backward()
        optimizer.step()
    tensors = {name: one.detach() for name, one in tensors.items()}
    scores = _score(tensors, both)
    return tensors | {"centre": scores.mean()[None], "scale": scores.std()[None] + 1e-6}


def _score(tensors: dict[str, Any], states: Any) -> Any:
    states = (states - tensors["mean"]) / tensors["spread"]
    if "in.weight" in tensors:
        states = (states @ tensors["in.weight"].T + tensors["in.bias"]).relu()
    return states @ tensors["out.weight"]


def save_reward(learned: RewardModel, path: Path) -> None:
    """Write a reward model as one safetensors file, its figures in the header."""
    import json

    from safetensors.torch import save_file

    figures = {
        name: asdict(getattr(learned, name))
        for name in ("held_out", "harmful", "benign", "trained")
    }
    told = {"student": learned.student, "layer": learned.layer, **figures}
    part = path.with_name(f"{path.name}.part")
    save_file(learned.tensors, part, {"demur.reward": json.dumps(told)})
    part.replace(path)


def load_reward(path: Path, chat: ChatModel) -> RewardModel:
    """Read what `save_reward` wrote.

    Raises:
        CheckpointError: the file is none, or its reward model reads another student.
    """
    import json

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["demur.reward"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a reward model ({error}).", "Learn it again, or give another file."
        ) from error
    if told["student"] != chat.identity:
        raise CheckpointError(
            f"The reward model {path} reads another student than {chat.folder.name}.",
            "Learn one for this student.",
        )
    rates = (Rate(**told[name]) for name in ("held_out", "harmful", "benign", "trained"))
    return RewardModel(tensors, told["student"], told["layer"], *rates)
