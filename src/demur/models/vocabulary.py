"""A model's vocabulary as its tokenizer has it, and what two of them have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from demur.errors import ModelError
from demur.models.config import check_tokenizer

AGREEING = 0.9


@dataclass(frozen=True)
class Vocabulary:
    """Tokens and their numbers, added ones too, and the chat template, if there is one."""

    tokens: Mapping[str, int]
    template: str | None

    @property
    def highest(self) -> int:
        """The highest number of a token, or -1."""
        return max(self.tokens.values(), default=-1)


@dataclass(frozen=True)
class Overlap:
    """What two vocabularies have in common.

    Attributes:
        same: tokens that have the same number in both.
        moved: numbers that stand for another token in the second.
        only_first, only_second: tokens that the other does not have at all.
        agree: whether they can be taken for one vocabulary: at least nine in ten tokens of the
            smaller have the same number in the larger.
    """

    same: int
    moved: tuple[int, ...]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    agree: bool


def read_vocabulary(folder: Path) -> Vocabulary:
    """Return the vocabulary of the tokenizer in `folder`.

    Raises:
        ModelError: there is no tokenizer, or it cannot be read.
    """
    from transformers import AutoTokenizer

    check_tokenizer(folder, folder.name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(
            f"The tokenizer of {folder.name} cannot be read ({error}).",
            "Put the tokenizer files of the model that it was made from beside its weights.",
        ) from error
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return Vocabulary(dict(tokenizer.get_vocab()), template or None)


def compare_vocabularies(first: Vocabulary, second: Vocabulary) -> Overlap:
    """Return what two vocabularies have in common."""
    same = sum(second.tokens.get(token) == number for token, number in first.tokens.items())
    others = {number: token for token, number in second.tokens.items()}
    smaller = min(len(first.tokens), len(second.tokens))
    return Overlap(
        same=same,
        moved=tuple(
            sorted(
                number
                for token, number in first.tokens.items()
                if number in others and others[number] != token
            )
        ),
        only_first=_only(first.tokens, second.tokens),
        only_second=_only(second.tokens, first.tokens),
        agree=same >= AGREEING * smaller,
    )


def _only(tokens: Mapping[str, int], others: Mapping[str, int]) -> tuple[str, ...]:
    lacking = [token for token in tokens if token not in others]
    return tuple(sorted(lacking, key=lambda token: tokens[token]))
