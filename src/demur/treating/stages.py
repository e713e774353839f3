"""What the stages of a run share, and the stage that measures: one model, all of its figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from demur.console import Narrator
from demur.errors import PromptError
from demur.judge import Judge
from demur.measure.allowance import Allowance
from demur.measure.protocol import (
    Judged,
    Probe,
    by_hazard,
    compare,
    examples,
    measure_probe,
    standard_probes,
)
from demur.measure.scorecard import CurvePoint, Scorecard, Utility
from demur.measure.validation import Option
from demur.models.chat_model import ChatModel, load_chat_model
from demur.models.device import Placement
from demur.models.memory import give_back_freed_memory
from demur.models.resolve import ResolvedModel
from demur.prompts.choose import gather
from demur.prompts.split import evenly
from demur.prompts.types import Splits
from demur.run.folder import RunFolder
from demur.run.journal import content_key
from demur.treating.config import TreatmentConfig

DIVERGENCE_PROMPTS = 60


@dataclass
class Context:
    """What the stages of one run share."""

    config: TreatmentConfig
    folder: RunFolder
    narrator: Narrator
    judge: Judge
    resolved: ResolvedModel
    placement: Placement
    base_hash: str
    phases: dict[str, float] = field(default_factory=dict)

    @property
    def on_cpu(self) -> bool:
        """Whether the run computes on CPUs."""
        return self.placement.device == "cpu"

    @contextmanager
    def phase(self, title: str) -> Iterator[None]:
        """Say what begins, and keep how long it took, time before a kill added; then tidy up."""
        self.narrator.heading(title)
        begun = time.monotonic()
        earlier = float(self.folder.journal.fact(f"seconds/{title}") or 0.0)
        try:
            yield
        finally:
            self.phases[title] = earlier + time.monotonic() - begun
            self.folder.journal.keep_fact(f"seconds/{title}", self.phases[title])
            give_back_freed_memory()

    def load(self, folder: Path, weights: str) -> ChatModel:
        """Load the model in `folder` as this run's configuration has it."""
        return load_chat_model(
            folder,
            self.placement,
            weights=weights,
            name=self.config.model,
            system=self.config.system,
            thinking=self.config.thinking,
            chat_template=self.config.chat_template,
            trust_remote_code=self.config.trust_remote_code,
        )


@dataclass(frozen=True)
class Side:
    """One model's answers to the test probes, and its utility figures."""

    judged: tuple[Judged, ...]
    losses: list[float]


def splits_of(config: TreatmentConfig) -> Splits:
    """Return the prompts that a configuration names, divided.

    Raises:
        PromptError: they cannot be found or read.
    """
    return gather(
        pairs=config.pairs,
        harmful=config.harmful,
        harmful_column=config.harmful_column,
        benign=config.benign,
        benign_column=config.benign_column,
        ordinary=config.ordinary,
        ordinary_column=config.ordinary_column,
        seed=config.seed,
    )


def reported_probes(config: TreatmentConfig, splits: Splits) -> tuple[Probe, ...]:
    return standard_probes(
        evenly(splits.harmful("test"), config.test_pairs, config.seed),
        evenly(splits.twins("test"), config.test_pairs, config.seed),
        evenly(splits.ordinary("test"), config.test_ordinary, config.seed),
        split="test",
        tokens=config.answer_tokens,
        prefilled=config.prefill,
    )


def choosing_probes(config: TreatmentConfig, splits: Splits) -> dict[str, Probe]:
    """Return the validation probes that candidates are compared on, by key.

    Answers are as long as in the report: in fewer tokens some refusals are not seen to be any.
    """
    probes = standard_probes(
        evenly(splits.harmful("validation"), config.validation_pairs, config.seed),
        evenly(splits.twins("validation"), config.validation_pairs, config.seed),
        evenly(splits.ordinary("validation"), config.validation_pairs, config.seed),
        split="validation",
        tokens=config.answer_tokens,
        prefilled=0,
    )
    return {probe.key: probe for probe in probes}


def allowance(config: TreatmentConfig) -> Allowance:
    """Return what a configuration allows to be paid for refusals."""
    return Allowance(config.max_over_refusal, config.max_divergence)


def divergence_of_candidates(
    config: TreatmentConfig, context: Context, chat: ChatModel, probes: Mapping[str, Probe]
) -> Callable[[ChatModel], float] | None:
    """Return what measures a candidate's divergence; None where it has no limit.

    It is the mean KL a token along the original's own answers to ordinary validation prompts.

    Args:
        chat: the original, untouched; it is read now.
        probes: those of `choosing_probes`.

    Raises:
        PromptError: there is a limit and no ordinary prompt.
    """
    from demur.measure.utility import divergence as measured
    from demur.measure.utility import make_reference

    if config.max_divergence is None:
        return None
    if "ordinary" not in probes:
        raise PromptError(
            "--max-divergence is measured on ordinary prompts, of which there are none to choose "
            "on.",
            "Give some with --ordinary, or leave --max-divergence out.",
        )
    probe = probes["ordinary"]
    whole = replace(probe, decoding=replace(probe.decoding, tokens=config.answer_tokens))
    journal = context.folder.journal
    judged = measure_probe(chat, whole, journal, context.judge, context.narrator, "as it is")
    original = make_reference(chat, judged.answers)
    texts = [prompt.text for prompt in whole.prompts]

    def diverging(candidate: ChatModel) -> float:
        key = content_key(
            *("validation divergence", chat.identity, candidate.identity),
            *(texts, config.answer_tokens),
        )
        known = journal.fact(key)
        if known is None:
            values = measured(candidate, original)
            known = sum(values) / len(values) if values else 0.0
            journal.keep_fact(key, known)
        return float(known)

    return diverging


def measure(context: Context, chat: ChatModel, probes: tuple[Probe, ...], label: str) -> Side:
    """Put all probes and the perplexity text to one model; what is in the journal is not redone."""
    from demur.measure.utility import load_text, negative_log_likelihoods

    journal = context.folder.journal
    judged = tuple(
        measure_probe(chat, probe, journal, context.judge, context.narrator, label)
        for probe in probes
    )
    text = load_text(context.config.text)
    key = content_key("losses", chat.identity, text.content, context.config.text_tokens)
    losses = journal.fact(key)
    if losses is None:
        windows = -(-context.config.text_tokens // 512)
        with context.narrator.progress(f"{label}, perplexity", windows) as advance:
            losses = negative_log_likelihoods(
                chat, text, tokens=context.config.text_tokens, advance=advance
            )
        journal.keep_fact(key, losses)
    for one in judged:
        context.narrator.say(
            f"  {one.probe.title}: {sum(one.refused)} of {len(one.refused)}"
            + (f", {one.undecided} undecided" if one.undecided else "")
        )
    return Side(judged, losses)


def reference(context: Context, chat: ChatModel, before: Side) -> Any:
    """Return the original's distribution on ordinary answers, for the divergence later."""
    from demur.measure.utility import make_reference

    ordinary = [one for one in before.judged if one.probe.key == "ordinary"]
    answers = ordinary[0].answers[:DIVERGENCE_PROMPTS] if ordinary else ()
    return make_reference(chat, answers)


def divergence(context: Context, chat: ChatModel, original: Any) -> list[float]:
    from demur.measure.utility import divergence as measured

    key = content_key("divergence", context.base_hash, chat.identity, DIVERGENCE_PROMPTS)
    known = context.folder.journal.fact(key)
    if known is None:
        known = measured(chat, original)
        context.folder.journal.keep_fact(key, known)
    return [float(value) for value in known]


def scorecard(
    config: TreatmentConfig,
    before: Side,
    after: Side,
    divergence: list[float],
    chosen: Option,
    tried: Sequence[Option],
) -> Scorecard:
    from demur.measure.utility import load_text, perplexity, perplexity_ratio
    from demur.stats import mean

    pairs = {
        first.probe.key: (first, second)
        for first, second in zip(before.judged, after.judged, strict=True)
    }
    utility = Utility(
        load_text(config.text).name,
        perplexity(before.losses),
        perplexity(after.losses),
        perplexity_ratio(before.losses, after.losses),
        mean(divergence),
    )
    return Scorecard(
        tuple(compare(*sides) for sides in pairs.values()),
        utility,
        by_hazard(pairs["harmful"], pairs["twins"]) if "twins" in pairs else (),
        tuple(CurvePoint(c.label, c.harmful, c.benign, c is chosen) for c in tried),
        tuple(
            example
            for key, count in (("ordinary", 4), ("twins", 6), ("harmful", 6))
            if key in pairs
            for example in examples(*pairs[key], count)
        ),
    )
