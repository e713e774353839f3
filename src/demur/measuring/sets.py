"""The prompts of a measurement: the chosen sets, apart from training, and the kinds they lack."""

from __future__ import annotations

from pathlib import Path

from demur.console import Narrator
from demur.measure.settings import MeasureConfig
from demur.prompts.catalogue import BUILTIN, choose_parts, plain_name
from demur.prompts.named import SourcedSet, data_folder, load_own, load_part, of_builtin
from demur.prompts.pool import UsedSet, builtin_splits, on_both_sides, splits_of_run, use_sets
from demur.prompts.types import KINDS, Kind, Prompt

APART_NONE = "none"


def used_sets(config: MeasureConfig, narrator: Narrator) -> tuple[tuple[UsedSet, ...], str]:
    """Return the prompts that a configuration asks, and what they were kept apart from.

    Raises:
        PromptError: a set cannot be found or read.
    """
    sets = _sets(config, narrator)
    trained, apart = _trained(config)
    used = use_sets(sets, trained, config.n, config.seed)
    for each in used:
        source = each.source
        notes = [
            f"{count} {words}"
            for count, words in (
                (source.repeats, "repeated in it"),
                (each.trained, "near training prompts, left out"),
                (sum(map(bool, each.shared)), "also in an earlier set"),
            )
            if count
        ]
        narrator.say(
            f"  {source.title}: {len(each.prompts)} of {len(source.prompts)} {source.kind} prompts "
            f"from {source.origin} ({source.licence}; {source.citation})"
            + (f"; {', '.join(notes)}" if notes else "")
        )
    both = on_both_sides(used)
    if both:
        narrator.say(f"  {both} prompts stand both among the harmful and the harmless ones")
    return used, apart


def _sets(config: MeasureConfig, narrator: Narrator) -> list[SourcedSet]:
    """Return the chosen sets; a figure of refusal never stands without one of over-refusal."""
    own: list[tuple[str | None, Kind, str | None]] = [
        (config.harmful, "harmful", config.harmful_column),
        (config.benign, "twin", config.benign_column),
        (config.ordinary, "ordinary", config.ordinary_column),
    ]
    names = list(config.sets)
    if not names and not any(source for source, *_ in own):
        names = [BUILTIN]
    builtin = [name for name in names if plain_name(name.partition(":")[0]) == BUILTIN]
    data = data_folder(config.data)
    parts = choose_parts([name for name in names if name not in builtin])
    sets = [load_part(named, part, data) for named, part in parts]
    sets += [load_own(source, kind, column) for source, kind, column in own if source]
    kinds = {each.kind for each in sets}
    missing: list[Kind] = [kind for kind in KINDS if kind not in kinds]
    if missing and not builtin:
        words = {
            "harmful": "harmful ones",
            "twin": "benign ones that sound harmful",
            "ordinary": "ordinary ones",
        }
        said = " and ".join(words[kind] for kind in missing)
        narrator.say(f"  no set has {said}: those of the built-in test split are asked too")
    wanted: list[Kind] = list(KINDS) if builtin else missing
    return [of_builtin(kind, _test(kind)) for kind in wanted] + sets


def _test(kind: Kind) -> tuple[Prompt, ...]:
    splits = builtin_splits()
    return {
        "harmful": splits.harmful("test"),
        "twin": splits.twins("test"),
        "ordinary": splits.ordinary("test"),
    }[kind]


def _trained(config: MeasureConfig) -> tuple[tuple[Prompt, ...], str]:
    """Return the prompts that test figures are kept apart from, and their name."""
    if config.apart == APART_NONE:
        return (), "none"
    if config.apart == BUILTIN:
        splits, name = builtin_splits(), "the built-in training and validation prompts"
    else:
        run = Path(config.apart).expanduser()
        splits, name = splits_of_run(run), f"the training and validation prompts of {run.name}"
    return (*splits.train, *splits.validation), name
