"""The last stage of a run: the report, the model card, `result.json`, and what is said at the end.

Everything that a reader sees is put together here from what the stages found; nothing is measured
here, and writing twice writes the same.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from demur import figures
from demur.checkpoint import read_patch, update_results
from demur.checkpoint.patch import PatchSummary
from demur.measure.result import FILE, FORMAT, write_result
from demur.measure.scorecard import Scorecard
from demur.measure.validation import Option
from demur.models.cache import file_sha256
from demur.models.resolve import ResolvedModel
from demur.prompts.types import Splits
from demur.report import card, files, html
from demur.report.content import (
    PatchFacts,
    Phase,
    ReportContent,
    TrainingRow,
)
from demur.report.table import console_table
from demur.run.versions import versions
from demur.treating.config import TreatmentConfig
from demur.treating.outcome import closing, goals, headline, lines
from demur.treating.provenance import command_line, hub_id, licence, method, prompt_rows
from demur.treating.stages import Context
from demur.treating.treated import Outcome, Treated

CARD = "model_card.md"
DOCUMENTS = (html.FILE, CARD, FILE, f"model/{card.FILE}")
TAGS = ("demur", "safety", "refusal")


def write_documents(
    context: Context,
    splits: Splits,
    scorecard: Scorecard,
    summary: PatchSummary,
    treated: Treated,
    peak: int,
) -> Outcome:
    """Write the report, the card and `result.json`, and tell the user what the run came to.

    Args:
        treated: what the treatment came to.
        peak: the most memory that the process held, in bytes.

    Raises:
        RunError, CheckpointError: something cannot be written.
    """
    folder = context.folder.path
    aims = goals(scorecard)
    title = headline(scorecard, aims)
    update_results(
        summary.path,
        {
            "headline": title,
            "goals": aims,
            "comparisons": scorecard.comparisons,
            "utility": scorecard.utility,
        },
    )
    content = report_content(context, splits, scorecard, summary, treated, peak)
    report = html.write_report(content, folder)
    card.write_card(content, folder / "model")
    files.write_text(folder / CARD, card.render_card(content))
    write_result(folder, _result(context, content, scorecard, summary, treated))
    narrator = context.narrator
    narrator.heading("Before and after")
    narrator.table(console_table(scorecard))
    for line in content.fell_short:
        narrator.say(f"  fell short: {line}")
    narrator.say(closing(scorecard, aims, report))
    return Outcome(folder, folder / "model", summary.path, report, title, scorecard)


def report_content(
    context: Context,
    splits: Splits,
    scorecard: Scorecard,
    summary: PatchSummary,
    treated: Treated,
    peak: int,
) -> ReportContent:
    """Return everything that the report and the card say; for the arguments see the caller."""
    config, resolved = context.config, context.resolved
    aims = goals(scorecard)
    achieved, fell_short = lines(aims)
    if (payment := treated.payment) is not None:
        achieved += (payment.sentence,) * payment.kept
        fell_short += (payment.sentence,) * (not payment.kept)
    return ReportContent(
        model_name=_model_name(config, resolved),
        model_source=config.model,
        base_model=hub_id(resolved),
        parameters=resolved.parameters,
        base_hash=context.base_hash,
        license=licence(resolved),
        tags=TAGS,
        created=_day(context),
        patch=_patch_facts(summary, treated),
        headline=headline(scorecard, aims),
        achieved=achieved,
        fell_short=fell_short,
        steps=_steps(context, splits, treated),
        scorecard=scorecard,
        method=method(context),
        training=tuple(_training_row(each, treated.chosen) for each in treated.tried),
        prompts=prompt_rows(context, splits),
        judge=context.judge.description,
        command=command_line(config, context.folder.path, context.folder.configuration),
        versions=versions(),
        phases=tuple(Phase(name, seconds) for name, seconds in context.phases.items()),
        peak_memory=peak,
        goals=aims,
        graft=treated.graft,
    )


def _model_name(config: TreatmentConfig, resolved: ResolvedModel) -> str:
    name = hub_id(resolved) or config.model
    return name.rstrip("/").split("/")[-1] or "model"


def _day(context: Context) -> str:
    """Return the day on which the run was first finished: writing again does not change it."""
    journal = context.folder.journal
    day = journal.fact("created")
    if day is None:
        day = time.strftime("%Y-%m-%d")
        journal.keep_fact("created", day)
    return str(day)


def _patch_facts(summary: PatchSummary, treated: Treated) -> PatchFacts:
    path = summary.path
    return PatchFacts(
        path.name,
        path.stat().st_size,
        treated.rank,
        summary.share,
        summary.tensors,
        file_sha256(path),
    )


def _training_row(candidate: Option, chosen: Option) -> TrainingRow:
    note = f"harmful less benign {candidate.score:+.3f}"
    if candidate.divergence is not None:
        note += f", KL {figures.number(candidate.divergence)}"
    return TrainingRow(
        candidate.label, note, candidate.harmful, candidate.benign, candidate is chosen
    )


def _steps(context: Context, splits: Splits, treated: Treated) -> tuple[str, ...]:
    """Return what was done, a step a sentence or two."""
    resolved, purpose = context.resolved, treated.purpose or context.config.purpose
    origin = resolved.origin if resolved.kind in ("alias", "hub") else ""
    return (
        f"The model was read: {resolved.architecture}, {figures.parameters(resolved.parameters)} "
        f"parameters. {context.placement.sentence} {origin}".strip(),
        f"The prompts were divided into {figures.grouped(len(splits.train))} to "
        f"{purpose} on, "
        f"{figures.grouped(len(splits.validation))} to choose on and "
        f"{figures.grouped(len(splits.test))} to report from; "
        f"{figures.grouped(len(splits.removed))} that repeat another, or nearly, were left out. "
        "A request, its twin and all that was made from the same template stay together.",
        "The untouched model answered the test prompts, and a judge read its answers.",
        *treated.steps,
        "The change was written as a patch, the patch put onto the original's weights, and the "
        "model that came out measured again on the same test prompts. They had played no part in "
        f"{purpose}ing or choosing.",
    )


def _result(
    context: Context,
    content: ReportContent,
    scorecard: Scorecard,
    summary: PatchSummary,
    treated: Treated,
) -> dict[str, Any]:
    """Return `result.json`; only `cost` differs when the same run is made again."""
    resolved, placement, chosen = context.resolved, context.placement, treated.chosen
    return {
        "format": FORMAT,
        "headline": content.headline,
        "goals": content.goals,
        "goals_met": all(goal.met for goal in content.goals),
        "scorecard": scorecard,
        "chosen": {"label": chosen.label, "strength": chosen.strength},
        "budget": treated.payment,
        "tried": content.training,
        "model": {
            "source": content.model_source,
            "hub": content.base_model,
            "revision": resolved.revision,
            "architecture": resolved.architecture,
            "parameters": resolved.parameters,
            "license": content.license,
        },
        "hashes": {
            "base": context.base_hash,
            "aligned": summary.result_hash,
            "patch": read_patch(summary.path).manifest.hash,
            "patch_file": content.patch.sha256,
        },
        "patch": asdict(content.patch),
        "prompts": content.prompts,
        "judge": {"name": context.judge.name, "description": context.judge.description},
        "device": placement.device,
        "dtype": placement.dtype,
        "configuration": context.config.resolved(),
        "command": content.command,
        "versions": dict(content.versions),
        "created": content.created,
        "files": {
            "model": "model",
            "patch": summary.path.name,
            "report": html.FILE,
            "card": CARD,
            "result": FILE,
        },
        "cost": {"seconds": dict(context.phases), "peak_memory": content.peak_memory},
    }
