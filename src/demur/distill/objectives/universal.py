"""Universal logit distillation: from a teacher whose tokens are not the student's.

Boizard et al. 2024 (ULD, arXiv 2402.12030): probabilities of two vocabularies cannot be compared
token by token, but sorted they can. To the loss of supervised fine-tuning is added, at each place
of a refusal, the Wasserstein distance between the two sorted distributions under a cost of one for
any two tokens, which is

    sum over i of | p(i-th likeliest token of the student) - q(i-th likeliest of the teacher) |

with the smaller vocabulary padded with zeros. Which places belong together the paper leaves to
their number; here they are those before which both have written the same text, so that both say
what follows it. On benign requests nothing is added: the untouched student is what is kept there.

    rows = universal_rows(chat, teacher, lessons, requests)
    train(..., objective=Universal(supervised(lessons, recipe), teacher.model, rows))

What is learnt this way is how sure the teacher is at each place, not of which words: the words are
those of the lesson.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from demur.distill.contexts import Guide, begun_with, encode_in_context, require_room
from demur.distill.lessons import Lesson, ended_answer
from demur.distill.objectives.logits import teacher_logits
from demur.distill.objectives.sft import Supervised
from demur.distill.scores import answer_logits
from demur.models.chat_model import ChatModel


@dataclass(frozen=True)
class UniversalRow:
    """A lesson in the teacher's tokens.

    Attributes:
        lesson: the teacher's prompt and answer.
        pairs: (place in the student's answer, place in the teacher's) with the same text before.
    """

    lesson: Lesson
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Universal:
    """The objective of this module.

    Attributes:
        supervised: what is learnt from the lesson's words, and how the rest is kept.
        teacher: the other model, frozen.
        rows: the lessons that it teaches, by their index.
        weight: of the distance, beside the cross-entropy.
    """

    supervised: Supervised
    teacher: Any
    rows: Mapping[int, UniversalRow]
    weight: float = 1.0
    name: str = "universal"

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss a lesson; see the module's docstring."""
        logits = answer_logits(model, batch)
        loss = self.supervised.priced(logits, batch)
        taught = [
            (place, self.rows[index])
            for place, index in enumerate(batch["lesson"].tolist())
            if index in self.rows
        ]
        if not taught or not self.weight:
            return loss
        lessons = [row.lesson for _, row in taught]
        sure = teacher_logits(model, lessons, self.teacher).to(logits.device)
        parts = sure.split([len(lesson.answer) for lesson in lessons])
        total = logits.new_zeros(())
        for (place, row), part in zip(taught, parts, strict=True):
            first = int(batch["first"][place])
            mine = [first + student for student, _ in row.pairs]
            total = total + universal_distance(logits[place, mine], part[[t for _, t in row.pairs]])
        return loss + self.weight * total / len(batch["labels"])


def universal_distance(student: Any, teacher: Any) -> Any:
    """Return the distance between sorted probabilities, summed over places (ULD, equation 5).

    Args:
        student: (places, vocabulary) logits; teacher: (places, other vocabulary) logits.
    """
    from torch.nn.functional import pad

    now = student.float().softmax(-1).sort(-1, descending=True).values
    sure = teacher.float().softmax(-1).sort(-1, descending=True).values
    width = max(now.shape[-1], sure.shape[-1])
    now, sure = (pad(one, (0, width - one.shape[-1])) for one in (now, sure))
    return (now - sure).abs().sum()


def aligned(
    student: Any, answer: Sequence[int], teacher: Any, other: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """Return the places in two spellings of one answer with the same text before them, in order.

    Args:
        student, teacher: tokenizers, of `answer` and of `other`.
    """

    def before(tokenizer: Any, tokens: Sequence[int]) -> dict[str, int]:
        found: dict[str, int] = {}
        for place in range(len(tokens)):
            found.setdefault(tokenizer.decode(list(tokens[:place])), place)
        return found

    mine, theirs = before(student, answer), before(teacher, other)
    return tuple((place, theirs[text]) for text, place in mine.items() if text in theirs)


def universal_rows(
    chat: ChatModel,
    teacher: ChatModel,
    lessons: Sequence[Lesson],
    requests: Sequence[str],
    guide: Guide | None = None,
) -> dict[int, UniversalRow]:
    """Return each `refuse` lesson in the teacher's tokens, by index.

    Args:
        lessons: cut or whole; of a cut one the places that are left are taught.
        requests: the request of each lesson; only those of `refuse` lessons are read.
        guide: what the teacher sees around the request (`distill.contexts`); nothing by default.

    Raises:
        TrainingError: a lesson is not of its request, or the teacher's context is too short.
    """
    rows: dict[int, UniversalRow] = {}
    for index, (lesson, request) in enumerate(zip(lessons, requests, strict=True)):
        if lesson.kind != "refuse":
            continue
        begun = chat.tokenizer.decode(list(begun_with(chat, lesson, request)))
        text = chat.decode(lesson.answer)
        context = guide(lesson, text) if guide else None
        if context is None:
            prompt = tuple(teacher.encode(request))
        else:
            prompt = encode_in_context(teacher, request, context)
        prompt = (*prompt, *teacher.tokenizer(begun, add_special_tokens=False).input_ids)
        answer = ended_answer(teacher, request, text)
        require_room(teacher, prompt, answer)
        pairs = aligned(chat.tokenizer, lesson.answer, teacher.tokenizer, answer)
        rows[index] = UniversalRow(Lesson("refuse", prompt, answer), pairs)
    return rows
