"""A finished row of `demur bench distill` at the strength at which it refuses as much as another.

    python benchmarks/equal_rates.py RUN --row sft --rates 66 86 84 [--strengths 0.4 0.5 ...]

Two ways of teaching that refuse unequally much cannot be compared by what they over-refuse, or by
how they stand prefilled answers. So the trained change of a row is scaled, and of the strengths the
one is taken at which it refuses nearest to `--rates` (percent, one a seed, such as what the other
row refused) of the *validation* requests; test prompts are asked at that strength alone. RUN keeps
its checkpoints; the figures go to RUN-equal-ROW/bench.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from demur.benching.bench import begun_probes
from demur.benching.config import BenchConfig
from demur.benching.rows import Bench
from demur.benching.tables import Result
from demur.console import Narrator
from demur.distill.choose import as_adapted, validate
from demur.measure.prefilled import measure_prefilled
from demur.measure.utility import perplexity_ratio
from demur.quiet import hush
from demur.stats import mean
from demur.treating.pipeline import opened
from demur.treating.stages import (
    choosing_probes,
    divergence,
    measure,
    reference,
    reported_probes,
)

STRENGTHS = (0.25, 0.35, 0.45, 0.55, 0.65, 0.75)


def scaled(bench: Bench, checkpoint: Path) -> Any:
    """Return the student with a row's adapter, whose strength can be set."""
    from peft import PeftModel

    chat = bench.fresh()
    return replace(chat, model=PeftModel.from_pretrained(chat.model, str(checkpoint)).eval())


def main() -> int:
    """Measure the row for each seed, and print what was taken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--row", default="sft")
    parser.add_argument("--rates", type=float, nargs="+", required=True)
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS)
    arguments = parser.parse_args()
    hush()
    figures = json.loads((arguments.run / "bench.json").read_text(encoding="utf-8"))
    config = BenchConfig(**figures["configuration"])
    out = arguments.run.parent / f"{arguments.run.name}-equal-{arguments.row}"
    found = []
    with opened(config, out, Narrator()) as (context, splits):
        bench, probes = Bench(config, context, splits), reported_probes(config, splits)
        journal, judge, narrator = context.folder.journal, context.judge, context.narrator
        untouched = bench.fresh()
        before = measure(context, untouched, probes, "untouched")
        original = reference(context, untouched, before)
        begun = begun_probes(bench, untouched)
        del untouched
        for seed, wanted in enumerate(arguments.rates):
            folder = arguments.run / "rows" / f"{arguments.row}-{seed}"
            checkpoint = max(folder.glob("checkpoint-*"), key=lambda one: int(one.name[11:]))
            chat = scaled(bench, checkpoint)
            tried = [
                validate(
                    *(chat, checkpoint, strength, choosing_probes(config, splits)),
                    *(journal, judge, narrator),
                )
                for strength in arguments.strengths
            ]
            for one in tried:
                narrator.say(f"  seed {seed}, {one.label}")
            best = min(tried, key=lambda one: abs(100 * one.harmful.value - wanted))
            validate(chat, checkpoint, best.strength, {}, journal, judge, narrator)  # puts it in
            named = as_adapted(chat, checkpoint, best.strength)
            after = measure(context, named, probes, f"seed {seed}")
            judged = (
                *after.judged,
                *(
                    measure_prefilled(named, one, journal, judge, narrator, f"seed {seed}")
                    for one in begun
                ),
            )
            result = Result(
                f"{arguments.row}-equal",
                f"{arguments.row}, scaled",
                "method",
                seed,
                f"{best.label}; wanted {wanted:g} % of validation requests",
                0.0,
                0,
                {one.probe.key: [int(each) for each in one.refused] for one in judged},
                {one.probe.key: one.undecided for one in judged},
                {one.probe.key: one.probe.title for one in judged},
                {one.probe.key: one.probe.wanted for one in judged},
                asdict(perplexity_ratio(before.losses, after.losses)),
                asdict(mean(divergence(context, named, original))),
            )
            found.append(asdict(result))
            rates = ", ".join(
                f"{key} {sum(ones)}/{len(ones)}" for key, ones in result.refused.items()
            )
            print(f"seed {seed}, {result.note}: {rates}", flush=True)
            text = json.dumps({**figures, "results": found})
            (out / "bench.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
