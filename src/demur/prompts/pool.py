"""Several prompt sets asked as one: what was trained on stays out, what two sets share counts once.

Sets overlap: JailbreakBench took prompts from AdvBench and HarmBench, many sets repeat AdvBench. A
prompt that nearly repeats one that training saw measures memory, so it is kept out and counted. A
prompt that nearly repeats one of an earlier set stays in its own set's figure, but in the pooled
figure of its kind it counts once. Only like is compared with like: harmful prompts with harmful
ones, harmless with harmless, since a twin is meant to be near its partner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from demur.errors import PromptError
from demur.prompts.choose import gather
from demur.prompts.duplicates import near_duplicates, normalise
from demur.prompts.named import SourcedSet
from demur.prompts.split import limit
from demur.prompts.types import Kind, Prompt, Splits

CHOICES = (
    "pairs",
    "harmful",
    "harmful_column",
    "benign",
    "benign_column",
    "ordinary",
    "ordinary_column",
    "seed",
)


@dataclass(frozen=True)
class UsedSet:
    """A set as it is asked.

    Attributes:
        source: the set it was taken from.
        prompts: those that are asked, in order.
        trained: prompts left out because they nearly repeat one that training saw.
        shared: for each prompt, the key of the earlier set that nearly repeats it, or "".
    """

    source: SourcedSet
    prompts: tuple[Prompt, ...]
    trained: int
    shared: tuple[str, ...]

    @property
    def overlaps(self) -> dict[str, int]:
        """How many of its prompts an earlier set has too, by that set's key."""
        return {key: self.shared.count(key) for key in dict.fromkeys(self.shared) if key}


@cache
def builtin_splits() -> Splits:
    """Return the built-in set's splits as every run with default prompts has them."""
    return gather()


def splits_of_run(run: Path) -> Splits:
    """Return the prompts of a finished or unfinished run of `demur align`, divided as they were.

    Raises:
        PromptError: it is no such run, or its prompts have changed since.
    """
    from demur.run.journal import content_key

    try:
        known = json.loads((run / "config.json").read_text(encoding="utf-8"))
        choices = {name: known[name] for name in CHOICES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptError(
            f"{run} is no run folder of `demur align`, so that it is not known what it was "
            "trained on.",
            "Name a run folder with --apart, or leave it out for the built-in training split.",
        ) from error
    splits = gather(**choices)
    key = content_key(
        [[p.text for p in splits.of(part)] for part in ("train", "validation", "test")]
    )
    if key != known.get("prompts"):
        raise PromptError(
            f"The prompts of {run} are no longer those that it was trained on.",
            "Restore its files of prompts, or align again.",
        )
    return splits


def apart_from(sets: Sequence[SourcedSet], trained: Sequence[Prompt]) -> list[list[Prompt]]:
    """Return the prompts of each set that do not nearly repeat one of `trained`."""
    seen = {
        side: [p.text for p in trained if (p.kind == "harmful") == side] for side in (True, False)
    }
    kept = []
    for each in sets:
        texts = [prompt.text for prompt in each.prompts]
        known = seen[each.kind == "harmful"]
        near = {pair.left for pair in near_duplicates(texts, known)} if known else set()
        kept.append([prompt for i, prompt in enumerate(each.prompts) if i not in near])
    return kept


def use_sets(
    sets: Sequence[SourcedSet], trained: Sequence[Prompt], most: int, seed: int = 0
) -> tuple[UsedSet, ...]:
    """Keep sets apart from training, sample each, and find what they share.

    Args:
        trained: prompts that training saw; empty to keep everything.
        most: prompts a set, at most; a sample mirrors the whole in its categories.
        seed: of the samples.

    Raises:
        PromptError: every prompt of a set nearly repeats one that training saw.
    """
    used: list[UsedSet] = []
    earlier: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for each, kept in zip(sets, apart_from(sets, trained), strict=True):
        if not kept:
            raise PromptError(
                f"Every prompt of {each.title} nearly repeats one that training saw.",
                "Measure on another set, or give --apart none to ask it all the same.",
            )
        chosen = limit(kept, most, seed) or tuple(kept[:most])
        before = earlier[each.kind == "harmful"]
        shared = _shared([prompt.text for prompt in chosen], before)
        used.append(UsedSet(each, chosen, len(each.prompts) - len(kept), shared))
        before += [(prompt.text, each.key) for prompt in chosen]
    return tuple(used)


def _shared(texts: Sequence[str], before: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    found = [""] * len(texts)
    for pair in near_duplicates(texts, [text for text, _ in before]) if before else ():
        found[pair.left] = found[pair.left] or before[pair.right][1]
    return tuple(found)


def pooled(used: Iterable[UsedSet], kind: Kind) -> list[tuple[int, int]]:
    """Return the (set, prompt) places that the pooled figure of a kind is made of, each once."""
    return [
        (number, place)
        for number, each in enumerate(used)
        if each.source.kind == kind
        for place, shared in enumerate(each.shared)
        if not shared
    ]


def on_both_sides(used: Iterable[UsedSet]) -> int:
    """Return how many prompts stand, word for word, among the harmful and the harmless ones."""
    sides: dict[bool, set[str]] = {True: set(), False: set()}
    for each in used:
        sides[each.source.kind == "harmful"] |= {normalise(p.text) for p in each.prompts}
    return len(sides[True] & sides[False])
