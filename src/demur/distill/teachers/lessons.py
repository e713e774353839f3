"""Lessons of a teacher's refusals: each harmful request with a text of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from demur.distill.lessons import Lesson, ended_answer
from demur.errors import TrainingError
from demur.models.chat_model import ChatModel
from demur.prompts.types import Prompt


def taught_lessons(
    chat: ChatModel, prompts: Sequence[Prompt], texts: Mapping[str, str]
) -> list[Lesson]:
    """Return one `refuse` lesson a prompt that has a text, in the prompts' order.

    Args:
        chat: the student, whose template and end mark are used.
        texts: refusals, by the prompts' keys.

    Raises:
        TrainingError: a text is empty.
    """
    ended: dict[str, tuple[int, ...]] = {}
    lessons = []
    for prompt in prompts:
        if prompt.key not in texts:
            continue
        text = texts[prompt.key].strip()
        if not text:
            raise TrainingError(
                "A teacher's refusal is empty.", "Leave it out, or give a sentence in its place."
            )
        if text not in ended:
            ended[text] = ended_answer(chat, prompt.text, text)
        request = tuple(chat.encode(prompt.text))
        lessons.append(Lesson("refuse", request, ended[text], request=prompt.text))
    return lessons
