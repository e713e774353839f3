"""Greedy decoding of any number of requests, kept as it goes: the one place where a model writes.

What makes it quick on small machines: requests are read in batches of like length, so that little
is padded; the tokens that all of them begin with (the template's head and system prompt) are
computed once and their keys and values shared; the head is applied to last positions only; rows
that have ended, or whose verdict is settled, make room for others (`decoding`). What makes it safe:
who is decoded beside whom depends on nothing but the list of requests, so that a run that was
killed and started again writes the same, and each window of requests reaches the journal in one
transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from demur.errors import ModelError
from demur.models.chat_model import ChatModel
from demur.models.decoding import SETTLED_EVERY, Settled, Written, decode
from demur.models.forward import accepted, common_prefix, shared_cache
from demur.run.journal import Answer, Journal, content_key

if TYPE_CHECKING:
    import torch

__all__ = ["SETTLED_EVERY", "Decoding", "Written", "answer", "decode_all", "write_freely"]

# Tokens of keys and values held at once (24 MiB a thousand on a 135M model); requests read at once.
BUDGET_CPU, BUDGET_GPU = 8192, 65536
TOGETHER_CPU, TOGETHER_GPU = 16, 64
ROWS_CPU, ROWS_GPU = 64, 256  # answers written at once: what a GPU waits for is launches
WINDOW = 2  # times as many requests as rows reach the journal at once


@dataclass(frozen=True)
class Decoding:
    """How answers are written; part of the journal's keys.

    Attributes:
        tokens: at most so many new tokens.
        opening: words put into the model's mouth, from which the answer continues.
        until: name of the judge whose settled verdict ends an answer; empty where none does.
    """

    tokens: int = 32
    opening: str = ""
    until: str = ""


def decode_all(
    chat: ChatModel,
    requests: Sequence[Sequence[int]],
    tokens: int,
    *,
    rows: int = 0,
    candidates: int = 0,
    settled: Settled | None = None,
    done: frozenset[int] = frozenset(),
) -> Iterator[list[tuple[int, Written]]]:
    """Yield windows of (index, written) over all requests, the shortest first.

    A window whose requests are all in `done` is passed over. Windows are made over the whole
    list, so that what remains is decoded in the same company as without interruption.

    Args:
        rows: how many answers are written at once, at most; by default what suits the device.
        settled: as in `decode`, told the index of a request.

    Raises:
        ModelError: not even one request fits into memory, or the architecture has a cache of a
            kind of its own.
    """
    import torch

    if not requests:
        return
    if not accepted(chat.model, past_key_values=None):
        raise ModelError(
            f"The architecture {chat.model.config.model_type} keeps no key-value cache of the kind "
            "that demur decodes with.",
            "Use a model of another architecture.",
        )
    shared = common_prefix(requests)
    with torch.inference_mode():
        longest = max(map(len, requests)) + tokens
        cache = shared_cache(chat.model, requests[0][:shared], longest)
    on_gpu = chat.placement.device == "cuda"
    rows = rows or (ROWS_GPU if on_gpu else ROWS_CPU)
    by_length = sorted(range(len(requests)), key=lambda index: (len(requests[index]), index))
    window = rows * WINDOW
    for start in range(0, len(by_length), window):
        indices = by_length[start : start + window]
        if all(index in done for index in indices):
            continue
        part = partial(
            decode,
            chat.model,
            [requests[index] for index in indices],
            tokens,
            chat.stops,
            cache=cache,
            shared=shared,
            budget=BUDGET_GPU if on_gpu else BUDGET_CPU,
            candidates=candidates,
            settled=settled and partial(_of_request, settled, indices),
        )
        written = _in_memory(part, rows, TOGETHER_GPU if on_gpu else TOGETHER_CPU)
        yield list(zip(indices, written, strict=True))


def _in_memory(decode: Callable[..., list[Written]], rows: int, together: int) -> list[Written]:
    """Call `decode` with as many rows at once as the device holds, at most `rows`."""
    import torch

    while True:
        try:
            return decode(rows=rows, together=together)
        except torch.OutOfMemoryError as error:
            if rows == 1:
                raise ModelError(
                    "The device's memory does not hold one prompt beside the model.",
                    "Use a device with more memory, or --device cpu.",
                ) from error
        rows //= 2
        together = min(together, rows)


def _of_request(settled: Settled, indices: Sequence[int], row: int, new: Sequence[int]) -> bool:
    return settled(indices[row], new)


def write_freely(model: Any, first: int, rows: int, tokens: int, seed: int) -> torch.Tensor:
    """Sample text as the model writes it of itself: no chat, no template, temperature 1.

    Args:
        first: the token id that every row begins with.
        rows, tokens: how many texts, and how long each is, `first` included.
        seed: of the draws, which are made on the CPU so that they are the same on every device.

    Returns:
        (rows, tokens) token ids, on the CPU.
    """
    import torch
    from transformers import DynamicCache

    generator = torch.Generator().manual_seed(seed)
    written = torch.full((rows, 1), first)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        while written.shape[1] < tokens:
            logits = model(
                written[:, -1:].to(model.device),
                attention_mask=torch.ones_like(written).to(model.device),
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
            chances = logits.float().softmax(-1).cpu()
            written = torch.cat([written, chances.multinomial(1, generator=generator)], dim=1)
    return written


def answer(
    chat: ChatModel,
    prompts: Sequence[str],
    journal: Journal,
    decoding: Decoding,
    *,
    advance: Callable[[int], None] = lambda count: None,
    settled: Callable[[str, str], bool] | None = None,
    openings: Sequence[Sequence[int]] | None = None,
) -> list[Answer]:
    """Return the model's answers to `prompts`, from the journal where they are known.

    Args:
        journal: holds finished answers; new ones are written window by window.
        settled: told a prompt and the answer so far, says whether the verdict on it is settled;
            `decoding.until` must then name the judge.
        advance: called with the number of answers that have just become known.
        openings: token ids that stand before each answer and are no part of it.
    """
    settings: dict[str, Any] = {
        "tokens": decoding.tokens,
        "opening": decoding.opening,
        "greedy": True,
    }
    if decoding.until:
        settings["until"] = decoding.until
    begun = openings or [()] * len(prompts)
    keys = [
        content_key(chat.identity, prompt, settings, *([list(own)] if own else ()))
        for prompt, own in zip(prompts, begun, strict=True)
    ]
    known = journal.answers(keys)
    advance(sum(key in known for key in keys))
    done = frozenset(index for index, key in enumerate(keys) if key in known)
    if len(done) < len(keys):
        requests = [
            [*chat.encode(prompt, decoding.opening), *own]
            for prompt, own in zip(prompts, begun, strict=True)
        ]

        def ends(index: int, new: Sequence[int]) -> bool:
            return settled is not None and settled(prompts[index], chat.decode(tuple(new)))

        for batch in decode_all(
            chat, requests, decoding.tokens, settled=ends if settled else None, done=done
        ):
            fresh = [
                Answer(
                    keys[index],
                    prompts[index],
                    chat.decode(written.tokens),
                    written.tokens,
                    written.finished,
                )
                for index, written in batch
                if index not in done
            ]
            journal.add_answers(fresh, chat.identity, settings)
            known.update({one.key: one for one in fresh})
            advance(len(fresh))
    return [known[key] for key in keys]
