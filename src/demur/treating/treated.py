"""What a treatment is, what it came to, and what a whole run came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from demur.checkpoint.changes import Dense, LowRank
from demur.measure.allowance import Payment
from demur.measure.scorecard import Scorecard
from demur.measure.validation import Option
from demur.models.chat_model import ChatModel
from demur.prompts.types import Splits
from demur.report.content import GraftFacts
from demur.treating.stages import Context


@dataclass(frozen=True)
class Treated:
    """What a treatment came to, before it is measured.

    Attributes:
        changes: called once, if there is no patch yet; the change of each tensor, by its name in
            the checkpoint.
        chosen, tried: the candidate that the changes are, and all that validation compared.
        steps: what was done, a step a sentence or two, for the report.
        rank: of the low-rank changes; None where they are full.
        purpose: what the first split's prompts were there for, if it is not the configuration's.
        graft: what a search for a graft found; None where nothing was grafted.
        payment: what the candidate costs beside what was allowed; None where nothing was limited.
    """

    changes: Callable[[], Mapping[str, LowRank | Dense]]
    chosen: Option
    tried: tuple[Option, ...]
    steps: tuple[str, ...]
    rank: int | None
    payment: Payment | None = None
    purpose: str = ""
    graft: GraftFacts | None = None


Treatment = Callable[[Context, ChatModel, Splits], Treated]


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        run: the run folder.
        model: folder of the treated model, loadable with transformers alone.
        patch: the patch file.
        report: the HTML report.
        headline: one sentence that says what changed.
        scorecard: all figures.
    """

    run: Path
    model: Path
    patch: Path
    report: Path
    headline: str
    scorecard: Scorecard
