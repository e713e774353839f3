"""The last stage of a run: the report, the model card, `result.json`, and what is said at the end.

Everything that a reader sees is put together here from what the stages found; nothing is measured
here, and writing twice writes the same.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from demur.aligning.align import Aligned
from demur.aligning.config import AlignConfig
from demur.aligning.outcome import closing, goals, headline, lines
from demur.aligning.provenance import command_line, hub_id, licence, method, prompt_rows
from demur.aligning.stages import Context
from demur.checkpoint import read_patch, update_results
from demur.checkpoint.patch import PatchSummary
from demur.distill.choose import Candidate
from demur.measure.result import FILE, FORMAT, write_result
from demur.measure.scorecard import Scorecard
from demur.models.cache import file_sha256
from demur.models.resolve import ResolvedModel
from demur.prompts.types import Splits
from demur.report import card, figures, files, html
from demur.report.content import (
    PatchFacts,
    Phase,
    ReportContent,
    TrainingRow,
)
from demur.report.table import console_table
from demur.run.versions import versions

CARD = "model_card.md"
DOCUMENTS = (html.FILE, CARD, FILE, f"model/{card.FILE}")
TAGS = ("demur", "safety", "refusal")


def write_documents(
    context: Context,
    splits: Splits,
    scorecard: Scorecard,
    summary: PatchSummary,
    chosen: Candidate,
    tried: Sequence[Candidate],
    peak: int,
) -> Aligned:
    """Write the report, the card and `result.json`, and tell the user what the run came to.

    Args:
        chosen, tried: the candidate that the patch holds, and all that validation compared.
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
    content = report_content(context, splits, scorecard, summary, chosen, tried, peak)
    report = html.write_report(content, folder)
    card.write_card(content, folder / "model")
    files.write_text(folder / CARD, card.render_card(content))
    write_result(folder, _result(context, content, scorecard, summary, chosen))
    narrator = context.narrator
    narrator.heading("Before and after")
    narrator.table(console_table(scorecard))
    for line in content.fell_short:
        narrator.say(f"  fell short: {line}")
    narrator.say(closing(scorecard, aims, report))
    return Aligned(folder, folder / "model", summary.path, report, title, scorecard)


def report_content(
    context: Context,
    splits: Splits,
    scorecard: Scorecard,
    summary: PatchSummary,
    chosen: Candidate,
    tried: Sequence[Candidate],
    peak: int,
) -> ReportContent:
    """Return everything that the report and the card say; for the arguments see the caller."""
    config, resolved = context.config, context.resolved
    aims = goals(scorecard)
    achieved, fell_short = lines(aims)
    return ReportContent(
        model_name=_model_name(config, resolved),
        model_source=config.model,
        base_model=hub_id(resolved),
        parameters=resolved.parameters,
        base_hash=context.base_hash,
        license=licence(resolved),
        tags=TAGS,
        created=_day(context),
        patch=_patch_facts(summary, config),
        headline=headline(scorecard, aims),
        achieved=achieved,
        fell_short=fell_short,
        steps=_steps(context, splits, chosen, tried),
        scorecard=scorecard,
        method=method(context),
        training=tuple(_training_row(each, chosen) for each in tried),
        prompts=prompt_rows(context, splits),
        judge=context.judge.description,
        command=command_line(config, context.folder.path, context.folder.configuration),
        versions=versions(),
        phases=tuple(Phase(name, seconds) for name, seconds in context.phases.items()),
        peak_memory=peak,
        goals=aims,
    )


def _refusals(refusals: tuple[str, ...]) -> str:
    first = f'"{refusals[0]}"'
    return f"the answer {first}" if len(refusals) == 1 else f"one of {len(refusals)}, as {first}"


def _model_name(config: AlignConfig, resolved: ResolvedModel) -> str:
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


def _patch_facts(summary: PatchSummary, config: AlignConfig) -> PatchFacts:
    path = summary.path
    return PatchFacts(
        path.name,
        path.stat().st_size,
        config.rank,
        summary.share,
        summary.tensors,
        file_sha256(path),
    )


def _training_row(candidate: Candidate, chosen: Candidate) -> TrainingRow:
    note = f"harmful less benign {candidate.score:+.3f}"
    return TrainingRow(
        candidate.label, note, candidate.harmful, candidate.benign, candidate is chosen
    )


def _steps(
    context: Context, splits: Splits, chosen: Candidate, tried: Sequence[Candidate]
) -> tuple[str, ...]:
    """Return what was done, a step a sentence or two."""
    config, resolved = context.config, context.resolved
    made = context.folder.journal.fact("lessons") or {}
    origin = resolved.origin if resolved.kind in ("alias", "hub") else ""
    return (
        f"The model was read: {resolved.architecture}, {figures.parameters(resolved.parameters)} "
        f"parameters. {context.placement.sentence} {origin}".strip(),
        f"The prompts were divided into {figures.grouped(len(splits.train))} to train on, "
        f"{figures.grouped(len(splits.validation))} to choose on and "
        f"{figures.grouped(len(splits.test))} to report from; "
        f"{figures.grouped(len(splits.removed))} that repeat another, or nearly, were left out. "
        "A request, its twin and all that was made from the same template stay together.",
        "The untouched model answered the test prompts, and a judge read its answers.",
        f"Lessons were made: {figures.grouped(made.get('refuse', 0))} harmful requests, each with "
        f"{_refusals(config.refusal)}, and {figures.grouped(made.get('keep', 0))} harmless ones "
        "with the model's own answers; "
        f"{figures.grouped(made.get('left_out', 0))} that the model itself had refused, or left "
        "without an answer, were not taught.",
        f"A low-rank change (rank {config.rank}) of the layers from "
        f"{figures.percent(config.first_layer)} to {figures.percent(config.last_layer)} of the "
        "depth was trained to refuse the harmful requests, and to stay close to the original's "
        "own distribution on the harmless ones.",
        f"{len(tried)} candidates (stopping points and strengths) were compared on validation "
        f"prompts: harmful requests refused, less twins and ordinary instructions refused. "
        f"{chosen.label[0].upper()}{chosen.label[1:]} was kept.",
        "The change was written as a patch, the patch put onto the original's weights, and the "
        "model that came out measured again on the same test prompts. They had played no part in "
        "training or choosing.",
    )


def _result(
    context: Context,
    content: ReportContent,
    scorecard: Scorecard,
    summary: PatchSummary,
    chosen: Candidate,
) -> dict[str, Any]:
    """Return `result.json`; only `cost` differs when the same run is made again."""
    resolved, placement = context.resolved, context.placement
    return {
        "format": FORMAT,
        "headline": content.headline,
        "goals": content.goals,
        "goals_met": all(goal.met for goal in content.goals),
        "scorecard": scorecard,
        "chosen": {"label": chosen.label, "strength": chosen.strength},
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
