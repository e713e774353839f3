"""The last stage of a measurement: figures from what was found, and all that is written.

`results.json` (every figure), `answers.jsonl` (every answer with its verdict, to be judged again
without generating), `leaderboard.html`, and on request logs that Inspect reads.
"""

from __future__ import annotations

import json
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any

from demur.checkpoint.manifest import plain
from demur.console import Narrator
from demur.measure.asking import Block, Outcome
from demur.measure.known_error import known_error
from demur.measure.settings import SEQUENCES, MeasureConfig
from demur.measure.standing import ModelFigures, SetFacts, Standing
from demur.measure.tally import make_rows, make_samples
from demur.measure.utility import perplexity, perplexity_ratio
from demur.measuring.entrants import Entrant
from demur.measuring.outcome import Measured
from demur.measuring.stages import Found, Work
from demur.prompts.pool import on_both_sides
from demur.report import files, leaderboard
from demur.report.leaderboard_table import console_tables
from demur.run.folder import RunFolder
from demur.run.versions import versions
from demur.stats import mean, paired, rate

RESULTS, ANSWERS = "results.json", "answers.jsonl"
DOCUMENTS = (RESULTS, ANSWERS, leaderboard.FILE)
FORMAT = 1


def write_measured(
    work: Work,
    entrants: Sequence[Entrant],
    found: Sequence[Found],
    sides: Sequence[Sequence[Sequence[Outcome] | None]],
    reference: int,
    folder: RunFolder,
    narrator: Narrator,
    seconds: float,
    inspect: bool,
) -> Measured:
    """Make all figures, write all files, and tell the user.

    Args:
        found, sides: for each model, what its stage found, and its outcomes by block.
        reference: the place of the model that the others are compared with.

    Raises:
        RunError: something cannot be written.
    """
    error = known_error(work.judge.name)
    standing = Standing(
        models=tuple(
            _figures(work, entrant, found[i], sides[i], found[reference], i == reference)
            for i, entrant in enumerate(entrants)
        ),
        rows=make_rows(work.blocks, sides, work.used, reference, work.judge.name),
        sets=_sets(work),
        judge=work.judge.name,
        judge_description=work.judge.description,
        error=error,
        apart=work.apart,
        templates=work.templates.sentence,
        text=work.text.name if work.text else "",
        contradictory=on_both_sides(work.used),
        samples=make_samples(work.blocks, sides, [each.label for each in entrants]),
        command=command_line(work.config, inspect),
        created=time.strftime("%Y-%m-%d"),
        versions=versions(),
        seconds=seconds,
    )
    labels = [each.label for each in entrants]
    answers = files.write_text(folder.path / ANSWERS, _answers(work, labels, sides))
    page = files.write_text(folder.path / leaderboard.FILE, leaderboard.render(standing))
    if inspect:
        from demur.measuring.inspect_log import write_logs

        written = write_logs(folder.path / "inspect", work, entrants, sides, standing)
        narrator.say(f"  {len(written)} logs for Inspect in {folder.path / 'inspect'}")
    text = json.dumps(
        {"format": FORMAT, "kind": "measurement", **plain(asdict(standing))},
        indent=2,
        ensure_ascii=False,
        allow_nan=False,
    )
    results = files.write_text(folder.path / RESULTS, text + "\n")
    narrator.heading("Results")
    for table in console_tables(standing):
        narrator.table(table)
    narrator.say(f"The page is {page}; every answer is in {answers}.")
    return Measured(folder.path, results, answers, page, standing)


def _figures(
    work: Work,
    entrant: Entrant,
    found: Found,
    side: Sequence[Sequence[Outcome] | None],
    reference: Found,
    is_reference: bool,
) -> ModelFigures:
    same = found.vocabulary == reference.vocabulary != ""
    compared = not is_reference and same
    divergence = found.divergence or []
    per_byte = math.nan
    if found.losses and found.bytes:
        nats = sum(found.losses) / len(found.losses)
        per_byte = nats * found.tokens / found.bytes / math.log(2)
    return ModelFigures(
        label=entrant.label,
        origin=entrant.origin,
        parameters=entrant.parameters,
        weights=entrant.weights,
        reference=is_reference,
        perplexity=perplexity(found.losses) if found.losses else math.nan,
        bits_per_byte=per_byte,
        perplexity_ratio=(
            perplexity_ratio(reference.losses, found.losses) if compared and found.losses else None
        ),
        divergence=mean(divergence) if compared and divergence else None,
        apart=_apart(found, reference, same or is_reference),
        pairs=rate(sum(found.pairs), len(found.pairs)) if found.pairs else None,
        pairs_difference=(
            paired(reference.pairs, found.pairs)
            if found.pairs and reference.pairs and not is_reference
            else None
        ),
        tasks=tuple(found.tasks),
        unasked=sum(one.answer is None for block in side for one in block or ()),
    )


def _apart(found: Found, reference: Found, comparable: bool) -> str:
    """Return why a model's perplexity and divergence are not compared with the reference's."""
    if not found.vocabulary:
        return "an endpoint gives no probabilities and lets no answer be begun for it"
    if comparable:
        return ""
    if not reference.vocabulary:
        return "the reference is an endpoint, which gives no probabilities to compare with"
    return (
        "its vocabulary is another than the reference's, so that neither perplexity a token nor "
        "divergence can be compared"
    )


def _sets(work: Work) -> tuple[SetFacts, ...]:
    return tuple(
        SetFacts(
            key=each.source.key,
            title=each.source.title,
            kind=each.source.kind,
            origin=each.source.origin,
            licence=each.source.licence,
            citation=each.source.citation,
            measures=each.source.measures,
            held=len(each.source.prompts) + each.source.repeats,
            n=len(each.prompts),
            repeats=each.source.repeats,
            trained=each.trained,
            overlaps=tuple(each.overlaps.items()),
        )
        for each in work.used
    )


def _answers(
    work: Work, labels: Sequence[str], sides: Sequence[Sequence[Sequence[Outcome] | None]]
) -> str:
    lines = []
    for label, side in zip(labels, sides, strict=True):
        for block, outcomes in zip(work.blocks, side, strict=True):
            for ask, outcome in zip(block.asks, outcomes or (), strict=outcomes is not None):
                row = answer_row(label, block, ask.prompt, outcome)
                row |= {"asked": ask.text} if ask.text != ask.prompt.text else {}
                row |= {"opening": ask.opening} if ask.opening else {}
                row["judge"] = work.judge.name
                lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def answer_row(label: str, block: Block, prompt: Any, outcome: Outcome) -> dict[str, Any]:
    """Return one answer with its verdict as a row of `answers.jsonl`."""
    verdict = outcome.verdict
    return {
        "model": label,
        "source": prompt.source if block.attack == "direct" else f"{prompt.source}, {block.attack}",
        "set": prompt.source,
        "kind": block.kind,
        "attack": block.attack,
        "system": block.system,
        "hazard": prompt.hazard,
        "prompt": prompt.text,
        "response": outcome.answer.text if outcome.answer else "",
        "finished": outcome.answer.finished if outcome.answer else False,
        "outcome": verdict.outcome,
        "score": verdict.score,
        "harm": verdict.harm,
        "harm_score": verdict.harm_score,
        "reason": verdict.reason,
    }


def command_line(config: MeasureConfig, inspect: bool) -> str:
    """Return the command that makes a measurement, with every choice that is no default."""
    words = ["demur", "measure", *config.models]
    for each in fields(config):
        value = getattr(config, each.name)
        if each.name == "models" or each.default is MISSING or value == each.default:
            continue
        flag = f"--{each.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(flag)
            continue
        for item in value if each.name in SEQUENCES else (value,):
            text = str(item)
            words += [f"{flag}={text}"] if not text or text.startswith("-") else [flag, text]
    return shlex.join([*words, *(["--inspect"] if inspect else [])])
