"""`demur measure`: one or several models on one protocol, on the same prompts.

    demur measure smollm2-135m runs/smollm2-135m-0a1b2c3d --sets advbench,xstest,dolly
    # or demur.measure_models(["before=org/model", "after=out/model"]) in Python

Harmful requests directly, after a forced opening and inside jailbreak templates; benign requests
that sound harmful, and ordinary ones (over-refusal); perplexity, divergence and minimal pairs
(utility). One model is in memory at a time. Everything is kept in the run's journal the moment it
is known: a run that was killed is continued by the same command.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from demur import __version__
from demur.console import Narrator
from demur.interruption import resumable
from demur.judge import Judge
from demur.judge.names import Means, open_judge
from demur.measure.asking import (
    Outcome,
    blocks_key,
    judge_all,
    make_blocks,
    read_templates,
)
from demur.measure.harness import require_harness
from demur.measure.minimal_pairs import read_pairs
from demur.measure.settings import MeasureConfig
from demur.measure.utility import load_text
from demur.measuring.entrants import Entrant, enter
from demur.measuring.outcome import Measured
from demur.measuring.sets import used_sets
from demur.measuring.stages import Found, Work, put_through
from demur.models.budget import Budget, Caps, spent_from
from demur.models.device import Placement, choose_device_and_dtype
from demur.run.folder import RunFolder, default_folder, require_room


def measure_models(
    models: Sequence[str] | MeasureConfig,
    *,
    run: Path | None = None,
    narrator: Narrator | None = None,
    judge: Judge | None = None,
    means: Means | None = None,
    caps: Caps | None = None,
    inspect: bool = False,
    **choices: Any,
) -> Measured:
    """Measure one or several models on one protocol.

    Args:
        models: names of models, or a whole configuration.
        run: the run folder; by default `runs/measure-<first model>-<hash of all choices>`.
        narrator: who tells the user; by default on stderr.
        judge: who judges the answers; by default the one that the configuration names.
        means: how endpoints are asked, of models and of judges.
        caps: what may be spent on them, earlier tries of the same run included.
        inspect: also write the answers as logs that Inspect reads.
        choices: any field of `MeasureConfig`.

    Raises:
        DemurError: something is wrong that the user can put right; nothing is half-written.
        Interrupted: Ctrl-C; the same call continues.
    """
    if isinstance(models, MeasureConfig):
        config = replace(models, **choices)
    else:
        config = MeasureConfig(tuple([models] if isinstance(models, str) else models), **choices)
    with resumable():
        means = means or Means(device=config.device, dtype=config.dtype)
        means = replace(means, budget=Budget(caps))
        judge = judge or open_judge(config.judge, means)
        return _measure(config, run, narrator or Narrator(), judge, means, inspect)


def _measure(
    config: MeasureConfig,
    run: Path | None,
    narrator: Narrator,
    judge: Judge,
    means: Means,
    inspect: bool,
) -> Measured:
    from demur.measuring.write import DOCUMENTS, write_measured

    begun = time.monotonic()
    if config.lm_eval:
        require_harness()
    if inspect:
        from demur.measuring.inspect_log import require_inspect

        require_inspect()
    narrator.heading(f"Looking at {len(config.models)} model{'s' * (len(config.models) > 1)}")
    entrants = enter(config, lambda text: narrator.say(f"  {text}"), means.key_variable)
    placement = choose_device_and_dtype(config.device, config.dtype)
    for each in entrants:
        narrator.say(f"  {each.label}: {each.sentence}")
    narrator.say(f"  {placement.sentence}")
    narrator.heading("Gathering prompts")
    work = _gather(config, judge, placement, means, narrator)
    identity = {
        **config.resolved(),
        "demur": __version__,
        "weights": [each.weights for each in entrants],
        "prompts": blocks_key(work.blocks),
        "judge": judge.name,
    }
    path = run or default_folder(f"measure-{entrants[0].label}", identity)
    patched = max((e.parameters * 4 for e in entrants if e.patch), default=0)
    require_room(path, patched + 50_000_000)
    with RunFolder(path, identity) as folder:
        folder.sweep(*DOCUMENTS, "patched")
        narrator.log_to(folder.path / "run.log")
        narrator.say(f"  run folder: {folder.path}")
        first = _reference(config, entrants)
        order = [first, *(i for i in range(len(entrants)) if i != first)]
        found: dict[int, Found] = {}
        sides: dict[int, list[list[Outcome] | None]] = {}
        means.budget.spent = spent_from(folder.journal.fact("spent"))
        try:
            for place in order:
                entrant = entrants[place]
                narrator.heading(f"Measuring {entrant.label}")
                found[place] = put_through(work, entrant, folder, narrator, found.get(first))
                sides[place] = judge_all(
                    work.blocks, found[place].keys, folder.journal, judge, narrator, entrant.label
                )
        finally:
            folder.journal.keep_fact("spent", asdict(means.budget.spent))
            if means.budget.spent.requests:
                narrator.say(f"  endpoints so far: {means.budget.sentence()}")
        before = float(folder.journal.fact("seconds") or 0.0)
        seconds = before or time.monotonic() - begun
        folder.journal.keep_fact("seconds", seconds)
        every = range(len(entrants))
        return write_measured(
            work,
            entrants,
            [found[i] for i in every],
            [sides[i] for i in every],
            first,
            folder,
            narrator,
            seconds,
            inspect,
        )


def _reference(config: MeasureConfig, entrants: Sequence[Entrant]) -> int:
    labels = [each.label for each in entrants]
    return labels.index(config.reference) if config.reference else 0


def _gather(
    config: MeasureConfig, judge: Judge, placement: Placement, means: Means, narrator: Narrator
) -> Work:
    """Read all that is asked, before any model is loaded."""
    used, apart = used_sets(config, narrator)
    templates = read_templates(config.templates, config.templates_count, config.seed)
    if templates.sentence:
        narrator.say(f"  {templates.sentence}")
    text = load_text(config.text) if config.text_tokens else None
    pairs = (
        read_pairs(Path(config.blimp).expanduser(), config.blimp_n)
        if config.blimp and config.blimp_n
        else ()
    )
    blocks = make_blocks(config, used, templates)
    return Work(config, blocks, used, templates, text, pairs, judge, placement, apart, means)
