"""`demur bench distill`: every row measured on the same test prompts, each kept when it is known.

    demur bench distill smollm2-135m --rows untouched template sft dpo --seeds 0 1 2

A row that is in the journal is not made again, so that rows can be added to a finished bench.
"""

from __future__ import annotations

import gc
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demur.benching.config import BenchConfig
from demur.benching.memory import peak_memory, reset_peak_memory
from demur.benching.names import in_order
from demur.benching.plot import write_plot
from demur.benching.rows import DEFAULT_ROWS, NEEDS, ROWS, SENTENCES, Bench
from demur.benching.tables import Result, by_row, write_tables
from demur.console import Narrator
from demur.distill.deep import complying_answers
from demur.distilling.seen import require_refusals, require_soon
from demur.errors import ConfigError
from demur.interruption import resumable
from demur.judge import OpeningJudge
from demur.measure.minimal_pairs import MinimalPair, judge_pairs, pairs_key, read_pairs
from demur.measure.prefilled import PrefilledProbe, measure_prefilled, prefilled_probes
from demur.measure.protocol import Judged, Probe
from demur.measure.settings import MeasureConfig
from demur.measure.utility import perplexity_ratio
from demur.models.chat_model import ChatModel
from demur.models.generation import Decoding
from demur.prompts.split import limit
from demur.stats import mean
from demur.treating.pipeline import opened
from demur.treating.stages import Context, Side, divergence, measure, reference, reported_probes

UNTOUCHED = "untouched"
PROBE_PROMPTS = 300  # a side and split


@dataclass(frozen=True)
class Benched:
    """What a bench came to: its run folder, its table in Markdown, and its figures."""

    run: Path
    table: Path
    figures: Path
    results: tuple[Result, ...]


def bench_distill(
    model: str | BenchConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    **choices: Any,
) -> Benched:
    """Compare ways of teaching refusals, with baselines and controls, on one protocol.

    Args:
        model: the model's name, or a whole configuration.
        run: the run folder; by default `runs/<model>-<hash of the configuration>`.
        narrator: who tells the user; by default on stderr.
        choices: any field of `BenchConfig`.

    Raises:
        DemurError: something is wrong that the user can put right.
        Interrupted: Ctrl-C; the same call continues.
    """
    config = BenchConfig.of(model, **choices)
    with resumable():
        return _bench(config, run, narrator or Narrator())


def _bench(config: BenchConfig, run: Path | None, narrator: Narrator) -> Benched:
    names = _names(config)
    require_refusals(config.refusal, OpeningJudge())
    with opened(config, run, narrator) as (context, splits):
        bench = Bench(config, context, splits)
        journal = context.folder.journal
        probes = (*reported_probes(config, splits), *_named(config, narrator))
        pairs = read_pairs(Path(config.blimp).expanduser(), config.blimp_n) if config.blimp else ()
        chat = bench.fresh()
        taught = (*config.refusal, *(SENTENCES if "varied" in names else ()))
        require_soon(taught, chat, context.judge, config.answer_tokens)
        with context.phase("Measuring it as it is"):
            before = measure(context, chat, probes, UNTOUCHED)
            original = reference(context, chat, before)
            begun = begun_probes(bench, chat)
        probe = _probe(bench, chat, probes)
        del chat
        results = []
        for name in names:
            for seed in config.seeds if ROWS[name].seeded else (0,):
                key = f"bench/{name}/{seed}"
                known = journal.fact(key)
                if known is None:
                    known = _row(bench, name, seed, probes, begun, before, original)
                    journal.keep_fact(key, known)
                told = _told(bench, name, seed, pairs) if pairs else []
                results.append(Result(**known, pairs=told))
                table, figures = write_tables(results, probe, context.folder.path, config)
                plot = write_plot(by_row(results), probe, context.folder.path)
                gc.collect()
        narrator.say(f"The table is {table}, the plot {plot}.")
        return Benched(context.folder.path, table, figures, tuple(results))


def _names(config: BenchConfig) -> tuple[str, ...]:
    """Return the rows to make, in the order of the table.

    Raises:
        ConfigError: there is no row of a name, or one lacks what it is made from.
    """
    names = in_order(config.rows or DEFAULT_ROWS, ROWS)
    for name in names:
        if name in NEEDS and getattr(config, NEEDS[name]) is None:
            option = NEEDS[name].replace("_", "-")
            raise ConfigError(f"The row '{name}' needs a {option}.", f"Give one with --{option}.")
    return names


def _named(config: BenchConfig, narrator: Narrator) -> tuple[Probe, ...]:
    """Return a probe for each named set, apart from what was trained on."""
    if not config.sets:
        return ()
    from demur.measuring.sets import used_sets

    asked = MeasureConfig((config.model,), sets=config.sets, data=config.data, n=config.test_pairs)
    used, _ = used_sets(asked, narrator)
    return tuple(
        Probe(
            each.source.key,
            each.source.title,
            "test",
            "up" if each.source.kind == "harmful" else "down",
            each.prompts,
            Decoding(config.answer_tokens),
        )
        for each in used
        if not each.source.key.startswith("builtin")
    )


def begun_probes(bench: Bench, chat: ChatModel) -> tuple[PrefilledProbe, ...]:
    """Return the probes that begin with the untouched model's own compliance, one a depth."""
    context, config = bench.context, bench.config
    asked = limit(bench.splits.harmful("test"), 2 * config.prefill, config.seed)
    own = complying_answers(chat, asked, context.folder.journal, context.judge)
    probes = prefilled_probes(asked, own, split="test", tokens=config.answer_tokens)
    return tuple(each.first(config.prefill) for each in probes)


def _probe(bench: Bench, chat: ChatModel, probes: tuple[Probe, ...]) -> dict[str, Any]:
    """Return the curve of a linear probe on the untouched model."""
    from demur.distill.baselines.probe import SIDES, probe_curve

    journal, splits, seed = bench.context.folder.journal, bench.splits, bench.config.seed
    known = journal.fact("bench/probe")
    if known is None:
        parts = [
            {
                "harmful": limit(splits.harmful(part), PROBE_PROMPTS, seed),
                "twins": limit(splits.twins(part), PROBE_PROMPTS, seed),
                "ordinary": limit(splits.ordinary(part), PROBE_PROMPTS, seed),
            }
            for part in ("train", "validation")
        ]
        test = {probe.key: probe.prompts for probe in probes if probe.key in SIDES}
        with bench.context.phase("Probing what it already knows"):
            known = asdict(probe_curve(chat, parts[0], parts[1], test))
        journal.keep_fact("bench/probe", known)
    return dict(known)


def _recovered(
    context: Context, chat: ChatModel, begun: tuple[PrefilledProbe, ...], label: str
) -> list[Judged]:
    """Return how often one model refuses from within an answer that has begun."""
    folder = context.folder
    return [
        measure_prefilled(chat, each, folder.journal, context.judge, context.narrator, label)
        for each in begun
    ]


def _told(bench: Bench, name: str, seed: int, pairs: tuple[MinimalPair, ...]) -> list[int]:
    """Return for each minimal pair whether a row tells it, asked once.

    By itself, and not with the row's other figures, so that rows of an earlier bench can be asked:
    what was trained is on disk, and its lessons are in the journal.
    """
    context, row = bench.context, ROWS[name]
    key = f"bench/{name}/{seed}/{pairs_key(pairs)}"
    known = context.folder.journal.fact(key)
    if known is None:
        with row.treat(bench, seed) as treated:
            title = f"{row.title}, seed {seed}, minimal pairs" if row.seeded else row.title
            with context.narrator.progress(title, 2 * len(pairs)) as advance:
                known = [int(one) for one in judge_pairs(treated.chat, pairs, advance)]
        context.folder.journal.keep_fact(key, known)
    return list(known)


def _row(
    bench: Bench,
    name: str,
    seed: int,
    probes: tuple[Probe, ...],
    begun: tuple[PrefilledProbe, ...],
    before: Side,
    original: Any,
) -> dict[str, Any]:
    """Make one row for one seed, measure it, and return its figures as JSON can hold them."""
    row, context = ROWS[name], bench.context
    title = f"{row.title}, seed {seed}" if row.seeded else row.title
    reset_peak_memory()
    started = time.monotonic()
    with row.treat(bench, seed) as treated:
        seconds, peak = time.monotonic() - started, peak_memory()
        if treated.training is not None:
            seconds = treated.training
        with context.phase(f"Measuring: {title}"):
            after = measure(context, treated.chat, probes, name)
            judged = (*after.judged, *_recovered(context, treated.chat, begun, name))
            diverged = divergence(context, treated.chat, original)
    return {
        "row": name,
        "title": row.title,
        "kind": row.kind,
        "seed": seed,
        "note": treated.note,
        "seconds": seconds,
        "peak_memory": peak,
        "refused": {one.probe.key: [int(each) for each in one.refused] for one in judged},
        "undecided": {one.probe.key: one.undecided for one in judged},
        "titles": {one.probe.key: one.probe.title for one in judged},
        "wanted": {one.probe.key: one.probe.wanted for one in judged},
        "perplexity_ratio": asdict(perplexity_ratio(before.losses, after.losses)),
        "divergence": asdict(mean(diverged)),
    }
