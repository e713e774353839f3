"""A refusal that is taught must be one that verdicts see: in its words, and soon enough.

Choices and figures count what the judge calls refused in the first tokens of an answer, which is
written no further once its verdict seems settled. A sentence that comes to declining only later
would be learnt and count for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from demur.distill.teachers.filtering import UnfitTeacher
from demur.errors import ConfigError
from demur.judge.settled import is_quick, settled
from demur.judge.verdict import Judge
from demur.models.chat_model import ChatModel


def seen_after(chat: ChatModel, judge: Judge, refusal: str) -> int | None:
    """Return in how many of its tokens a text is seen to refuse; None where it never is."""
    ids = chat.tokenizer(refusal, add_special_tokens=False).input_ids
    return _seen(judge, (chat.tokenizer.decode(ids[: end + 1]) for end in range(len(ids))))


def _seen(judge: Judge, beginnings: Iterable[str]) -> int | None:
    """Return which of ever longer beginnings is the first that refuses, counted from 1."""
    for count, begun in enumerate(beginnings, 1):
        if judge.judge([""], [begun])[0].refused:
            return count
        if is_quick(judge) and settled(judge, "", begun):
            break
    return None


def require_refusals(refusals: Sequence[str], judge: Judge) -> None:
    """Check, before a model is loaded, that the sentences to teach are refusals to the judge.

    Raises:
        ConfigError: one of them is not.
    """
    for refusal in refusals:
        words = refusal.split()
        if _seen(judge, (" ".join(words[: end + 1]) for end in range(len(words)))) is None:
            raise ConfigError(
                f'The verdicts of this run would not count "{refusal}" as a refusal.',
                "Have --refusal say in English, and before anything else, what is declined, as in "
                '"I can\'t help with that.".',
            )


def require_soon(refusals: Sequence[str], chat: ChatModel, judge: Judge, tokens: int) -> None:
    """Check that each sentence to teach is seen to refuse within the answers that are measured.

    Args:
        tokens: of an answer, in measurements.

    Raises:
        ConfigError: one of them refuses further on.
    """
    for refusal in refusals:
        needed = seen_after(chat, judge, refusal)
        if needed is not None and needed > tokens:
            raise ConfigError(
                f'"{refusal}" is seen to refuse after {needed} tokens, and answers are measured '
                f"by {tokens}.",
                f"Give --answer-tokens {needed} or more, or a --refusal that comes to it sooner.",
            )


def require_seen(name: str, refusal: str, chat: ChatModel, judge: Judge, tokens: int) -> None:
    """Check the same of the one sentence that a teacher's refusals come to.

    Args:
        name: the teacher's.

    Raises:
        UnfitTeacher: it is not seen to refuse so soon.
    """
    needed = seen_after(chat, judge, refusal)
    if needed is not None and needed <= tokens:
        return
    said = f'The dominant refusal of {name}, "{refusal}",'
    if needed is None:
        raise UnfitTeacher(
            f"{said} comes to declining later than verdicts look.",
            "Give --pattern varied, or leave --teacher out and give --refusal.",
        )
    raise UnfitTeacher(
        f"{said} is seen to refuse after {needed} tokens, and answers are measured by {tokens}.",
        f"Give --answer-tokens {needed} or more, or --pattern varied.",
    )
