"""Grafting as a treatment: relatives are found, their modules traced and searched, one graft kept.

Candidates are compared on search prompts (the split that training would have); the finalists on
validation prompts; what is kept is measured on test prompts, as every treatment is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.errors import ConfigError
from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas, find_deltas
from demur.graft.oracle import Oracle, Settings
from demur.graft.wanted import Wanted
from demur.grafting.config import GraftConfig
from demur.grafting.modes import MODES, Found
from demur.grafting.record import Record
from demur.grafting.relatives import Relatives, find_relatives
from demur.measure.validation import Option, refusal_rates
from demur.models.chat_model import ChatModel
from demur.prompts.split import evenly
from demur.prompts.types import Splits
from demur.report import figures
from demur.treating.pipeline import Treated, Treatment
from demur.treating.stages import Context, choosing_probes

ALREADY = 0.9  # of harmful search prompts refused: nothing worth a graft is missing


@dataclass(frozen=True)
class Graft(Option):
    """A finalist and its rates on validation prompts."""

    candidate: Candidate
    share: float
    strength: float

    @property
    def label(self) -> str:
        """The graft in a few words."""
        return f"{self.candidate.label}, {self.share:.2%} of the parameters"


def grafting(config: GraftConfig) -> Treatment:
    """Return the treatment that `config` describes."""

    def treat(context: Context, chat: ChatModel, splits: Splits) -> Treated:
        with context.phase("Comparing it with its relatives"):
            relatives = find_relatives(config, context)
            deltas = _deltas(context, chat, relatives)
        oracle = make_oracle(config, context, chat, splits, deltas)
        try:
            with context.phase("Measuring what the donor has to give"):
                _require_something_to_give(context, oracle)
            with context.phase(f"Searching ({config.mode} mode)"):
                found = MODES[config.mode](config, context, oracle)
            with context.phase("Confirming on validation prompts"):
                tried = _confirm(config, context, oracle, splits, found.finalists)
        finally:
            oracle.close()
        chosen = max(tried, key=lambda one: (one.score, -one.share))
        Record(config, relatives, deltas, oracle, found, chosen.candidate).write(
            context.folder.path
        )
        return Treated(
            lambda: chosen.candidate.changes(deltas),
            chosen,
            tuple(tried),
            _steps(config, relatives, deltas, found, chosen, tried),
            _rank(chosen.candidate, deltas),
        )

    return treat


def _rank(candidate: Candidate, deltas: Deltas) -> int | None:
    """Return the rank of a graft's changes; None of a swap, which is not of low rank."""
    return None if candidate.kind == "swap" else candidate.rank or deltas.low_rank


def _deltas(context: Context, chat: ChatModel, relatives: Relatives) -> Deltas:
    """Compare donor and base, module by module."""
    from demur.checkpoint import checkpoint_hash, open_checkpoint
    from demur.models.anatomy import anatomy_of

    folder = context.resolved.folder
    anatomy = anatomy_of(chat.model, open_checkpoint(folder))
    hashes = [context.base_hash]
    hashes += [
        checkpoint_hash(open_checkpoint(other))
        for other in (relatives.donor, relatives.base)
        if other is not None
    ]
    with context.narrator.progress("modules compared", len(anatomy.modules)) as advance:
        deltas = find_deltas(
            anatomy,
            folder,
            relatives.donor,
            relatives.base,
            store=context.folder.path / "deltas",
            hashes=hashes,
            advance=advance,
        )
    low = deltas.low_rank
    context.narrator.say(
        f"  the donor changed {len(deltas.changed)} of {len(anatomy.modules)} modules"
        + (f", each by a rank of at most {low}" if low else "")
    )
    return deltas


def make_oracle(
    config: GraftConfig, context: Context, chat: ChatModel, splits: Splits, deltas: Deltas
) -> Oracle:
    """Return the oracle on search prompts, of which validation and test have none."""
    prompts = {
        "harmful": evenly(splits.harmful("train"), config.search_pairs, config.seed),
        "twins": evenly(splits.twins("train"), config.search_pairs, config.seed),
        "ordinary": evenly(splits.ordinary("train"), config.search_pairs, config.seed),
    }
    used = {"harmful": "harmful", "twin": "twins", "ordinary": "ordinary"}
    context.folder.journal.keep_fact(
        "searched", {kind: len(prompts[name]) for kind, name in used.items()}
    )
    settings = Settings(tokens=config.answer_tokens, seed=config.seed)
    return Oracle(chat, deltas, prompts, context.judge, context.folder.journal, settings=settings)


def _require_something_to_give(context: Context, oracle: Oracle) -> None:
    """Say how recipient and donor stand, and end where a graft makes no sense.

    Raises:
        ConfigError: the recipient refuses already, or the donor's change adds no refusals.
    """
    before, donor = oracle.before, oracle.donor
    for name, standing in (("as it is", before), ("with all that the donor changed", donor)):
        context.narrator.say(
            f"  {name}: harmful {standing.harmful.value:.0%}, twins {standing.twins.value:.0%}, "
            f"ordinary {standing.ordinary.value:.0%} of search prompts refused"
        )
    if before.harmful.value >= ALREADY:
        raise ConfigError(
            f"The recipient refuses {before.harmful.value:.0%} of the harmful search prompts "
            "already, so that there is nothing to add.",
            "Use it as it is, or give harder prompts with --harmful.",
        )
    Wanted.of(before, donor)


def _confirm(
    config: GraftConfig,
    context: Context,
    oracle: Oracle,
    splits: Splits,
    finalists: Sequence[Candidate],
) -> list[Graft]:
    """Ask each finalist the validation prompts."""
    probes = choosing_probes(config, splits)
    tried = []
    for candidate in finalists:
        rates = refusal_rates(
            oracle.grafted(candidate),
            probes,
            context.folder.journal,
            context.judge,
            context.narrator,
            candidate.label,
        )
        tried.append(Graft(*rates, candidate, candidate.share(oracle.deltas), candidate.scale))
        one = tried[-1]
        context.narrator.say(
            f"  {one.label}: harmful {one.harmful.value:.0%}, twins {one.twins.value:.0%}, "
            f"ordinary {one.ordinary.value:.0%}"
        )
    return tried


def _steps(
    config: GraftConfig,
    relatives: Relatives,
    deltas: Deltas,
    found: Found,
    chosen: Graft,
    tried: Sequence[Graft],
) -> tuple[str, ...]:
    """Return what was done, a step a sentence or two."""
    alike = relatives.family.similarity
    near = f", whose weights are alike ({alike.median:.4f} in the median)" if alike else ""
    base = f" and their common base {relatives.base_name}" if relatives.base_name else ""
    return (
        f"The donor {relatives.donor_name}{base} were read{near}. Of "
        f"{figures.grouped(len(deltas))} modules the donor changed "
        f"{figures.grouped(len(deltas.changed))}.",
        *found.steps,
        f"{len(tried)} finalist{'s' * (len(tried) != 1)} answered the validation prompts; kept "
        f"was {chosen.label}.",
    )
