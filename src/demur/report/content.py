"""Everything that a report says, in one frozen value: the scorecard and the story around it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal

from demur.measure.scorecard import Comparison, Scorecard
from demur.stats import Rate


@dataclass(frozen=True)
class PatchFacts:
    """The patch file and how much of the model it changes.

    Attributes:
        file: its name, without a folder.
        size: in bytes.
        rank: of the low-rank deltas; None where the deltas are full.
        share: of all parameters that it changes, in [0, 1].
        tensors: how many weight tensors it changes.
        sha256: of the file.
    """

    file: str
    size: int
    rank: int | None
    share: float
    tensors: int
    sha256: str


@dataclass(frozen=True)
class Goal:
    """One goal of the run: `target` and `value` as they are shown, and whether it was met."""

    title: str
    target: str
    value: str
    met: bool


@dataclass(frozen=True)
class TrainingRow:
    """One thing that was tried, with its figures on validation prompts.

    Attributes:
        label: what was tried, in a few words.
        note: why it was or was not chosen; may be empty.
        harmful, benign: refused, on validation prompts.
        chosen: whether this is what the patch holds.
    """

    label: str
    note: str
    harmful: Rate
    benign: Rate
    chosen: bool


@dataclass(frozen=True)
class GraftPoint:
    """One graft that was measured on search prompts, or what it is held against.

    Attributes:
        label: what it is, in a few words.
        role: `untouched` (the recipient), `donor` (all that it changed), `tried` or `chosen`.
        harmful, twins, ordinary: refused; n is 0 where there are none.
        over_refusal: of benign requests, each kind counted alike.
        share: of the model's parameters.
        front: whether no other one is as good in every respect and better in one.
    """

    label: str
    role: Literal["untouched", "donor", "tried", "chosen"]
    harmful: Rate
    twins: Rate
    ordinary: Rate
    over_refusal: float
    share: float
    front: bool


@dataclass(frozen=True)
class GraftModule:
    """One module of the model.

    Attributes:
        layer: counted from 0.
        kind: such as `gate`.
        changed: whether the donor has anything to give there.
        kept: whether the graft holds it.
        effect: what it alone does to refusing harmful requests rather than twins, in logits; None
            where it was not traced.
    """

    layer: int
    kind: str
    changed: bool
    kept: bool
    effect: float | None


@dataclass(frozen=True)
class GraftFacts:
    """What a search for a graft found: what was measured, and where in the model the graft is."""

    points: tuple[GraftPoint, ...]
    modules: tuple[GraftModule, ...]

    @property
    def kept(self) -> tuple[GraftModule, ...]:
        """The modules that the graft holds."""
        return tuple(each for each in self.modules if each.kept)


@dataclass(frozen=True)
class PromptRow:
    """One set of prompts in one split; `kind` is `harmful`, `twin`, `ordinary` or `text`.

    `n` is what was used, `removed` the near-duplicates of other splits that were taken out.
    """

    name: str
    split: str
    kind: str
    n: int
    removed: int


@dataclass(frozen=True)
class Phase:
    """One phase of the run and its wall time in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True)
class ReportContent:
    """All that the report and the model card are written from.

    Attributes:
        model_name: as a reader calls it.
        model_source: hub id, alias or folder, as the commands take it.
        base_model: hub id of the base for the card's front matter; None if it has none.
        parameters: how many parameters the model has.
        base_hash: sha256 of the base's weights, in hex.
        license: of the treated model, as the hub spells it (`apache-2.0`).
        tags: for the card's front matter.
        created: day of the run, `2026-01-31`.
        patch: the patch file.
        headline: one sentence: what changed.
        achieved, fell_short: verdict lines: what met its goal, and what did not.
        steps: what was done, in plain words, one sentence or two a step.
        scorecard: all figures.
        method: the resolved configuration, key and value.
        training: what was tried; empty where nothing was trained.
        prompts: the prompt sets.
        judge: who judged the answers, in a sentence or two.
        command: the exact command that makes this run again.
        versions: python, torch, ... and the platform: name and version.
        phases: wall times.
        peak_memory: in bytes; None if not measured.
        goals: what was aimed at, and what came out.
        graft: what a search for a graft found; None where nothing was grafted.
    """

    model_name: str
    model_source: str
    base_model: str | None
    parameters: int
    base_hash: str
    license: str
    tags: tuple[str, ...]
    created: str
    patch: PatchFacts
    headline: str
    achieved: tuple[str, ...]
    fell_short: tuple[str, ...]
    steps: tuple[str, ...]
    scorecard: Scorecard
    method: tuple[tuple[str, str], ...]
    training: tuple[TrainingRow, ...]
    prompts: tuple[PromptRow, ...]
    judge: str
    command: str
    versions: tuple[tuple[str, str], ...]
    phases: tuple[Phase, ...]
    peak_memory: int | None
    goals: tuple[Goal, ...]
    graft: GraftFacts | None = None

    @property
    def apply_command(self) -> str:
        """The command that puts the patch onto the base model."""
        model, patch = shlex.quote(self.model_source), shlex.quote(self.patch.file)
        return f"demur apply {model} {patch} -o treated"

    @property
    def revert_command(self) -> str:
        """The command that takes the patch out again."""
        return f"demur revert treated {shlex.quote(self.patch.file)} -o original"

    def comparison(self, key: str) -> Comparison | None:
        """Return the scorecard's comparison of that key, the test split's first; None if absent."""
        found = [each for each in self.scorecard.comparisons if each.key == key]
        found.sort(key=lambda each: each.split != "test")
        return found[0] if found else None
