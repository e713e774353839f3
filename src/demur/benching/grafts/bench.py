"""`demur bench graft`: one donor, many recipients, every row measured on the same test prompts.

    demur bench graft smollm2-135m --donor runs/aligned/patch.safetensors --recipients a b c

Each row of each recipient is kept when it is known, so that recipients and rows can be added to a
finished bench; tables and plot are written after each recipient. Models are changed in memory and
put back to the bit; no model is written.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demur.benching.grafts.config import GraftBenchConfig
from demur.benching.grafts.plot import write_plot
from demur.benching.grafts.recipient import Recipient, recipients_of
from demur.benching.grafts.result import Missing, Result
from demur.benching.grafts.rows import DEFAULT_ROWS, ROWS
from demur.benching.grafts.summary import UNTOUCHED
from demur.benching.grafts.tables import write_tables
from demur.benching.names import in_order
from demur.console import Narrator
from demur.errors import CheckpointError, ConfigError, ModelError, TrainingError
from demur.interruption import resumable
from demur.measure.protocol import Probe
from demur.measure.utility import perplexity_ratio
from demur.stats import mean
from demur.treating.pipeline import opened
from demur.treating.stages import Side, divergence, measure, reference, reported_probes


@dataclass(frozen=True)
class Benched:
    """What a bench came to: its run folder, its tables in Markdown, its figures, and the rows."""

    run: Path
    table: Path
    figures: Path
    results: tuple[Result, ...]
    missing: tuple[Missing, ...]


def bench_graft(
    model: str | GraftBenchConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    **choices: Any,
) -> Benched:
    """Graft many recipients of one family, beside rivals and controls, on one protocol.

    Args:
        model: the name of the model that all were made from, or a whole configuration.
        run: the run folder; by default `runs/<base>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.
        choices: any field of `GraftBenchConfig`.

    Raises:
        DemurError: something is wrong that the user can put right.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = GraftBenchConfig.of(model, **choices)
    names = _names(config)
    with resumable(), opened(config, run, narrator or Narrator()) as (context, splits):
        probes = reported_probes(config, splits)
        results: list[Result] = []
        missing: list[Missing] = []
        for recipient in recipients_of(config, context, splits):
            for made in _rows(recipient, names, probes):
                if isinstance(made, Result):
                    results.append(made)
                else:
                    missing.append(made)
            recipient.release()
            gc.collect()
            table, figures = write_tables(results, missing, context.folder.path, config)
            plot = write_plot(results, context.folder.path)
        context.narrator.say(f"The tables are in {table}, the plot is {plot}.")
        return Benched(context.folder.path, table, figures, tuple(results), tuple(missing))


def _names(config: GraftBenchConfig) -> tuple[str, ...]:
    """Return the rows to make, in the order of the table; the untouched one is always among them.

    Raises:
        ConfigError: there is no row of a name.
    """
    return in_order((UNTOUCHED, *(config.rows or DEFAULT_ROWS)), ROWS)


def _rows(
    recipient: Recipient, names: tuple[str, ...], probes: tuple[Probe, ...]
) -> Iterator[Result | Missing]:
    """Yield a recipient's rows, made where the journal does not have them."""
    side: tuple[Side, Any] | None = None
    for name in names:
        key = recipient.key("row", name)
        known = recipient.journal.fact(key)
        if known is None:
            side = side or _untouched(recipient, probes)
            try:
                known = _row(recipient, name, probes, *side)
            except (CheckpointError, ConfigError, ModelError, TrainingError) as error:
                recipient.context.narrator.say(f"  {ROWS[name].title}: {error.cause}")
                yield Missing(recipient.name, name, ROWS[name].title, error.cause)
                continue
            recipient.journal.keep_fact(key, known)
        # The same weights may be called something else, and a row's title is not kept.
        yield Result(
            **known,
            recipient=recipient.name,
            row=name,
            title=ROWS[name].title,
            kind=ROWS[name].kind,
        )


def _untouched(recipient: Recipient, probes: tuple[Probe, ...]) -> tuple[Side, Any]:
    """Return the untouched recipient's answers, and its distribution on ordinary ones."""
    context, chat = recipient.context, recipient.chat
    with context.phase(f"Measuring: {recipient.name}, untouched"):
        before = measure(context, chat, probes, recipient.name)
        return before, reference(context, chat, before)


def _row(
    recipient: Recipient, name: str, probes: tuple[Probe, ...], before: Side, original: Any
) -> dict[str, Any]:
    """Make one row, measure it, and return its figures as JSON can hold them."""
    context, label = recipient.context, f"{recipient.name}, {name}"
    with ROWS[name].treat(recipient) as made:
        with context.phase(f"Measuring: {label}"):
            after = measure(context, made.chat, probes, label)
            diverged = divergence(context, made.chat, original)
        return {
            "note": made.note,
            "share": made.share,
            "touched": made.touched,
            "passes": made.spent.passes if made.counted else None,
            "seconds": made.spent.seconds,
            "refused": {one.probe.key: [int(each) for each in one.refused] for one in after.judged},
            "undecided": {one.probe.key: one.undecided for one in after.judged},
            "titles": {one.probe.key: one.probe.title for one in after.judged},
            "perplexity_ratio": asdict(perplexity_ratio(before.losses, after.losses)),
            "divergence": asdict(mean(diverged)),
            "candidate": None if made.candidate is None else made.candidate.to_json(),
        }
