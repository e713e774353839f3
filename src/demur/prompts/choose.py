"""From the user's choices to splits: the built-in set, or what the user names in its place."""

from __future__ import annotations

from dataclasses import replace

from demur.errors import PromptError
from demur.prompts.builtin import builtin_set
from demur.prompts.files import load_pairs, load_prompts
from demur.prompts.split import split
from demur.prompts.types import KINDS, SPLITS, Kind, Prompt, Splits, of_kind

NAMES: dict[Kind, str] = {
    "harmful": "harmful prompts",
    "twin": "benign twins",
    "ordinary": "ordinary instructions",
}


def gather(
    *,
    pairs: str | None = None,
    harmful: str | None = None,
    harmful_column: str | None = None,
    benign: str | None = None,
    benign_column: str | None = None,
    ordinary: str | None = None,
    ordinary_column: str | None = None,
    seed: int = 0,
) -> Splits:
    """Return train, validation and test prompts; what is not named comes from the built-in set.

    Raises:
        PromptError: a source cannot be read, both pairs and single sides are named, or a split
            would be left without prompts of a kind.
    """
    if pairs and (harmful or benign):
        raise PromptError(
            "Both --pairs and --harmful or --benign were given.",
            "Give either a file of pairs, or one of harmful and one of benign requests.",
        )
    known = builtin_set().prompts
    chosen: list[Prompt] = []
    if pairs:
        chosen += load_pairs(pairs)
    elif harmful or benign:
        chosen += (
            load_prompts(harmful, "harmful", harmful_column)
            if harmful
            else [replace(p, pair="") for p in known if p.kind == "harmful"]
        )
        chosen += (
            load_prompts(benign, "twin", benign_column)
            if benign
            else [replace(p, pair="") for p in known if p.kind == "twin"]
        )
    else:
        chosen += [p for p in known if p.kind != "ordinary"]
    if ordinary:
        chosen += load_prompts(ordinary, "ordinary", ordinary_column)
    else:
        chosen += [p for p in known if p.kind == "ordinary"]
    splits = split(chosen, seed=seed)
    for kind in KINDS:
        count = len(of_kind(chosen, kind))
        for part in SPLITS:
            if not of_kind(splits.of(part), kind):
                raise PromptError(
                    f"There are too few {NAMES[kind]} for a {part} split ({count} in all, before "
                    "repeated ones are left out).",
                    "Give more, or more varied ones, or leave the option out.",
                )
    return splits
