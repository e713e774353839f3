"""What is asked of every model, and asking one of them: blocks of prompts under one condition.

A block is one set, or a sample of the harmful prompts under an attack. All models are asked the
same texts, so that their answers are paired. Prompts that do not fit into a model's context are
not asked of it; they count as undecided, and are counted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from demur.console import Narrator
from demur.errors import ConfigError, PromptError
from demur.judge.kept import judge_kept
from demur.judge.verdict import Judge, Verdict
from demur.measure.settings import MeasureConfig
from demur.models.chat_model import ChatModel, context_length
from demur.models.generation import Decoding, answer
from demur.prompts.attacks import has_place, prefill_for, with_template
from demur.prompts.pool import UsedSet, pooled
from demur.prompts.split import evenly
from demur.prompts.tables import read_table
from demur.prompts.types import Prompt
from demur.run.journal import Answer, Journal, content_key

OWN, NONE = "template", "none"
TEMPLATE_COLUMNS = ("template", "prompt", "text", "jailbreak")
UNASKED = Verdict("undecided", "longer than the model's context")
SPARE = 512  # tokens that a template's frame has at most, for telling quickly what surely fits


@dataclass(frozen=True)
class Ask:
    """One request as it is put: `text` is the prompt, or the prompt in a jailbreak template."""

    prompt: Prompt
    text: str
    opening: str = ""


@dataclass(frozen=True)
class Block:
    """Requests under one condition; fields as in `Row`."""

    key: str
    set: str
    kind: str
    attack: str
    system: str
    asks: tuple[Ask, ...]


@dataclass(frozen=True)
class Outcome:
    """One answer with its verdict; `answer` is None where the prompt did not fit."""

    answer: Answer | None
    verdict: Verdict


@dataclass(frozen=True)
class Templates:
    """Jailbreak templates that were drawn, and what is said of them."""

    texts: tuple[str, ...]
    sentence: str


def read_templates(source: str | None, count: int, seed: int) -> Templates:
    """Draw templates from a user's file; those without a place for the request are left out.

    Raises:
        PromptError: the file cannot be read, has no column of templates, or none has a place.
    """
    if source is None:
        return Templates((), "")
    table = read_table(Path(source).expanduser())
    names = [c for name in TEMPLATE_COLUMNS for c in table.columns if c.strip().lower() == name]
    if not names:
        raise PromptError(
            f"'{table.name}' has no column of templates (it has: {', '.join(table.columns)}).",
            "Name the column 'template'.",
        )
    found = [row.get(names[0]) for _, row in table.rows]
    texts = list(dict.fromkeys(text for text in found if isinstance(text, str) and text.strip()))
    usable = [text for text in texts if has_place(text)]
    if not usable:
        raise PromptError(
            f"None of the {len(texts)} templates in '{table.name}' has a place for the request.",
            "Write {prompt} or [INSERT PROMPT HERE] where the request belongs.",
        )
    drawn = random.Random(seed).sample(usable, min(count, len(usable)))
    left = f"; {len(texts) - len(usable)} have no place for the request" * (usable != texts)
    return Templates(
        tuple(drawn), f"{len(drawn)} of {len(usable)} templates of {Path(source).name}{left}"
    )


def make_blocks(
    config: MeasureConfig, used: Sequence[UsedSet], templates: Templates
) -> tuple[Block, ...]:
    """Return all that every model is asked: each set under each system prompt, then the attacks."""
    blocks = []
    for number, system in enumerate(config.system):
        mark = f"@{number}" if number else ""
        for each in used:
            asks = tuple(Ask(prompt, prompt.text) for prompt in each.prompts)
            key = f"direct{mark}/{each.source.key}"
            blocks.append(Block(key, each.source.key, each.source.kind, "direct", system, asks))
    harmful = [used[number].prompts[place] for number, place in pooled(used, "harmful")]
    first = config.system[0]
    forced = tuple(
        Ask(prompt, prompt.text, prefill_for(index))
        for index, prompt in enumerate(evenly(harmful, config.prefill, config.seed))
    )
    wrapped: tuple[Ask, ...] = ()
    if templates.texts:
        wrapped = tuple(
            Ask(prompt, with_template(prompt.text, templates.texts[i % len(templates.texts)]))
            for i, prompt in enumerate(evenly(harmful, config.template_prompts, config.seed))
        )
    for attack, asks in (("prefill", forced), ("templates", wrapped)):
        if asks:
            key = f"{attack}/pooled:harmful"
            blocks.append(Block(key, "pooled", "harmful", attack, first, asks))
    return tuple(blocks)


def blocks_key(blocks: Sequence[Block]) -> str:
    """Return a hash of all that is asked, for a run's identity."""
    return content_key(
        [[block.key, block.system, [[a.text, a.opening] for a in block.asks]] for block in blocks]
    )


def ask_all(
    chat: ChatModel,
    blocks: Sequence[Block],
    journal: Journal,
    tokens: int,
    narrator: Narrator,
    label: str,
) -> list[list[str | None]]:
    """Put all blocks to one model, and return the journal's key of every answer.

    Requests that differ in nothing but their text are decoded together, so that batches are full.

    Returns:
        A list a block with a key an ask; None where the prompt is longer than the context.
    """
    keys: list[list[str | None]] = [[None] * len(block.asks) for block in blocks]
    groups: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for i, block in enumerate(blocks):
        for j, ask in enumerate(block.asks):
            groups.setdefault((block.system, ask.opening), []).append((i, j))
    total = sum(map(len, groups.values()))
    with narrator.progress(f"{label}, answers", total) as advance:
        for (system, opening), places in groups.items():
            speaker = replace(chat, system=spoken(system))
            fit = [p for p in places if _fits(speaker, blocks[p[0]].asks[p[1]])]
            advance(len(places) - len(fit))
            texts = [blocks[i].asks[j].text for i, j in fit]
            found = answer(speaker, texts, journal, Decoding(tokens, opening), advance=advance)
            for (i, j), one in zip(fit, found, strict=True):
                keys[i][j] = one.key
    return keys


def spoken(system: str) -> str | None:
    """Return the system prompt as `ChatModel` takes it."""
    return {OWN: None, NONE: ""}.get(system, system)


def _fits(chat: ChatModel, ask: Ask) -> bool:
    """Return whether a request fits into the context; tokens are never more than bytes."""
    length = len(ask.text.encode("utf-8", "replace")) + len(chat.system or "") + len(ask.opening)
    if length + SPARE < context_length(chat.model):
        return True
    try:
        chat.encode(ask.text, ask.opening)
    except PromptError:
        return False
    return True


def judge_all(
    blocks: Sequence[Block],
    keys: Sequence[Sequence[str | None] | None],
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
    label: str,
) -> list[list[Outcome] | None]:
    """Return every answer with its verdict; the judge reads the request, not the template.

    A block that was not asked at all has None in place of its outcomes.

    Raises:
        ConfigError: the judge does not tell whether an answer refuses.
    """
    answers = journal.answers(key for part in keys for key in part or () if key is not None)
    outcomes: list[list[Outcome] | None] = []
    with narrator.progress(f"{label}, verdicts", len(answers)) as advance:
        for block, part in zip(blocks, keys, strict=True):
            if part is None:
                outcomes.append(None)
                continue
            asked = [(ask, key) for ask, key in zip(block.asks, part, strict=True) if key]
            verdicts = judge_kept(
                judge,
                [ask.prompt.text for ask, _ in asked],
                [answers[key].text for _, key in asked],
                [key for _, key in asked],
                journal,
                advance=advance,
            )
            if any(verdict.outcome is None for verdict in verdicts):
                raise ConfigError(
                    f"The judge {judge.name} does not tell whether an answer refuses.",
                    "Measure with one that does; judge the answers for harm afterwards.",
                )
            by_key = dict(zip([key for _, key in asked], verdicts, strict=True))
            outcomes.append(
                [Outcome(answers[k], by_key[k]) if k else Outcome(None, UNASKED) for k in part]
            )
    return outcomes
