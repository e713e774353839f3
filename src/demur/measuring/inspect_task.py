"""demur's protocol as tasks of Inspect: `inspect eval demur/refusals --model ...`

    pip install 'demur[inspect]'
    inspect eval demur/refusals --model hf/org/model -T sets=advbench,xstest -T n=100
    inspect eval demur/refusals --model openai/gpt-4o -T prefill=true

Prompt sets, sampling and judge are those of `demur measure`. The score is the verdict; the metrics
are the rate of refusals among harmful prompts (higher is better) and among benign ones (lower),
and the share of answers that are neither. With `prefill=true` harmful prompts alone are asked, with
a compliant opening already given, where the provider lets an answer be continued.
"""

from __future__ import annotations

from typing import Any

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageUser, GenerateConfig
from inspect_ai.scorer import (
    Metric,
    SampleScore,
    Score,
    Scorer,
    Target,
    metric,
    scorer,
)
from inspect_ai.solver import TaskState, generate

from demur.console import Narrator
from demur.judge.names import open_judge
from demur.measure.settings import MeasureConfig
from demur.measuring.sets import used_sets
from demur.prompts.attacks import prefill_for

BENIGN = ("twin", "ordinary")


@task
def refusals(
    sets: str | list[str] = "builtin",
    n: int = 200,
    prefill: bool = False,
    data: str | None = None,
    apart: str = "builtin",
    answer_tokens: int = 64,
    seed: int = 0,
    judge: str = "opening",
) -> Task:
    """Harmful requests, and benign ones that sound harmful or do not: which are refused?

    Args:
        sets: as of `demur measure`; Inspect makes a list of what has commas.
        n, data, apart, answer_tokens, seed, judge: as of `demur measure`.
        prefill: ask the harmful ones alone, with a compliant opening given.
    """
    names = (sets,) if isinstance(sets, str) else tuple(sets)
    config = MeasureConfig(("inspect",), sets=names, n=n, data=data, apart=apart, seed=seed)
    used, _ = used_sets(config, Narrator())
    samples = [
        _sample(prompt.text, each.source.kind, each.source.key, prefill_for(i) if prefill else "")
        for each in used
        if each.source.kind == "harmful" or not prefill
        for i, prompt in enumerate(each.prompts)
    ]
    return Task(
        dataset=MemoryDataset(samples, name=f"demur: {', '.join(config.sets)}"),
        solver=[generate()],
        scorer=verdict(judge),
        config=GenerateConfig(max_tokens=answer_tokens, temperature=0.0),
    )


def _sample(text: str, kind: str, key: str, opening: str) -> Sample:
    messages: list[ChatMessage] = [ChatMessageUser(content=text)]
    if opening:
        messages.append(ChatMessageAssistant(content=opening))
    return Sample(
        input=messages, target="", metadata={"kind": kind, "set": key, "opening": opening}
    )


def _share(scores: list[SampleScore], kinds: tuple[str, ...], outcome: str) -> float:
    """Return the share of an outcome among the samples of these kinds; NaN without any."""
    # values that are words become numbers when Inspect reduces epochs; metadata stay as they are
    about = [each.score.metadata or {} for each in scores]
    found = [each["outcome"] == outcome for each in about if each.get("kind") in kinds]
    return sum(found) / len(found) if found else float("nan")


@metric
def harmful_refused() -> Metric:
    """Harmful requests refused; higher is better."""

    # Inspect tells by the annotation that samples are wanted, not bare scores
    def compute(scores: list[SampleScore]) -> float:
        return _share(scores, ("harmful",), "refused")

    return compute


@metric
def benign_refused() -> Metric:
    """Benign requests refused; lower is better."""

    # Inspect tells by the annotation that samples are wanted, not bare scores
    def compute(scores: list[SampleScore]) -> float:
        return _share(scores, BENIGN, "refused")

    return compute


@metric
def undecided() -> Metric:
    """Answers that are neither refusal nor answer."""

    # Inspect tells by the annotation that samples are wanted, not bare scores
    def compute(scores: list[SampleScore]) -> float:
        return _share(scores, ("harmful", *BENIGN), "undecided")

    return compute


@scorer(metrics=[harmful_refused(), benign_refused(), undecided()])
def verdict(judge: str = "opening") -> Scorer:
    """Judge each answer as `demur measure` does, by a judge's name."""
    judging = open_judge(judge)

    async def score(state: TaskState, target: Target) -> Score:
        said = state.output.completion
        found = judging.judge([state.input_text], [said])[0]
        about: dict[str, Any] = {
            "kind": state.metadata["kind"],
            "outcome": found.outcome,
            "harm": found.harm,
        }
        return Score(
            value=str(found.outcome), answer=said, explanation=found.reason, metadata=about
        )

    return score
