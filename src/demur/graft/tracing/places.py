"""Places in a prompt: where the template ends and the request begins, and the groups of tokens.

Places are counted from the end, so that one place means the same in prompts of all lengths, and in
a harmful request and its shorter or longer twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demur.models.forward import common_prefix

GROUPS = (
    "request, first token",
    "request, middle",
    "request, last token",
    "template after it",
    "last token",
)
MOST = 32  # places of a map by tokens
PROBES = ("a", "Zebra?", "7 + 7", "Who\u2019s there", "b.")


@dataclass(frozen=True)
class Template:
    """The tokens that the chat template puts around every request."""

    head: tuple[int, ...]
    tail: tuple[int, ...]

    def request(self, ids: Sequence[int]) -> tuple[int, int]:
        """Return where the request begins and ends in a templated prompt.

        Tokens that are made of template and request alike count as the request's.
        """
        start = _agreement(self.head, ids)
        left = _agreement(self.tail[::-1], ids[start:][::-1])
        return start, len(ids) - left


def _agreement(one: Sequence[int], other: Sequence[int]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


def template_of(chat: Any) -> Template:
    """Return what a chat model's template puts around requests, found by asking it a few."""
    encoded = [chat.encode(probe) for probe in PROBES]
    head = encoded[0][: common_prefix(encoded)]
    rests = [ids[len(head) :][::-1] for ids in encoded]
    tail = rests[0][: common_prefix(rests)][::-1]
    return Template(tuple(head), tuple(tail))


@dataclass(frozen=True)
class Place:
    """Some tokens of every prompt.

    Attributes:
        name: for readers.
        spans: of each pair (start, stop), counted from the prompt's end: -1, 0 is the last token.
            An empty span where the pair has no such tokens.
    """

    name: str
    spans: tuple[tuple[int, int], ...]


def groups(requests: Sequence[int], tails: Sequence[int]) -> tuple[Place, ...]:
    """Return the places of `GROUPS`.

    Args:
        requests: tokens of each request; of a pair, those that both have.
        tails: tokens of the template after each.
    """
    spans: list[list[tuple[int, int]]] = [[] for _ in GROUPS]
    for request, tail in zip(requests, tails, strict=True):
        start, end, last = -tail - request, -tail, -1 if tail else 0
        first = min(start + 1, end)
        final = max(end - 1, first)
        for place, span in zip(
            spans,
            ((start, first), (first, final), (final, end), (end, last), (last, 0)),
            strict=True,
        ):
            place.append(span)
    return tuple(
        Place(name, tuple(span))
        for name, span in zip(GROUPS, spans, strict=True)
        if any(start < stop for start, stop in span)
    )


def tokens(requests: Sequence[int], tails: Sequence[int]) -> tuple[Place, ...]:
    """Return a place for each token, counted from the end, as far as any pair reaches."""
    reach = [request + tail for request, tail in zip(requests, tails, strict=True)]
    return tuple(
        Place(
            f"token {offset}",
            tuple((offset, offset + 1) if -offset <= far else (0, 0) for far in reach),
        )
        for offset in range(-min(MOST, max(reach)), 0)
    )
