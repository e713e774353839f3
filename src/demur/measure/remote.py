"""Asking a model behind an endpoint: the same blocks, kept in the same journal as they come.

An endpoint's answers cannot be begun for it in a way that all servers understand, so that the
prefill attack is not made on it. It gives no probabilities either: it has no utility figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demur.console import Narrator
from demur.measure.asking import Ask, Block, spoken
from demur.models.asking import Asker
from demur.models.endpoint import Question
from demur.run.journal import Answer, Journal, content_key

CHUNK = 32  # answers in one transaction: those that may be lost with the process


def ask_endpoint(
    asker: Asker,
    blocks: Sequence[Block],
    journal: Journal,
    tokens: int,
    narrator: Narrator,
    label: str,
) -> list[list[str | None] | None]:
    """Put the blocks to an endpoint, and return the journal's key of every answer.

    Returns:
        A list a block with a key an ask; None for a block that begins the answer.

    Raises:
        EndpointError: it cannot be asked, or the budget is spent; what came is kept.
    """
    name = asker.endpoint.name

    def key_of(block: Block, ask: Ask) -> str:
        settings = {"tokens": tokens, "system": block.system}
        return content_key("endpoint", name, ask.text, settings)

    keys: list[list[str | None] | None] = [
        None
        if any(ask.opening for ask in block.asks)
        else [key_of(block, ask) for ask in block.asks]
        for block in blocks
    ]
    wanted = {
        key_of(block, ask): (block, ask)
        for block, part in zip(blocks, keys, strict=True)
        if part is not None
        for ask in block.asks
    }
    known = journal.answers(wanted)
    missing = [(key, *found) for key, found in wanted.items() if key not in known]
    with narrator.progress(f"{label}, answers", len(wanted)) as advance:
        advance(len(known))
        for start in range(0, len(missing), CHUNK):
            _ask(asker, missing[start : start + CHUNK], journal, tokens, advance)
    return keys


def _ask(
    asker: Asker,
    part: Sequence[tuple[str, Block, Ask]],
    journal: Journal,
    tokens: int,
    advance: Callable[[int], None],
) -> None:
    """Ask some questions; what came before a failure is kept."""
    questions = [
        Question(user=ask.text, system=spoken(block.system) or "", tokens=tokens)
        for _, block, ask in part
    ]
    came: dict[str, list[Answer]] = {}
    try:
        for place, reply in asker.ask_all(questions):
            key, block, ask = part[place]
            answer = Answer(key, ask.text, reply.text.strip(), (), reply.finished)
            came.setdefault(block.system, []).append(answer)
            advance(1)
    finally:
        for system, answers in came.items():
            settings = {"tokens": tokens, "system": system, "greedy": True}
            journal.add_answers(answers, asker.endpoint.name, settings)
