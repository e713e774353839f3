"""How a student is trained: the recipe, and what follows from it without a model.

The order of lessons is fixed by the seed, so that a training that goes on takes the very steps
that it would have taken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from demur.distill.lessons import Lesson

OPENING = 4


@dataclass(frozen=True)
class Recipe:
    """How a student is trained; the defaults are those that measured best (docs/results).

    Attributes:
        full: train the weights of the layers themselves (`whole`) and no LoRA; what is said of
            LoRA below has then no meaning.
        rank: LoRA rank; the scaling is 1 (alpha = rank).
        informed: requests of each side that LoRA's beginning is drawn from (`initialise`); 0 for
            LoRA's usual random beginning.
        first_layer, last_layer: the trained layers as fractions of the model's depth.
        learning_rate: of AdamW for the up-projections, with a short warm-up and a cosine descent
            to a twentieth; down_share of it for the down-projections. For full fine-tuning some
            fiftieth of what LoRA takes.
        batch: lessons a step; micro_batch: lessons a forward pass.
        epochs: how often each lesson is seen.
        keep_weight: the price of divergence on benign requests.
        text_weight: how many times that price divergence has on texts outside a chat.
        step_texts: how many of those, the student's own, a step reads.
        decision_weight: the weight of the first token's decision; see `objectives.sft`.
        on_policy, divergence: the share of answers that the student writes in training, and the
            coefficient of the divergence from the teacher; see `objectives.logits`.
        checkpoints: how often it is written down, to go on from and to choose from.
        seed: of the order of lessons and of LoRA's initial weights.
        objective: one of `objectives.OBJECTIVES`; what follows is theirs (`objectives.make`).
        beta: how departing from the student is held in: see `objectives.dpo` and
            `objectives.policy`, each of which has a default of its own.
        sft_weight, normalised: of direct preference.
        samples, sample_tokens, guided: of reinforcement.
        over_refusal_price: what refusing a benign request costs, where helping earns 1.
    """

    full: bool = False
    rank: int = 8
    informed: int = 200
    first_layer: float = 0.4
    last_layer: float = 1.0
    learning_rate: float = 1e-3
    down_share: float = 0.2
    batch: int = 16
    micro_batch: int = 16
    epochs: int = 1
    keep_weight: float = 1.0
    step_texts: int = 8
    text_weight: float = 24.0
    decision_weight: float = 1.0
    on_policy: float = 0.5
    divergence: float = 0.5
    checkpoints: int = 3
    seed: int = 0
    objective: str = "sft"
    beta: float | None = None
    sft_weight: float = 1.0
    normalised: bool = False
    samples: int = 4
    sample_tokens: int = 24
    guided: int = 1
    over_refusal_price: float = 1.0


def trained_layers(depth: int, recipe: Recipe) -> list[int]:
    """Return the indices of the layers that the recipe trains in a model of `depth` layers."""
    first = min(round(recipe.first_layer * depth), depth - 1)
    last = max(first + 1, round(recipe.last_layer * depth))
    return list(range(first, min(last, depth)))


def micro_batch(recipe: Recipe, processes: int = 1) -> int:
    """Return the lessons of a forward pass: as many as allowed that divide a step evenly.

    Args:
        processes: how many share a step's lessons, each as many.
    """
    share = recipe.batch // processes
    most = min(recipe.micro_batch, share)
    return next(rows for rows in range(most, 0, -1) if share % rows == 0)


def lesson_order(lessons: Sequence[Lesson], recipe: Recipe) -> list[int]:
    """Return the order of lessons over all epochs: mixed, but of like length within a batch."""
    generator = random.Random(recipe.seed)
    order: list[int] = []
    pool = recipe.batch * 16

    def shape(index: int) -> tuple[bool, int]:
        # The head is applied to as many positions of every row as the longest answer has.
        lesson = lessons[index]
        return max(len(lesson.answer), len(lesson.rejected)) > OPENING, len(lesson.prompt)

    for _ in range(recipe.epochs):
        indices = [index for index, lesson in enumerate(lessons) if lesson.kind != "text"]
        generator.shuffle(indices)
        batches: list[list[int]] = []
        for start in range(0, len(indices), pool):
            part = sorted(indices[start : start + pool], key=shape)
            batches += [part[i : i + recipe.batch] for i in range(0, len(part), recipe.batch)]
        full = [batch for batch in batches if len(batch) == recipe.batch] or batches
        generator.shuffle(full)
        order += [index for batch in full for index in batch]
    return order
