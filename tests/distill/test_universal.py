"""Universal logits: sorted probabilities, compared where both have written the same text."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.distill.students import CPU, student
from tests.distill.test_logits import along, batch_of
from tests.models.architectures import tiny
from tests.tiny import CHAT_TEMPLATE

from demur.distill.contexts import Context, hinted
from demur.distill.lessons import refusing_lessons
from demur.distill.objectives import Supervised
from demur.distill.objectives.universal import (
    Universal,
    aligned,
    universal_distance,
    universal_rows,
)
from demur.errors import TrainingError
from demur.models.chat_model import ChatModel
from demur.prompts.types import Prompt

REFUSAL = "Sorry, but I can't help with that."
PROMPTS = [Prompt("Do harm.", "harmful"), Prompt("Do more harm, and then some.", "harmful")]


def by_letters() -> Any:
    """Return a tokenizer of bytes alone, whose token ids are none of the student's."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    marks = ["<|im_end|>", "<|im_start|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)
    backend = Tokenizer(BPE({token: place for place, token in enumerate([*alphabet, *marks])}, []))
    backend.add_special_tokens(marks)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=marks[0], chat_template=CHAT_TEMPLATE
    )


def other_teacher() -> ChatModel:
    tokenizer = by_letters()
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return ChatModel(None, tiny("gpt2"), tokenizer, CPU, "t", _stops=frozenset({stop}))  # type: ignore


def test_the_distance_by_hand():
    student = torch.tensor([[0.1, 0.7, 0.2], [1.0, 1e-9, 1e-9]]).log()
    teacher = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1e-9, 1e-9, 1.0, 1e-9]]).log()
    expected = (0.7 - 0.25) + (0.25 - 0.2) + (0.25 - 0.1) + 0.25
    assert universal_distance(student, teacher).item() == pytest.approx(expected, abs=1e-5)
    assert universal_distance(teacher, student).item() == pytest.approx(expected, abs=1e-5)


def test_the_distance_is_that_of_trls_gold_trainer():
    from trl.experimental.gold.gold_config import GOLDConfig
    from trl.experimental.gold.gold_trainer import ULDLoss

    config = GOLDConfig(
        output_dir="unused",
        use_cpu=True,
        bf16=False,
        report_to=[],
        use_extended_uld=False,
        uld_crossentropy_weight=0.0,
        uld_distillation_weight=1.0,
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
    )
    generator = torch.Generator().manual_seed(0)
    student, teacher = (2 * torch.randn((1, 6, n), generator=generator) for n in (30, 45))
    labels = torch.tensor([[-100, -100, 3, 4, 5, 6]])
    theirs = ULDLoss(config)(student, teacher, labels, labels, labels, labels)
    # Their places are the answer's own; ours those that predict them. Here both are given alike.
    places = [2, 3, 4, 5]
    found = universal_distance(student[0, places], teacher[0, places])
    assert found.item() / 4 == pytest.approx(theirs.item(), rel=1e-5)


def test_places_belong_together_where_the_same_text_stands_before_them():
    mine, theirs = student().tokenizer, by_letters()
    answer = mine(REFUSAL, add_special_tokens=False).input_ids
    other = theirs(REFUSAL, add_special_tokens=False).input_ids
    assert len(other) == len(REFUSAL) > len(answer)
    pairs = aligned(mine, answer, theirs, other)
    assert [place for place, _ in pairs] == list(range(len(answer)))
    for place, there in pairs:
        assert mine.decode(answer[:place]) == REFUSAL[:there]
    assert aligned(mine, answer, mine, answer) == tuple((i, i) for i in range(len(answer)))
    assert aligned(theirs, other, mine, answer) == tuple((b, a) for a, b in pairs)


@pytest.mark.parametrize("guide", [None, lambda lesson, answer: Context(note=f"Say {answer}")])
def test_the_loss_by_its_definition(guide):
    chat, teacher = student(), other_teacher()
    begun = chat.tokenizer("Here is how", add_special_tokens=False).input_ids
    lessons = refusing_lessons(chat, PROMPTS, [REFUSAL])
    deep = lessons[1].__class__("refuse", (*lessons[1].prompt, *begun), lessons[1].answer)
    lessons = [lessons[0], deep]
    rows = universal_rows(chat, teacher, lessons, [one.text for one in PROMPTS], guide)
    spelt = teacher.tokenizer.decode(rows[1].lesson.prompt)
    assert spelt.endswith("assistant\nHere is how")
    assert (f"Say {REFUSAL}" in spelt) == (guide is not None)
    assert rows[0].lesson.answer[-1] in teacher.stops
    supervised = Supervised((lessons[0].answer[0],))
    batch = batch_of(chat.model, lessons)
    model = chat.model.requires_grad_(True)
    found = Universal(supervised, teacher.model, rows, 0.7).loss(model, batch)
    expected = supervised.loss(model, batch)
    for index, lesson in enumerate(lessons):
        row = rows[index]
        now = along(model, lesson.prompt, lesson.answer)
        with torch.no_grad():
            sure = along(teacher.model, row.lesson.prompt, row.lesson.answer)
        assert len(row.pairs) == len(lesson.answer)
        for mine, theirs in row.pairs:
            distance = universal_distance(now[mine][None], sure[theirs][None])
            expected = expected + 0.7 * distance / len(lessons)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    assert found.item() > supervised.loss(model, batch).item() + 0.1
    found.backward()
    assert model.lm_head.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in teacher.model.parameters())


def test_only_refusals_are_taught_and_a_wrong_request_is_noticed():
    chat, teacher = student(), other_teacher()
    lessons = refusing_lessons(chat, PROMPTS, [REFUSAL])
    kept = lessons[0].__class__("keep", lessons[0].prompt, (5,))
    assert set(universal_rows(chat, teacher, [kept, lessons[1]], ["", PROMPTS[1].text])) == {1}
    with pytest.raises(TrainingError, match="do not belong together"):
        universal_rows(chat, teacher, lessons, [PROMPTS[1].text, PROMPTS[0].text])
    with pytest.raises(TrainingError, match="the model's holds 256"):
        universal_rows(chat, teacher, lessons, [one.text for one in PROMPTS], hinted)
    batch = batch_of(chat.model, lessons)
    bare = Universal(Supervised(), teacher.model, {})
    with torch.no_grad():
        assert bare.loss(chat.model, batch).item() == Supervised().loss(chat.model, batch).item()
