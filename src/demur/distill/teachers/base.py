"""What all teachers have in common: a name, and answers to prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from demur.console import Advance
from demur.prompts.types import Prompt


class Teacher(Protocol):
    """Anything whose answers to requests can be asked for; whether they refuse is not its word."""

    @property
    def name(self) -> str:
        """What it is, in a few words, for the user."""

    def answers(self, prompts: Sequence[Prompt], advance: Advance) -> Mapping[str, str]:
        """Return the answers' texts by the prompts' keys, each from the journal where it is known.

        A prompt to which there is no answer (a content filter) is left out.
        """
