"""Distilling logits on the student's own samples: at every token, towards what the teacher thinks.

On-policy distillation (Agarwal et al. 2023, GKD, arXiv 2306.13649; with the reverse divergence,
MiniLLM, Gu et al. 2023, arXiv 2306.08543). Of each batch a share `on_policy` is answered by the
student as it is now, the rest by the lessons' fixed answers; at every token of an answer the loss
is the generalised Jensen-Shannon divergence between teacher and student, summed along the answer
(the divergence of sequences; TRL's GKD trainer divides it by the number of tokens) and averaged
over lessons. Nothing flows back through the draws.

The teacher sees its own context (`distill.contexts`), then the same answer tokens:

* without `teacher`, it is the student itself as it was before training. Told by its
  context what the student is not, it is a teacher of itself (context distillation, Askell et al.
  2021, Snell et al. 2022); told the right decision, it has privileged information (Vapnik and
  Vashist 2009, Lopez-Paz et al. 2016).
* with `teacher`, another model of the same vocabulary teaches where to refuse.

On benign requests the teacher is always the untouched student, without a context unless one is
given: the same formula that teaches refusals keeps the rest. A fixed answer whose lesson carries
the teacher's likeliest tokens (`own_answers`, `cached_logits`) costs no pass of the teacher; the
divergence is then taken over those tokens and the others as one, a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from demur.distill.collate import IGNORED, Collator, shared_prefix
from demur.distill.lessons import Lesson
from demur.distill.sampling import rollout
from demur.distill.scores import answer_logits, without_dropout
from demur.distill.untouched import is_there, untouched
from demur.errors import ConfigError, TrainingError

# Of a distribution cut to its likeliest tokens: less than half precision can tell from nothing.
LEAST_REST = 1e-5


@dataclass(frozen=True)
class Distilled:
    """The objective of this module.

    Attributes:
        lessons: those that batches name by their index.
        stops: token ids that end an answer.
        contexts: the teacher's prompt of a lesson, by index; where there is none, the lesson's.
        teacher: another model of the same vocabulary, frozen; None for the untouched student.
        on_policy: the share of answers that the student writes now (GKD's lambda).
        coefficient: of the divergence (GKD's beta): 0 is KL(teacher || student), 1 the reverse.
        keep_weight: the price of divergence on `keep` lessons.
        tokens: how far the student writes.

    Raises:
        ConfigError: a share or a coefficient outside [0, 1].
    """

    lessons: Sequence[Lesson]
    stops: frozenset[int]
    contexts: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    teacher: Any = None
    on_policy: float = 0.5
    coefficient: float = 0.5
    keep_weight: float = 1.0
    tokens: int = 24
    name: str = "logits"

    def __post_init__(self) -> None:
        for what, share in (("share", self.on_policy), ("coefficient", self.coefficient)):
            if not 0 <= share <= 1:
                raise ConfigError(
                    f"The {what} of logit distillation is {share:g}.", "Give a number from 0 to 1."
                )

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss a lesson; see the module's docstring.

        Raises:
            TrainingError: the untouched student is asked but not there any more, or the student's
                probabilities became NaN.
        """
        import torch

        indices = batch["lesson"].tolist()
        lessons = [self.lessons[index] for index in indices]
        answered, sampled = self._answered(model, lessons)
        cached = [
            lesson.log_probabilities is not None and not new
            for lesson, new in zip(lessons, sampled, strict=True)
        ]
        passes = []
        for teacher, rows in self._teachers(lessons, cached):
            if teacher is None and not is_there(model):
                raise TrainingError(
                    "The student is trained, and not there as it was to teach.",
                    "Train LoRA weights, or keep a copy of it with `untouched.remember`.",
                )
            taught = [
                replace(answered[row], prompt=self.contexts.get(indices[row], answered[row].prompt))
                for row in rows
            ]
            passes.append((rows, teacher_logits(model, taught, teacher)))
        marked = [
            replace(lesson, kind="keep" if known else "answer")
            for lesson, known in zip(answered, cached, strict=True)
        ]
        student = collated(model, marked)
        logits = answer_logits(model, student)
        weights = logits.new_tensor(
            [self.keep_weight if lesson.kind == "keep" else 1.0 for lesson in lessons]
        )
        counted = student["labels"] != IGNORED
        total = logits.new_zeros(())
        for rows, before in passes:
            places = torch.tensor(rows, device=logits.device)
            now = logits[places][counted[places]]
            price = generalised_jsd(now, before.to(now.device), self.coefficient)
            each = weights[places][:, None].expand(-1, counted.shape[1])[counted[places]]
            total = total + (each * price).sum()
        if any(cached):
            price = cached_jsd(logits, student, self.coefficient)
            known = counted & student["keep"][:, None]
            total = total + (weights[:, None] * price).where(known, 0.0).sum()
        return total / len(lessons)

    def _answered(
        self, model: Any, lessons: Sequence[Lesson]
    ) -> tuple[list[Lesson], Sequence[bool]]:
        """Return the lessons with the answers of this step, and which the student wrote."""
        import torch

        sampled = (torch.rand(len(lessons)) < self.on_policy).tolist()
        prompts = [lesson.prompt for lesson, new in zip(lessons, sampled, strict=True) if new]
        # A head that is padded more than another model's would draw what that one has not.
        width = self.teacher and int(self.teacher.config.get_text_config().vocab_size)
        written = rollout(model, prompts, self.tokens, self.stops, width=width) if prompts else ()
        drawn = iter(written)
        answered = [
            replace(lesson, answer=next(drawn), log_probabilities=None, candidates=None)
            if new
            else lesson
            for lesson, new in zip(lessons, sampled, strict=True)
        ]
        return answered, sampled

    def _teachers(
        self, lessons: Sequence[Lesson], cached: Sequence[bool]
    ) -> list[tuple[Any, list[int]]]:
        """Return who teaches which rows: (another model or None for the untouched student)."""
        asked = [row for row, known in enumerate(cached) if not known]
        if self.teacher is None:
            groups = [(None, asked)]
        else:
            refuse = [row for row in asked if lessons[row].kind == "refuse"]
            groups = [
                (self.teacher, refuse),
                (None, [row for row in asked if lessons[row].kind != "refuse"]),
            ]
        return [(teacher, rows) for teacher, rows in groups if rows]


def collated(model: Any, lessons: Sequence[Lesson]) -> dict[str, Any]:
    """Return a batch of these lessons on the model's device; answers end at the right edge."""
    batch = Collator(lessons, shared_prefix(model, lessons))(
        [{"lesson": row} for row in range(len(lessons))]
    )
    return {name: value.to(model.device) for name, value in batch.items()}


def teacher_logits(model: Any, lessons: Sequence[Lesson], teacher: Any = None) -> Any:
    """Return the teacher's logits at every answer token, row after row: (tokens, vocabulary).

    Args:
        model: the student, which is the teacher as it was before training where there is no other.
        lessons: with the prompts that the teacher sees; their own distributions are not used.
    """
    import torch

    bare = [
        replace(lesson, kind="answer", log_probabilities=None, candidates=None)
        for lesson in lessons
    ]
    with torch.no_grad():
        if teacher is not None:
            batch = collated(teacher, bare)
            logits = answer_logits(teacher, batch)
        else:
            batch = collated(model, bare)
            with untouched(model) as before, without_dropout(before):
                logits = answer_logits(before, batch)
        return logits[batch["labels"] != IGNORED]


def generalised_jsd(student: Any, teacher: Any, coefficient: float) -> Any:
    """Return the generalised Jensen-Shannon divergence a position (GKD, equation 1), in nats.

    With b the coefficient and M = b T + (1 - b) S it is b KL(T || M) + (1 - b) KL(S || M); at the
    ends, where that vanishes, KL(T || S) for 0 and KL(S || T) for 1.

    Args:
        student, teacher: (..., vocabulary) logits, or log-probabilities. Where one model's head is
            padded to a rounder number of tokens than the other's, what both have is compared.
    """
    import torch

    width = min(student.shape[-1], teacher.shape[-1])
    now = student[..., :width].float().log_softmax(-1)
    before = teacher[..., :width].float().log_softmax(-1)
    if coefficient == 0:
        return _divergence(before, now)
    if coefficient == 1:
        return _divergence(now, before)
    share = torch.tensor(coefficient, dtype=now.dtype, device=now.device)
    mixture = torch.logaddexp(before + share.log(), now + torch.log1p(-share))
    return share * _divergence(before, mixture) + (1 - share) * _divergence(now, mixture)


def _divergence(first: Any, second: Any) -> Any:
    return (first.exp() * (first - second)).sum(-1)


def cached_jsd(logits: Any, batch: dict[str, Any], coefficient: float) -> Any:
    """Return the divergence at every place of an answer from the teacher's likeliest tokens.

    All other tokens count as one, which can only make it smaller.

    Args:
        logits: (rows, longest answer, vocabulary) of the student.
        batch: as a `Collator` makes it, with `candidates` and their `log_probabilities`.
    """
    import torch

    found = logits.gather(2, batch["candidates"]) - logits.logsumexp(-1, keepdim=True)

    def whole(kept: Any) -> Any:
        rest = (1 - kept.exp().sum(-1, keepdim=True)).clamp(min=LEAST_REST)
        return torch.cat([kept, rest.log()], dim=-1)

    return generalised_jsd(whole(found), whole(batch["log_probabilities"]), coefficient)
