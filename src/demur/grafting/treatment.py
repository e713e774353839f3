"""Grafting as a treatment: relatives are found, their modules traced and searched, one graft kept.

Candidates are compared on search prompts (the split that training would have); the finalists on
validation prompts; what is kept is measured on test prompts, as every treatment is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur import figures
from demur.graft.agreement import Agreement, agreement
from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas, SameWeights, find_deltas
from demur.graft.front import measure_point
from demur.graft.oracle import Oracle, Settings
from demur.graft.utility import UNTOUCHED
from demur.graft.wanted import NothingToGive, Wanted
from demur.grafting.config import GraftConfig
from demur.grafting.facts import facts_of
from demur.grafting.modes import MODES, Found
from demur.grafting.record import Record
from demur.grafting.relatives import Relatives, find_relatives
from demur.grafting.starts import read_starts
from demur.measure.allowance import Payment
from demur.measure.validation import Option, refusal_rates
from demur.models.chat_model import ChatModel
from demur.models.family import NotRelatives
from demur.prompts.split import evenly
from demur.prompts.types import Splits
from demur.treating.apart import TaughtTheTest
from demur.treating.stages import (
    Context,
    allowance,
    choosing_probes,
    divergence_of_candidates,
)
from demur.treating.treated import Treated, Treatment

# What says that nothing can be grafted from a donor, and not that something is amiss.
UNFIT = (NotRelatives, SameWeights, NothingToGive, TaughtTheTest)
ALREADY = 0.9  # of harmful search prompts refused: nothing worth a graft is missing


@dataclass(frozen=True)
class Graft(Option):
    """A finalist and its rates on validation prompts."""

    candidate: Candidate
    share: float
    strength: float
    divergence: float | None = None

    @property
    def label(self) -> str:
        """The graft in a few words."""
        return f"{self.candidate.label}, {self.share:.2%} of the parameters"


def grafting(config: GraftConfig, *, offline: bool = False) -> Treatment:
    """Return the treatment that `config` describes.

    It ends in one of `UNFIT` where nothing can be grafted from the donor; the model is then as it
    was.

    Args:
        offline: whether the donor and its base are taken from this machine only.

    Raises:
        ConfigError: there is nothing in the run folder that it is to begin with.
    """
    read_starts(config.start)  # said before any work

    def treat(context: Context, chat: ChatModel, splits: Splits) -> Treated:
        with context.phase("Comparing it with its relatives"):
            relatives = find_relatives(config, context, offline=offline)
            deltas = deltas_of(context, chat, relatives)
        oracle = make_oracle(config, context, chat, splits, deltas)
        try:
            with context.phase("Measuring what the donor has to give"):
                _require_something_to_give(context, oracle)
            with context.phase(f"Searching ({config.mode} mode)"):
                found = MODES[config.mode](config, context, oracle)
            agreed = _checked(config, context, oracle, found)
            with context.phase("Confirming on validation prompts"):
                tried = confirm(config, context, oracle, splits, found.finalists)
            chosen = allowance(config).best(tried, size=lambda one: one.share)
            facts = facts_of(oracle, found, measure_point(oracle, chosen.candidate))
        finally:
            oracle.close()
        payment = allowance(config).payment(chosen, tried)
        if payment is not None:
            context.narrator.say(f"  {payment.sentence}")
        record = Record(config, relatives, deltas, oracle, found, chosen.candidate, agreed)
        record.write(context.folder.path)
        return Treated(
            lambda: chosen.candidate.changes(deltas),
            chosen,
            tuple(tried),
            _steps(relatives, deltas, found, agreed, chosen, tried, payment),
            _rank(chosen.candidate, deltas),
            payment,
            graft=facts,
        )

    return treat


def _rank(candidate: Candidate, deltas: Deltas) -> int | None:
    """Return the rank of a graft's changes; None of a swap, which is not of low rank."""
    return None if candidate.kind == "swap" else candidate.rank or deltas.low_rank


def deltas_of(context: Context, chat: ChatModel, relatives: Relatives) -> Deltas:
    """Compare donor and base, module by module.

    Raises:
        CheckpointError: as `find_deltas`.
    """
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
    """Return the oracle on search prompts, of which validation and test have none.

    A donor distilled here was trained on prompts of the same split, and tells these apart better
    than any others: its over-refusal on them, which is what a graft may cost, would be too low.
    So the search takes what distilling comes to last.
    """
    sides = {"harmful": splits.harmful, "twins": splits.twins, "ordinary": splits.ordinary}
    prompts = {
        name: evenly(of("train"), config.search_pairs, config.seed, last=True)
        for name, of in sides.items()
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
        NothingToGive: the recipient refuses already, or the donor's change adds no refusals.
    """
    before, donor = oracle.before, oracle.donor
    for name, standing in (("as it is", before), ("with all that the donor changed", donor)):
        context.narrator.say(
            f"  {name}: harmful {standing.harmful.value:.0%}, twins {standing.twins.value:.0%}, "
            f"ordinary {standing.ordinary.value:.0%} of search prompts refused"
        )
    if before.harmful.value >= ALREADY:
        raise NothingToGive(
            f"The recipient refuses {before.harmful.value:.0%} of the harmful search prompts "
            "already, so that there is nothing to add.",
            "Use it as it is, or give harder prompts with --harmful.",
        )
    Wanted.of(before, donor)


def _checked(
    config: GraftConfig, context: Context, oracle: Oracle, found: Found
) -> Agreement | None:
    """Evaluate some of the judged sets in full; None where there was no search to check."""
    sets = found.search.some(config.checked) if found.search else ()
    if found.search is None or not sets:
        return None
    with context.phase("Checking the search's decisions"):
        agreed = agreement(oracle, sets, found.search.wanted)
        context.narrator.say(f"  {agreed.sentence}")
    return agreed


def confirm(
    config: GraftConfig,
    context: Context,
    oracle: Oracle,
    splits: Splits,
    finalists: Sequence[Candidate],
) -> list[Graft]:
    """Ask each finalist the validation prompts."""
    probes = choosing_probes(config, splits)
    untouched = oracle.grafted(UNTOUCHED)
    diverging = divergence_of_candidates(config, context, untouched, probes)
    tried = []
    for candidate in finalists:
        grafted = oracle.grafted(candidate)
        rates = refusal_rates(
            grafted,
            probes,
            context.folder.journal,
            context.judge,
            context.narrator,
            candidate.label,
        )
        share = candidate.share(oracle.deltas)
        divergence = None if diverging is None else diverging(grafted)
        tried.append(Graft(*rates, candidate, share, candidate.scale, divergence))
        one = tried[-1]
        context.narrator.say(
            f"  {one.label}: harmful {one.harmful.value:.0%}, twins {one.twins.value:.0%}, "
            f"ordinary {one.ordinary.value:.0%}"
            + ("" if one.divergence is None else f", KL {one.divergence:.3f}")
        )
    return tried


def _steps(
    relatives: Relatives,
    deltas: Deltas,
    found: Found,
    agreed: Agreement | None,
    chosen: Graft,
    tried: Sequence[Graft],
    payment: Payment | None,
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
        *((agreed.sentence,) if agreed else ()),
        f"{len(tried)} finalist{'s' * (len(tried) != 1)} answered the validation prompts; kept "
        f"was {chosen.label}." + (f" {payment.sentence}" if payment else ""),
    )
