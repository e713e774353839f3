"""The trainer: TRL's SFTTrainer with demur's loss, and batches that waste little.

The loss of one lesson is cross-entropy over the tokens of a refusal, or of an answer where the
student used to refuse a benign request; on any other benign request it is KL(student before ||
student now) over the answer's tokens, times `keep_weight`. To both is added the *decision*,
`decision_weight` times softplus(1 - m) on harmful and softplus(1 + m) on benign requests, where m
is the log-probability of the likeliest first token of a refusal less that of the best other one:
greedy decoding refuses exactly where m > 0, while cross-entropy and KL would let it refuse a benign
request whose answers are many and each unlikely. The mean is taken over lessons, so that a long
answer weighs more than a short one. Every second step also reads one text that the student wrote of
itself, and adds its mean KL a token times `keep_weight * TEXT_WEIGHT`. What makes it quick: the
head is applied to answer positions only, the template's common beginning is computed once a batch,
and layers below the lowest trained one need no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl import SFTTrainer

from demur.distill.lessons import Lesson
from demur.models.forward import accepted, can_share_prefix, common_prefix, last_positions

IGNORED = -100
TEXT_WEIGHT = 8.0
TEXT_EVERY = 2


class Collator:
    """Left-pads lessons behind their shared prefix; answers end at the right edge."""

    def __init__(
        self, lessons: Sequence[Lesson], shared: int, texts: Sequence[Lesson] = ()
    ) -> None:
        self.lessons = lessons
        self.shared = shared
        self.texts = texts

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return tensors for `compute_loss` from rows that name lessons and texts."""
        import torch

        lessons = [self.lessons[row["lesson"]] for row in rows]
        own = [(*lesson.prompt[self.shared :], *lesson.answer[:-1]) for lesson in lessons]
        width = max(map(len, own))
        longest = max(len(lesson.answer) for lesson in lessons)
        ids = torch.zeros((len(rows), width), dtype=torch.long)
        mask = torch.zeros((len(rows), self.shared + width), dtype=torch.long)
        mask[:, : self.shared] = 1
        targets = torch.full((len(rows), longest), IGNORED)
        for place, (lesson, tokens) in enumerate(zip(lessons, own, strict=True)):
            ids[place, width - len(tokens) :] = torch.tensor(tokens)
            mask[place, self.shared + width - len(tokens) :] = 1
            targets[place, longest - len(lesson.answer) :] = torch.tensor(lesson.answer)
        batch = {
            "prefix": torch.tensor([lessons[0].prompt[: self.shared]]),
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, self.shared :],
            "labels": targets,
            "first": torch.tensor([longest - len(lesson.answer) for lesson in lessons]),
            "refuse": torch.tensor([lesson.kind == "refuse" for lesson in lessons]),
            "keep": torch.tensor([lesson.kind == "keep" for lesson in lessons]),
        }
        anchored = [lesson for lesson in lessons if lesson.kind == "keep"]
        if anchored:
            top = anchored[0].candidates.shape[1]
            shape = (len(rows), longest, top)
            batch["log_probabilities"] = torch.zeros(shape)
            batch["candidates"] = torch.zeros(shape, dtype=torch.long)
            for place, lesson in enumerate(lessons):
                if lesson.kind == "keep":
                    begin = longest - len(lesson.answer)
                    batch["log_probabilities"][place, begin:] = lesson.log_probabilities.float()
                    batch["candidates"][place, begin:] = lesson.candidates.long()
        texts = [self.texts[row["text"]] for row in rows if row.get("text", -1) >= 0]
        if texts:
            batch["text_ids"] = torch.tensor([(*one.prompt, *one.answer[:-1]) for one in texts])
            batch["text_before"] = torch.stack([one.log_probabilities.float() for one in texts])
            batch["text_candidates"] = torch.stack([one.candidates.long() for one in texts])
        return batch


class RefusalTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer with the loss of this module; takes a `Collator`'s batches."""

    keep_weight: float = 1.0
    decision_weight: float = 1.0
    refusal_tokens: tuple[int, ...] = ()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Return the mean loss of a batch of lessons; see the module's docstring."""
        logits = self._answer_logits(model, inputs)
        total = logits.logsumexp(-1)
        labels, keep = inputs["labels"], inputs["keep"][:, None]
        counted = labels != IGNORED
        chosen = logits.gather(2, labels.clamp(min=0)[..., None])[..., 0] - total
        loss = -chosen.where(counted & ~keep, 0.0).sum()
        if "candidates" in inputs:
            found = logits.gather(2, inputs["candidates"]) - total[..., None]
            divergence = self._divergence(found, inputs["log_probabilities"])
            loss = loss + self.keep_weight * divergence.where(counted & keep, 0.0).sum()
        if self.decision_weight and self.refusal_tokens:
            loss = loss + self.decision_weight * self._decision(logits, inputs)
        loss = loss / len(labels) / self.current_gradient_accumulation_steps
        if "text_ids" in inputs:  # in one of a step's forward passes at most
            loss = loss + self.keep_weight * TEXT_WEIGHT * self._text(model, inputs)
        return (loss, {}) if return_outputs else loss

    def _decision(self, logits: Any, inputs: dict[str, Any]) -> Any:
        """Return the summed loss of the decision at each answer's first token.

        Benign lessons whose own answer begins with a refusal's first token have none.
        """
        import torch
        from torch.nn.functional import softplus

        places, refuse = inputs["first"], inputs["refuse"]
        rows = torch.arange(len(places), device=places.device)
        first = logits[rows, places]
        tokens = torch.tensor(self.refusal_tokens, device=first.device)
        rival = first.index_fill(1, tokens, float("-inf")).amax(1)
        margin = first[:, tokens].amax(1) - rival
        same = torch.isin(inputs["labels"][rows, places], tokens)
        losses = softplus(1 - torch.where(refuse, margin, -margin))
        return losses[refuse | ~same].sum()

    def _text(self, model: Any, inputs: dict[str, Any]) -> Any:
        """Return the mean divergence a token on text outside a chat."""
        logits = model(input_ids=inputs["text_ids"], use_cache=False).logits.float()
        found = logits.gather(2, inputs["text_candidates"]) - logits.logsumexp(-1, keepdim=True)
        return self._divergence(found, inputs["text_before"]).mean()

    @staticmethod
    def _answer_logits(model: Any, inputs: dict[str, Any]) -> Any:
        """Return (rows, longest answer, vocabulary) float32 logits at answer positions."""
        from transformers import DynamicCache

        rows, longest = inputs["labels"].shape
        cache = None
        if inputs["prefix"].shape[1]:
            cache = DynamicCache(config=model.config)
            head = last_positions(model, inputs["prefix"].shape[1])
            model(inputs["prefix"], past_key_values=cache, use_cache=True, **head)
            cache.batch_repeat_interleave(rows)
        told = accepted(model, position_ids=inputs["position_ids"], past_key_values=cache)
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=cache is not None,
            **told,
            **last_positions(model, inputs["input_ids"].shape[1], longest),
        ).logits
        return logits[:, -longest:].float()

    @staticmethod
    def _divergence(found: Any, before: Any) -> Any:
        """Return KL(before || now) a position, on the likeliest tokens and the rest as one.

        Args:
            found: (..., k) log-probabilities of the student in training.
            before: (..., k) log-probabilities of the student before training, same tokens.
        """
        import torch

        kept = before.exp()
        rest = (1 - kept.sum(-1)).clamp(min=1e-5)
        other = torch.log1p(-found.exp().sum(-1).clamp(max=1 - 1e-5))
        return (kept * (before - found)).sum(-1) + rest * (rest.log() - other)


def shared_prefix(model: Any, lessons: Sequence[Lesson]) -> int:
    """Return how many leading tokens all chats share, or 0 where the cache cannot share them."""
    chats = [lesson for lesson in lessons if lesson.kind != "text"]
    longest = max(len(lesson.prompt) + len(lesson.answer) for lesson in chats)
    if not can_share_prefix(model, longest):
        return 0
    return common_prefix([lesson.prompt for lesson in chats])
