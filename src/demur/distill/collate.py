"""Batches of lessons that waste little: left-padded behind the prefix that all chats share.

    batch = Collator(lessons, shared_prefix(model, lessons))([{"lesson": 0}, {"lesson": 1}])

Answers end at the right edge, so that one slice of the logits holds all of them. With `pairs`, the
rejected answers of the batch's lessons are rows of their own, below the others. Where several
answers follow one request, it is read once, as a *stem* that they branch from (unless `branch` is
off, since that takes a forward pass that other batches do without).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from demur.distill.lessons import Lesson
from demur.models.forward import can_share_prefix, common_prefix

IGNORED = -100


class Collator:
    """Left-pads lessons behind their shared prefix; answers end at the right edge."""

    def __init__(
        self,
        lessons: Sequence[Lesson],
        shared: int,
        texts: Sequence[Lesson] = (),
        *,
        step_texts: int = 1,
        pairs: bool = False,
        branch: bool = True,
    ) -> None:
        self.lessons = lessons
        self.shared = shared
        self.texts = texts
        self.step_texts = min(step_texts, len(texts))
        self.pairs = pairs
        self.branch = branch

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return tensors for an `Objective` from rows that name lessons, and the first of texts."""
        import torch

        lessons = [self.lessons[row["lesson"]] for row in rows]
        paired = [place for place, one in enumerate(lessons) if self.pairs and one.rejected]
        lessons += [
            replace(lessons[place], kind="answer", answer=lessons[place].rejected)
            for place in paired
        ]
        distinct = dict.fromkeys(lesson.prompt for lesson in lessons)
        prompts = {prompt: place for place, prompt in enumerate(distinct)}
        seen = torch.ones((len(lessons), self.shared), dtype=torch.long)
        begin, stems = self.shared, {}
        if self.branch and self.shared and len(prompts) < len(lessons):
            of = torch.tensor([prompts[lesson.prompt] for lesson in lessons])
            tokens = [prompt[self.shared : -1] for prompt in prompts]
            ids, mask, positions = _left_padded(tokens, seen[: len(prompts)])
            stems = {"stem": of, "stem_ids": ids, "stem_mask": mask, "stem_positions": positions}
            begin, seen = -1, mask[of]
        own = [(*lesson.prompt[begin:], *lesson.answer[:-1]) for lesson in lessons]
        ids, mask, positions = _left_padded(own, seen)
        longest = max(len(lesson.answer) for lesson in lessons)
        targets = torch.full((len(lessons), longest), IGNORED)
        for place, lesson in enumerate(lessons):
            targets[place, longest - len(lesson.answer) :] = torch.tensor(lesson.answer)
        batch = {
            "prefix": torch.tensor([lessons[0].prompt[: self.shared]]),
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            **stems,
            "labels": targets,
            "lesson": torch.tensor([row["lesson"] for row in rows]),
            "first": torch.tensor([longest - len(lesson.answer) for lesson in lessons]),
            "refuse": torch.tensor([lesson.kind == "refuse" for lesson in lessons]),
            "keep": torch.tensor([lesson.kind == "keep" for lesson in lessons]),
        }
        if paired:
            batch["pair"] = torch.tensor(paired)
            references = [lessons[place].reference for place in paired]
            batch["reference"] = torch.tensor([one or (0.0, 0.0) for one in references])
        anchored = [lesson for lesson in lessons if lesson.kind == "keep"]
        if anchored:
            top = anchored[0].candidates.shape[1]
            shape = (len(lessons), longest, top)
            batch["log_probabilities"] = torch.zeros(shape)
            batch["candidates"] = torch.zeros(shape, dtype=torch.long)
            for place, lesson in enumerate(lessons):
                if lesson.kind == "keep":
                    begin = longest - len(lesson.answer)
                    batch["log_probabilities"][place, begin:] = lesson.log_probabilities.float()
                    batch["candidates"][place, begin:] = lesson.candidates.long()
        texts = [
            self.texts[(row["text"] + place) % len(self.texts)]
            for row in rows
            if row.get("text", -1) >= 0
            for place in range(self.step_texts)
        ]
        if texts:
            batch["text_ids"] = torch.tensor([(*one.prompt, *one.answer[:-1]) for one in texts])
            batch["text_before"] = torch.stack([one.log_probabilities.float() for one in texts])
            batch["text_candidates"] = torch.stack([one.candidates.long() for one in texts])
        return batch


def _left_padded(rows: Sequence[Sequence[int]], seen: Any) -> tuple[Any, Any, Any]:
    """Return ids, the mask of them and of what each row has seen before, and their positions."""
    import torch

    width = max(map(len, rows))
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[place, width - len(row) :] = 1
    mask = torch.cat([seen, mask], dim=1)
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)[:, seen.shape[1] :]


def shared_prefix(model: Any, lessons: Sequence[Lesson]) -> int:
    """Return how many leading tokens all chats share, or 0 where the cache cannot share them."""
    chats = [lesson for lesson in lessons if lesson.kind != "text"]
    longest = max(len(one.prompt) + max(len(one.answer), len(one.rejected)) for one in chats)
    if not can_share_prefix(model, longest):
        return 0
    return common_prefix([lesson.prompt for lesson in chats])
