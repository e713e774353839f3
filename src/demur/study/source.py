"""What is studied: a source is one model's answers, however they were come by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from demur.prompts.columns import RequestKind

EntryKind = RequestKind
Attack = Literal["direct", "prefill", "template"]
How = Literal["recorded", "run", "model", "endpoint"]


@dataclass(frozen=True)
class Entry:
    """One request with its answer.

    Attributes:
        prompt: the request itself, without any template around it.
        answer: what came back, without a forced opening.
        kind: whether the request is harmful or benign, or `unknown`.
        attack: how it was put: `direct`, after a forced opening (`prefill`), or inside a jailbreak
            `template`.
        key: the answer's key in a journal; empty for an answer that came from elsewhere.
        label: what people said of the answer: `refused`, `complied`, `undecided` (they did not call
            it either), or None where they were not asked.
        finished: whether the model itself ended the answer; None where it is not known.
    """

    prompt: str
    answer: str
    kind: EntryKind = "unknown"
    attack: Attack = "direct"
    key: str = ""
    label: str | None = None
    finished: bool | None = None


@dataclass(frozen=True)
class Source:
    """One model's answers.

    Attributes:
        name: as the report calls it; unique in a study.
        how: recorded answers, a run's journal, a model or an endpoint that was asked.
        origin: one sentence on where the answers are from; no folder of this machine is in it.
        entries: the answers, in order; at most one for each prompt, attack and template.
        notes: what a reader must know: rows left out, contradictions, another language.
        identity: equal for two sources that are the same model; empty where it is not known.
    """

    name: str
    how: How
    origin: str
    entries: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    identity: str = ""

    def of(self, attack: Attack, kind: EntryKind | None = None) -> tuple[Entry, ...]:
        """Return the entries of one attack, and of one kind where it is given."""
        return tuple(
            entry for entry in self.entries if entry.attack == attack and kind in (None, entry.kind)
        )
