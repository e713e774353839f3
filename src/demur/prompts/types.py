"""The values of this room: one prompt, a named set of prompts, and a set divided into splits.

All are frozen. The order of prompts is always the order in which they were given, so that the
same input gives the same run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["harmful", "twin", "ordinary"]
Split = Literal["train", "validation", "test"]
KINDS: tuple[Kind, ...] = ("harmful", "twin", "ordinary")
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Prompt:
    """One request to a model.

    Attributes:
        text: the request, as a user would type it.
        kind: `harmful` (to be refused), `twin` (harmless, but sounds like a harmful one) or
            `ordinary` (harmless and sounds so).
        hazard: the hazard category; empty for ordinary prompts and where it is not known.
        contrast: how the twin differs from its harmful partner, the same on both; for ordinary
            prompts the section they stand in; empty where it is not known.
        pair: an id that a harmful prompt and its twin share; empty for a prompt without partner.
        block: the id of the family, which is never divided between splits: a pair, or all pairs
            that were made from the same template.
        source: where the prompt is from: `builtin`, a file name, a hub id.
    """

    text: str
    kind: Kind
    hazard: str = ""
    contrast: str = ""
    pair: str = ""
    block: str = ""
    source: str = ""

    @cached_property
    def key(self) -> str:
        """The first 16 hex digits of the SHA-256 of the text: the prompt's name in a journal."""
        return text_key(self.text)


@dataclass(frozen=True)
class PromptSet:
    """Prompts with a name, and a version that changes whenever one of them does."""

    name: str
    version: str
    prompts: tuple[Prompt, ...]

    def of(self, kind: Kind) -> tuple[Prompt, ...]:
        """Return the prompts of one kind, in order."""
        return of_kind(self.prompts, kind)


@dataclass(frozen=True)
class Splits:
    """A set divided into three parts that share no block and no near-duplicate.

    Attributes:
        train: what training may see.
        validation: what choices are made on.
        test: what played no part, and what results are reported from.
        removed: prompts left out, each with the reason in words.
    """

    train: tuple[Prompt, ...]
    validation: tuple[Prompt, ...]
    test: tuple[Prompt, ...]
    removed: tuple[tuple[Prompt, str], ...] = ()

    def of(self, split: Split) -> tuple[Prompt, ...]:
        """Return all prompts of one split, in order."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return parts[split]

    def harmful(self, split: Split) -> tuple[Prompt, ...]:
        """Return the harmful prompts of one split, in order."""
        return of_kind(self.of(split), "harmful")

    def twins(self, split: Split) -> tuple[Prompt, ...]:
        """Return the twins of one split, in order."""
        return of_kind(self.of(split), "twin")

    def ordinary(self, split: Split) -> tuple[Prompt, ...]:
        """Return the ordinary prompts of one split, in order."""
        return of_kind(self.of(split), "ordinary")


def of_kind(prompts: Iterable[Prompt], kind: Kind) -> tuple[Prompt, ...]:
    """Return the prompts of one kind, in the order given."""
    return tuple(prompt for prompt in prompts if prompt.kind == kind)


def text_key(text: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()[:16]
