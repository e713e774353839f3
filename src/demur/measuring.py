"""`demur measure`: one or several models on one protocol, on the same prompts.

    demur measure smollm2-135m runs/smollm2-135m-0a1b2c3d --sets advbench,xstest,dolly
    # or demur.measure_models(["before=org/model", "after=out/model"]) in Python

Harmful requests directly, after a forced opening and inside jailbreak templates; benign requests
that sound harmful, and ordinary ones (over-refusal); perplexity, divergence and minimal pairs
(utility). One model is in memory at a time. Everything is kept in the run's journal the moment it
is known: a run that was killed is continued by the same command.
"""

from __future__ import annotations

import gc
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from demur import __version__
from demur.console import Narrator
from demur.entrants import Entrant, enter, load_entrant
from demur.errors import Interrupted
from demur.judge import Judge
from demur.judge.names import Means, open_judge
from demur.measure.asking import (
    Block,
    Outcome,
    Templates,
    ask_all,
    blocks_key,
    judge_all,
    make_blocks,
    read_templates,
    spoken,
)
from demur.measure.harness import TaskScore, require_harness, run_tasks
from demur.measure.minimal_pairs import MinimalPair, judge_pairs, pairs_key, read_pairs
from demur.measure.remote import ask_endpoint
from demur.measure.settings import MeasureConfig
from demur.measure.standing import Standing
from demur.measure.utility import Text, load_text
from demur.models.asking import Asker
from demur.models.budget import Budget, Caps, spent_from
from demur.models.chat_model import ChatModel
from demur.models.device import Placement, choose_device_and_dtype
from demur.models.endpoint import Endpoint
from demur.prompts.catalogue import BUILTIN, choose_parts, plain_name
from demur.prompts.named import SourcedSet, data_folder, load_own, load_part, of_builtin
from demur.prompts.pool import UsedSet, builtin_splits, on_both_sides, splits_of_run, use_sets
from demur.prompts.types import KINDS, Kind, Prompt
from demur.run.folder import RunFolder, default_folder, require_room
from demur.run.journal import Journal, content_key

APART_NONE = "none"


@dataclass(frozen=True)
class Measured:
    """What a measurement came to.

    Attributes:
        run: the run folder.
        results, answers, page: `results.json`, `answers.jsonl`, and the HTML page, in it.
        standing: all figures.
    """

    run: Path
    results: Path
    answers: Path
    page: Path
    standing: Standing


@dataclass(frozen=True)
class Work:
    """What every model is put through."""

    config: MeasureConfig
    blocks: tuple[Block, ...]
    used: tuple[UsedSet, ...]
    templates: Templates
    text: Text | None
    pairs: tuple[MinimalPair, ...]
    judge: Judge
    placement: Placement
    apart: str
    means: Means


@dataclass(frozen=True)
class Found:
    """What one model's stage found, as the journal has it.

    Attributes:
        keys: the journal's key of every answer, by block; None for a block that was not asked.
        vocabulary: hash of the tokenizer's vocabulary; empty of an endpoint.
        losses: mean negative log-likelihood of each window of text; tokens and bytes read.
        divergence: KL to the reference, a prompt; None where the vocabularies differ.
        pairs: for each minimal pair, whether it was told rightly.
    """

    keys: list[list[str | None] | None]
    vocabulary: str
    losses: list[float]
    tokens: int
    bytes: int
    divergence: list[float] | None
    pairs: list[bool]
    tasks: list[TaskScore]


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
    try:
        means = means or Means(device=config.device, dtype=config.dtype)
        means = replace(means, budget=Budget(caps))
        judge = judge or open_judge(config.judge, means)
        return _measure(config, run, narrator or Narrator(), judge, means, inspect)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            "Interrupted; everything finished so far is kept.",
            "Run the same command again to continue.",
        ) from interrupt


def _measure(
    config: MeasureConfig,
    run: Path | None,
    narrator: Narrator,
    judge: Judge,
    means: Means,
    inspect: bool,
) -> Measured:
    from demur.measured import DOCUMENTS, write_measured

    begun = time.monotonic()
    if config.lm_eval:
        require_harness()
    if inspect:
        from demur.inspect_log import require_inspect

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
                found[place] = _stage(work, entrant, folder, narrator, found.get(first))
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


def _stage(
    work: Work, entrant: Entrant, folder: RunFolder, narrator: Narrator, reference: Found | None
) -> Found:
    """Put one model through everything, unless an earlier try of this run did."""
    journal = folder.journal
    done = f"done/{entrant.label}/{entrant.weights or entrant.origin}"
    known = journal.fact(done)
    if known is None and entrant.endpoint is not None:
        known = _ask_remote(work, entrant, entrant.endpoint, journal, narrator)
        journal.keep_fact(done, known)
    if known is None:
        place = folder.path / "patched"
        chat = load_entrant(entrant, work.config, work.placement, place)
        known = _put_through(work, entrant, chat, journal, narrator, reference)
        del chat
        gc.collect()
        shutil.rmtree(place, ignore_errors=True)
        journal.keep_fact(done, known)
    tasks = [
        TaskScore(**{**task, "error": math.nan if task["error"] is None else task["error"]})
        for task in known["tasks"]
    ]
    return Found(**{**known, "tasks": tasks})


def _ask_remote(
    work: Work, entrant: Entrant, endpoint: Endpoint, journal: Journal, narrator: Narrator
) -> dict[str, Any]:
    """Put an endpoint through what can be asked of it."""
    means = work.means
    asker = Asker(endpoint, budget=means.budget, patience=means.patience, at_once=means.at_once)
    tokens = work.config.answer_tokens
    keys = ask_endpoint(asker, work.blocks, journal, tokens, narrator, entrant.label)
    return {
        "keys": keys,
        "vocabulary": "",
        "losses": [],
        "tokens": 0,
        "bytes": 0,
        "divergence": None,
        "pairs": [],
        "tasks": [],
    }


def _put_through(
    work: Work,
    entrant: Entrant,
    chat: ChatModel,
    journal: Journal,
    narrator: Narrator,
    reference: Found | None,
) -> dict[str, Any]:
    from demur.checkpoint.manifest import plain

    config, label = work.config, entrant.label
    keys = ask_all(chat, work.blocks, journal, config.answer_tokens, narrator, label)
    first = replace(chat, system=spoken(config.system[0]))
    vocabulary = content_key(sorted(chat.tokenizer.get_vocab().items()))
    losses, tokens, size = _perplexity(work, chat, journal, narrator, label)
    if reference is None:
        _keep_reference(work, first, keys, journal)
        divergence = None
    else:
        divergence = _divergence(chat, vocabulary, reference, journal)
    pairs: list[bool] = []
    if work.pairs:
        name = content_key("pairs", chat.identity, pairs_key(work.pairs))
        known = journal.fact(name)
        if known is None:
            with narrator.progress(f"{label}, minimal pairs", 2 * len(work.pairs)) as advance:
                known = judge_pairs(chat, work.pairs, advance)
            journal.keep_fact(name, known)
        pairs = known
    tasks: list[Any] = []
    if config.lm_eval:
        name = content_key("tasks", chat.identity, config.lm_eval, config.lm_eval_limit)
        tasks = journal.fact(name)
        if tasks is None:
            narrator.say(f"  {label}: {', '.join(config.lm_eval)} by lm-evaluation-harness")
            tasks = plain(run_tasks(chat, config.lm_eval, config.lm_eval_limit))
            journal.keep_fact(name, tasks)
    return {
        "keys": keys,
        "vocabulary": vocabulary,
        "losses": losses,
        "tokens": tokens,
        "bytes": size,
        "divergence": divergence,
        "pairs": pairs,
        "tasks": tasks,
    }


def _perplexity(
    work: Work, chat: ChatModel, journal: Journal, narrator: Narrator, label: str
) -> tuple[list[float], int, int]:
    """Return the loss of each window of text, and how many tokens and bytes were read."""
    from demur.measure.utility import WINDOW, negative_log_likelihoods
    from demur.models.chat_model import context_length

    if work.text is None:
        return [], 0, 0
    most = work.config.text_tokens
    name = content_key("losses", chat.identity, work.text.content, most)
    losses = journal.fact(name)
    if losses is None:
        with narrator.progress(f"{label}, perplexity", -(-most // WINDOW)) as advance:
            losses = negative_log_likelihoods(chat, work.text, tokens=most, advance=advance)
        journal.keep_fact(name, losses)
    ids = chat.tokenizer(work.text.content, add_special_tokens=False).input_ids[:most]
    width = min(WINDOW, context_length(chat.model))
    ids = ids[: len(ids) // width * width or len(ids)]
    return losses, len(ids), len(chat.tokenizer.decode(ids).encode())


def _reference_name(keys: Sequence[str]) -> str:
    return content_key("reference", list(keys))


def _along(work: Work, keys: Sequence[Sequence[str | None]]) -> list[str]:
    """Return the keys of the answers that divergence is measured along: ordinary, direct."""
    system = work.config.system[0]
    found = [
        key
        for block, part in zip(work.blocks, keys, strict=True)
        if (block.kind, block.attack, block.system) == ("ordinary", "direct", system)
        for key in part
        if key is not None
    ]
    return found[: work.config.divergence_prompts]


def _keep_reference(
    work: Work, chat: ChatModel, keys: Sequence[Sequence[str | None]], journal: Journal
) -> None:
    """Keep the reference's distributions, for the models to come."""
    from demur.measure.kept_reference import pack
    from demur.measure.utility import make_reference

    along = _along(work, keys)
    name = _reference_name(along)
    if len(work.config.models) > 1 and not journal.arrays([name]):
        known = journal.answers(along)
        made = make_reference(chat, [known[key] for key in along])
        journal.add_arrays([(name, pack(made))])
    journal.keep_fact("reference", name)


def _divergence(
    chat: ChatModel, vocabulary: str, reference: Found, journal: Journal
) -> list[float] | None:
    from demur.measure.kept_reference import unpack
    from demur.measure.utility import divergence

    if vocabulary != reference.vocabulary:
        return None
    name = journal.fact("reference")
    key = content_key("divergence", chat.identity, name)
    known = journal.fact(key)
    if known is None:
        known = divergence(chat, unpack(journal.arrays([name])[name]))
        journal.keep_fact(key, known)
    return [float(value) for value in known]
