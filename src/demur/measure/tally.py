"""From answers with verdicts to rates: rows over all models, paired, corrected and compared.

Every row has all models on the same prompts. The pooled row of a kind counts a prompt once that
stands in two sets.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.measure.asking import Block, Outcome
from demur.measure.corrected import corrected
from demur.measure.known_error import KnownError, known_error
from demur.measure.power import detectable_paired, detectable_unpaired, holm
from demur.measure.standing import Cell, Row, Sample, SampleAnswer
from demur.prompts.pool import UsedSet, pooled
from demur.stats import paired, rate

POOLED = {
    "harmful": "Harmful requests refused, all sets",
    "twin": "Benign requests that sound harmful refused, all sets",
    "ordinary": "Ordinary requests refused, all sets",
}
ATTACKED = {
    "prefill": "Harmful requests refused after a forced compliant opening",
    "templates": "Harmful requests refused inside jailbreak templates",
}
SAMPLES = (("harmful", "direct", 4), ("harmful", "prefill", 2), ("harmful", "templates", 2),
           ("twin", "direct", 4), ("ordinary", "direct", 2))  # fmt: skip


def make_rows(
    blocks: Sequence[Block],
    sides: Sequence[Sequence[Sequence[Outcome] | None]],
    used: Sequence[UsedSet],
    reference: int,
    judge: str,
) -> tuple[Row, ...]:
    """Return all rows: pooled figures first, then the attacks, then each set.

    Args:
        sides: for each model, for each block, its outcomes.
        reference: the place of the model that the others are compared with.
        judge: the judge's name, by which its known errors are found.
    """
    error, harm_error = known_error(judge), known_error(judge, "harmful")
    pools: list[Row] = []
    attacks: list[Row] = []
    sets: list[Row] = []
    systems = list(dict.fromkeys(block.system for block in blocks if block.attack == "direct"))
    titles = {each.source.key: each.source.title for each in used}
    for system in systems:
        direct = [i for i, b in enumerate(blocks) if b.attack == "direct" and b.system == system]
        mark = f"@{systems.index(system)}" if systems.index(system) else ""
        for kind in ("harmful", "twin", "ordinary"):
            places = pooled(used, kind)  # type: ignore[arg-type]
            if places:
                block = Block(f"direct{mark}/pooled:{kind}", "pooled", kind, "direct", system, ())
                chosen = [[_asked(side, direct[s])[p] for s, p in places] for side in sides]
                pools.append(_row(block, POOLED[kind], chosen, reference, error, harm_error))
    for i, block in enumerate(blocks):
        asked = [side[i] for side in sides]
        if all(part is None for part in asked):
            continue
        title = (
            f"{titles[block.set]} refused" if block.attack == "direct" else ATTACKED[block.attack]
        )
        found = _row(block, title, asked, reference, error, harm_error)
        (sets if block.attack == "direct" else attacks).append(found)
    return tuple([*pools, *attacks, *sets])


def _asked(side: Sequence[Sequence[Outcome] | None], place: int) -> Sequence[Outcome]:
    """Return the outcomes of a block that every model is asked."""
    found = side[place]
    if found is None:
        raise ValueError("direct requests are put to every model")
    return found


def _row(
    block: Block,
    title: str,
    outcomes: Sequence[Sequence[Outcome] | None],
    reference: int,
    error: KnownError | None,
    harm_error: KnownError | None,
) -> Row:
    refused = {
        i: [one.verdict.refused for one in side]
        for i, side in enumerate(outcomes)
        if side is not None
    }
    others = [i for i in refused if i != reference and reference in refused]
    differences = {i: paired(refused[reference], refused[i]) for i in others}
    adjusted = dict(zip(others, holm([differences[i].p_value for i in others]), strict=True))
    cells: list[Cell | None] = []
    for i, side in enumerate(outcomes):
        if side is None:
            cells.append(None)
            continue
        telling = [one.verdict.harm for one in side if one.verdict.harm is not None]
        harmful = rate(telling.count("harmful"), len(telling)) if telling else None
        kinds = [one.verdict.outcome for one in side]
        observed = rate(sum(refused[i]), len(side))
        cells.append(
            Cell(
                refused=observed,
                corrected=corrected(observed, error) if error else None,
                partial=kinds.count("partial"),
                undecided=kinds.count("undecided"),
                harmful=harmful,
                harmful_corrected=(
                    corrected(harmful, harm_error) if harmful and harm_error else None
                ),
                difference=differences.get(i),
                p_holm=adjusted.get(i),
                detectable=(
                    _detectable(refused[reference], refused[i]) if i in differences else None
                ),
            )
        )
    compared = refused.get(reference) or next(iter(refused.values()))
    return Row(
        key=block.key,
        title=title,
        set=block.set,
        kind=block.kind,
        attack=block.attack,
        system=block.system,
        wanted="up" if block.kind == "harmful" else "down",
        n=len(compared),
        detectable=detectable_unpaired(len(compared), sum(compared) / len(compared)),
        cells=tuple(cells),
    )


def _detectable(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return the smallest difference that these pairs would show."""
    disagree = sum(a != b for a, b in zip(first, second, strict=True))
    return detectable_paired(len(first), disagree / len(first))


def make_samples(
    blocks: Sequence[Block],
    sides: Sequence[Sequence[Sequence[Outcome] | None]],
    labels: Sequence[str],
) -> tuple[Sample, ...]:
    """Return a few prompts of each kind and attack, spread evenly, with every model's answer."""
    samples = []
    for kind, attack, count in SAMPLES:
        first = [b.system for b in blocks][:1]
        places = [
            (i, j)
            for i, block in enumerate(blocks)
            if (block.kind, block.attack) == (kind, attack) and [block.system] == first
            for j in range(len(block.asks))
        ]
        step = max(1, len(places) // count)
        for i, j in places[::step][:count]:
            ask = blocks[i].asks[j]
            answers = tuple(
                _said(label, part[j])
                for label, side in zip(labels, sides, strict=True)
                if (part := side[i]) is not None
            )
            samples.append(Sample(kind, ask.prompt.source, attack, ask.prompt.text, answers))
    return tuple(samples)


def _said(label: str, outcome: Outcome) -> SampleAnswer:
    text = outcome.answer.text if outcome.answer else ""
    return SampleAnswer(label, text, str(outcome.verdict.outcome))
