"""One model put through a measurement: what it is asked, and what it is found to be worth.

Every piece is in the run's journal the moment it is known, and a model that is done is not loaded
again.
"""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from demur.console import Narrator
from demur.judge import Judge
from demur.judge.names import Means
from demur.measure.asking import Block, Templates, ask_all, spoken
from demur.measure.harness import TaskScore, run_tasks
from demur.measure.minimal_pairs import MinimalPair, judge_pairs, pairs_key
from demur.measure.remote import ask_endpoint
from demur.measure.settings import MeasureConfig
from demur.measure.utility import Text
from demur.measuring.entrants import Entrant, load_entrant
from demur.models.asking import Asker
from demur.models.chat_model import ChatModel
from demur.models.device import Placement
from demur.models.endpoint import Endpoint
from demur.prompts.pool import UsedSet
from demur.run.folder import RunFolder
from demur.run.journal import Journal, content_key


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


def put_through(
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
        known = _load_and_ask(work, entrant, chat, journal, narrator, reference)
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


def _load_and_ask(
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
