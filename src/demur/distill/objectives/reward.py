"""A learned reward, the classic way: a model of preferences, made of the student itself.

    learned = learn_reward(chat, pairs, recipe, folder, narrator)     # distill.reward_training
    objective = PolicyGradient(lessons, LearnedReward(chat, learned), chat.stops)

It is the untouched student with a low-rank change of its own, added where the layers compute
(`models.added`), so that student and reward share all weights in memory. What it finds good need
not be: it has seen refusals and answers, not nonsense, and a student that is paid by it alone may
learn to please it. `rewards.VerdictReward` is the one that pays no nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demur.checkpoint import LowRank
from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson
from demur.distill.objectives.bradley_terry import scores
from demur.distill.scores import without_dropout
from demur.distill.untouched import untouched
from demur.errors import CheckpointError
from demur.models.added import added
from demur.models.batch import plan
from demur.models.chat_model import ChatModel
from demur.stats import Rate

ROWS = 32  # answers that are read at once
RATES = ("held_out", "harmful", "benign")
Text = tuple[tuple[int, ...], tuple[int, ...]]  # token ids of a request and of an answer


@dataclass(frozen=True)
class RewardModel:
    """What `learn_reward` learns.

    Attributes:
        changes: to the student, by the modules' names in memory.
        readout: (width,) the direction that scores are read along.
        centre, scale: what is taken from scores, and what they are then divided by: on held-out
            answers they have mean 0 and spread 1.
        student: identity of the student.
        learnt_from: what it was learnt from and how, as one key.
        longest: how many tokens the answers that it learnt from have at most; what longer ones
            are worth it has not learnt.
        trained: how many pairs it was trained on.
        held_out: how often the chosen answer scores higher, on pairs of requests not trained on.
        harmful, benign: the same on harmful and on benign requests alone.
    """

    changes: Mapping[str, LowRank]
    readout: Any
    centre: float
    scale: float
    student: str
    learnt_from: str
    longest: int
    trained: int
    held_out: Rate
    harmful: Rate
    benign: Rate


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
        learned = self.learned
        found = score_texts(self.chat.model, texts, learned.changes, learned.readout)
        worth: list[float] = ((found - learned.centre) / learned.scale).tolist()
        return worth


def score_texts(
    model: Any, texts: Sequence[Text], changes: Mapping[str, LowRank], readout: Any
) -> Any:
    """Return what answers score, (texts,) float32 on the CPU, by the untouched student so changed.

    Args:
        model: the student, whatever is trained on it.
        texts: a request's and an answer's token ids each; the answers are not empty.
        changes, readout: as in `RewardModel`.
    """
    import torch

    rows = [Lesson("answer", prompt, (*answer, 0)) for prompt, answer in texts]
    collate = Collator(rows, shared_prefix(model, rows))
    found = torch.zeros(len(rows))
    with (
        torch.no_grad(),
        untouched(model) as before,
        added(before, changes),
        without_dropout(before),
    ):
        for places in plan([len(prompt) + len(answer) for prompt, answer in texts], ROWS):
            batch = collate([{"lesson": place} for place in places])
            batch = {name: one.to(model.device) for name, one in batch.items()}
            found[places] = scores(before, batch, readout).cpu()
    return found


def save_reward(learned: RewardModel, path: Path) -> None:
    """Write a reward model as one safetensors file, its figures in the header."""
    import json

    import torch
    from safetensors.torch import save_file

    tensors = {"readout": learned.readout}
    for name, change in learned.changes.items():
        tensors[f"{name}.down"] = torch.from_numpy(change.down)
        tensors[f"{name}.up"] = torch.from_numpy(change.up)
    told = {
        name: value
        for name, value in vars(learned).items()
        if name not in ("changes", "readout", *RATES)
    } | {name: asdict(getattr(learned, name)) for name in RATES}
    part = path.with_name(f"{path.name}.part")
    save_file(tensors, part, {"demur.reward": json.dumps(told)})
    part.replace(path)


def load_reward(path: Path, chat: ChatModel) -> RewardModel:
    """Read what `save_reward` wrote.

    Raises:
        CheckpointError: the file is none, or its reward model is another student's.
    """
    import json

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["demur.reward"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            readout = tensors.pop("readout")
            names = {name.rpartition(".")[0] for name in tensors}
            changes = {
                name: LowRank(tensors[f"{name}.up"].numpy(), tensors[f"{name}.down"].numpy())
                for name in sorted(names)
            }
            told |= {name: Rate(**told[name]) for name in RATES}
            learned = RewardModel(changes, readout, **told)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a reward model ({error}).", "Learn it again, or give another file."
        ) from error
    if learned.student != chat.identity:
        raise CheckpointError(
            f"The reward model {path} reads another student than {chat.folder.name}.",
            "Learn one for this student.",
        )
    return learned
