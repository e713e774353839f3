"""Another model of this machine or the hub as the teacher: its text, in its own template.

match = compare_vocabularies(student, teacher)      # can logits be compared token by token?
texts = Other(teacher, journal, "org/teacher").answers(prompts, advance)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from demur.console import Advance
from demur.models.chat_model import ChatModel
from demur.models.generation import Decoding, answer
from demur.prompts.types import Prompt
from demur.run.journal import Journal

TOKENS = 96
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class Other:
    """A teacher whose weights are at hand; a `Teacher`.

    Attributes:
        chat: the teacher, without any safety instruction but its own.
        name: as the user wrote it.
        tokens: the most of an answer.
    """

    chat: ChatModel
    journal: Journal
    name: str
    tokens: int = TOKENS

    def answers(self, prompts: Sequence[Prompt], advance: Advance) -> Mapping[str, str]:
        """As in `Teacher`; greedy.

        Raises:
            PromptError: a prompt is longer than the teacher's context.
        """
        texts = [prompt.text for prompt in prompts]
        said = answer(self.chat, texts, self.journal, Decoding(self.tokens), advance=advance)
        return {prompt.key: one.text for prompt, one in zip(prompts, said, strict=True)}


@dataclass(frozen=True)
class VocabularyMatch:
    """Whether a token id means the same to two models, and in words what differs.

    Attributes:
        same: every token of the student's has the same number in the teacher's vocabulary, and
            both end an answer with the same mark.
        sentence: what is the same and what is not.
    """

    same: bool
    sentence: str


def compare_vocabularies(student: ChatModel, teacher: ChatModel) -> VocabularyMatch:
    """Say whether two models' tokens are the same, so that logits can be compared one by one."""
    mine, theirs = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
    shared = mine.keys() & theirs.keys()
    moved = sum(mine[token] != theirs[token] for token in shared)
    special = [
        f"{name.removesuffix('_token')} {ours!r} and {other!r}"
        for name in _SPECIAL
        if (ours := getattr(student.tokenizer, name, None))
        != (other := getattr(teacher.tokenizer, name, None))
    ]
    said = f"; special tokens differ: {', '.join(special)}" if special else ""
    more = len(theirs) - len(shared)
    if len(shared) < len(mine) or moved:
        return VocabularyMatch(
            False,
            f"Student and teacher have different vocabularies ({len(mine):,} and {len(theirs):,} "
            f"tokens: {len(mine) - len(shared):,} only the student's, {more:,} only the "
            f"teacher's, {moved:,} under other numbers{said}).",
        )
    besides = f", and the teacher {more:,} more" if more else ""
    ending = bool(student.stops & teacher.stops)
    ends = "" if ending else ", but none that ends an answer of both"
    return VocabularyMatch(
        ending, f"Student and teacher have the same {len(mine):,} tokens{besides}{ends}{said}."
    )
