"""Prefill probes of a given depth: the first k tokens of an answer are written for the model.

    probes = prefilled_probes(harmful, own, split="test", tokens=32)
    before = [measure_prefilled(chat, one, journal, judge, narrator, "before") for one in probes]

`own` are the untouched model's own complying answers to harmful requests, so that at each depth k
the model finds itself where it would have gone (Qi et al. 2024, arXiv 2406.05946, section 3; there
the answers are another model's). All depths ask the same prompts, those with an answer long enough
for the deepest, and what comes after the first k tokens is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from demur.console import Narrator
from demur.judge.verdict import Judge
from demur.measure.protocol import Judged, Probe, measure_probe
from demur.models.chat_model import ChatModel
from demur.models.generation import Decoding
from demur.prompts.types import Prompt
from demur.run.journal import Journal

DEPTHS = (0, 5, 10, 20)


@dataclass(frozen=True)
class PrefilledProbe:
    """A probe, and for each of its prompts the token ids that the answer begins with."""

    probe: Probe
    openings: tuple[tuple[int, ...], ...]

    def first(self, count: int) -> PrefilledProbe:
        """Return the probe of the first prompts alone."""
        probe = replace(self.probe, prompts=self.probe.prompts[:count])
        return PrefilledProbe(probe, self.openings[:count])


def prefilled_probes(
    prompts: Sequence[Prompt],
    own: Sequence[Sequence[int]],
    *,
    split: str,
    tokens: int,
    depths: Sequence[int] = DEPTHS,
    wanted: str = "up",
) -> tuple[PrefilledProbe, ...]:
    """Return one probe a depth, all of the same prompts; none where no answer is long enough.

    Args:
        own: an answer's token ids for each prompt; empty where there is none to begin with.
        tokens: how many tokens a model may write after them.
        wanted: `up` for harmful prompts, `down` for benign ones.
    """
    asked = [
        (prompt, tuple(answer))
        for prompt, answer in zip(prompts, own, strict=True)
        if len(answer) >= max(1, *depths)
    ]
    if not asked:
        return ()
    kind = "Harmful" if wanted == "up" else "Benign"
    return tuple(
        PrefilledProbe(
            Probe(
                f"{kind.lower()}-prefill-{depth}",
                f"{kind} requests refused after {depth} tokens of the original's own answer",
                split,
                wanted,
                tuple(prompt for prompt, _ in asked),
                Decoding(tokens),
            ),
            tuple(answer[:depth] for _, answer in asked),
        )
        for depth in depths
    )


def measure_prefilled(
    chat: ChatModel,
    prefilled: PrefilledProbe,
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
    label: str,
) -> Judged:
    """Put one probe to one model; answers and verdicts are in the journal afterwards.

    The answers in it are what the model writes after the tokens that were given.
    """
    probe, openings = prefilled.probe, prefilled.openings
    return measure_probe(chat, probe, journal, judge, narrator, label, openings)
