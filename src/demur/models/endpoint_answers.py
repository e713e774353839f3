"""Answers of a model behind an endpoint, kept in the journal: as `generation.answer` for weights.

    asker = Asker(parse_endpoint("openai:gpt-4o-mini"))
    answers = endpoint_answers(asker, prompts, journal, Decoding(tokens=200))

Each answer is written to the journal the moment it comes, so that an endpoint that goes away
costs nothing that was paid for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from demur.errors import EndpointError
from demur.models.asking import Asker
from demur.models.endpoint import Question
from demur.models.generation import Decoding
from demur.run.journal import Answer, Journal, content_key


def identity(asker: Asker, system: str = "") -> str:
    """Return the hash of all that decides an answer but the prompt: place, model, system prompt."""
    return content_key("endpoint", asker.endpoint.name, system)


def endpoint_answers(
    asker: Asker,
    prompts: Sequence[str],
    journal: Journal,
    decoding: Decoding,
    *,
    system: str = "",
    advance: Callable[[int], None] = lambda count: None,
) -> list[Answer]:
    """Return the model's answers to `prompts`, from the journal where they are known.

    Args:
        decoding: how answers are written; an opening cannot be put into an endpoint's mouth.
        system: a system prompt, or an empty string for none.
        advance: called with the number of answers that have just become known.

    Returns:
        One answer a prompt, in order; their token ids are empty, and `finished` is False where
        the endpoint cut the answer off.

    Raises:
        EndpointError: a prompt could not be answered, or an opening was asked for; all answers
            that came are kept.
    """
    if decoding.opening:
        raise EndpointError(
            f"{asker.endpoint.spec} does not let its answers be opened for it.",
            "Leave the prefill attack out, or measure the model's weights.",
        )
    settings = {"tokens": decoding.tokens, "opening": "", "greedy": True}
    who = identity(asker, system)
    keys = [content_key(who, prompt, settings) for prompt in prompts]
    known = journal.answers(keys)
    advance(sum(key in known for key in keys))
    missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in known}
    rows = list(missing.items())
    questions = [
        Question(user=prompt, system=system, tokens=decoding.tokens) for prompt in missing.values()
    ]
    for index, reply in asker.ask_all(questions):
        key, prompt = rows[index]
        fresh = Answer(key, prompt, reply.text.strip(), (), reply.finished)
        if reply.filtered:
            journal.keep_fact(_filter_fact(key), True)
        journal.add_answers([fresh], who, settings)
        known[key] = fresh
        advance(keys.count(key))
    return [known[key] for key in keys]


def was_filtered(journal: Journal, answer: Answer) -> bool:
    """Return whether an endpoint's content filter withheld this answer, or cut it.

    Args:
        answer: as `endpoint_answers` returned it.
    """
    return not answer.finished and bool(journal.fact(_filter_fact(answer.key)))


def _filter_fact(key: str) -> str:
    return f"filtered/{key}"
