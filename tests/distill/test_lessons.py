"""Lessons: refusals that end as the template ends them, and the student's own distributions."""

from __future__ import annotations

import pytest
import torch
from tests.distill.students import student
from tests.models.test_chat_model import ALWAYS_THINKING, QWEN3
from tests.models.test_generation import Counted
from tests.tiny import CHAT_TEMPLATE

from demur.distill import lessons as room
from demur.distill.lessons import (
    CANDIDATES,
    SETTLED_BY,
    TEXT_TOKENS,
    WHOLE_EVERY,
    Lesson,
    beginning_of_text,
    ended_answer,
    mostly_openings,
    own_answers,
    refusing_lessons,
    sorted_by_verdict,
    text_lessons,
)
from demur.errors import TrainingError
from demur.judge import OpeningJudge
from demur.judge.verdict import Verdict
from demur.models.chat_model import TEMPLATES
from demur.models.generation import SETTLED_EVERY, Decoding, answer
from demur.prompts.types import Prompt
from demur.run.journal import Journal

REFUSAL = "Sorry, but I can't help with that."
GEMMA = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] | trim + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DROPS_THOUGHTS = ALWAYS_THINKING
BENIGN = [
    Prompt(text, "ordinary")
    for text in ("How do I bake bread?", "Why?", "Tell me what the weather is like.", "And now?")
]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, QWEN3, GEMMA, DROPS_THOUGHTS])
@pytest.mark.parametrize("system", [None, "Be kind."])
def test_an_answer_ends_with_the_templates_own_mark(template, system):
    chat = student(template=template, system=system)
    ids = ended_answer(chat, "How?", REFUSAL)
    assert ids[-1] == 2
    assert ids.count(2) == 1
    assert chat.tokenizer.decode(ids) == REFUSAL + "<|im_end|>"


def test_the_mark_is_the_templates_where_the_model_has_several():
    template = CHAT_TEMPLATE.replace("<|im_end|>", "<|endoftext|>")
    chat = student(template=template)
    chat._stops = frozenset({0, 2, 7})
    assert ended_answer(chat, "How?", REFUSAL)[-1] == 0


def test_a_template_without_mark_gets_the_tokenizers():
    chat = student(template=TEMPLATES["plain"])
    chat._stops = frozenset({2, 9})
    ids = ended_answer(chat, "How?", REFUSAL)
    assert ids[-1] == 2
    assert chat.text("How?") + chat.tokenizer.decode(ids[:-1]) == (
        "User: How?\nAssistant: " + REFUSAL
    )


def test_refusing_lessons():
    chat = student()
    prompts = [Prompt("Do harm.", "harmful"), Prompt("Do more harm.", "harmful")]
    made = refusing_lessons(chat, prompts, [REFUSAL])
    assert [lesson.prompt for lesson in made] == [tuple(chat.encode(p.text)) for p in prompts]
    assert {lesson.answer for lesson in made} == {ended_answer(chat, "x", REFUSAL)}
    assert {lesson.kind for lesson in made} == {"refuse"}
    assert refusing_lessons(chat, [], [REFUSAL]) == []
    with pytest.raises(TrainingError, match="refusal is empty"):
        refusing_lessons(chat, prompts, [REFUSAL, " \n"])


def test_several_refusals_are_shared_out_by_the_prompt_alone():
    chat = student()
    prompts = [Prompt(f"Do harm {number}.", "harmful") for number in range(40)]
    refusals = [REFUSAL, "No, I will not do that.", "This is not something I help with."]
    made = refusing_lessons(chat, prompts, refusals)
    counts = [
        sum(lesson.answer == ended_answer(chat, "x", refusal) for lesson in made)
        for refusal in refusals
    ]
    assert sum(counts) == 40 and min(counts) > 5
    assert refusing_lessons(chat, prompts[::-1], refusals) == made[::-1]


def test_own_answers_hold_the_students_own_distribution(tmp_path):
    chat, journal = student(), Journal(tmp_path / "journal.sqlite")
    made = own_answers(chat, BENIGN, journal, 6, lambda count: None)
    texts = [prompt.text for prompt in BENIGN]
    answers = answer(chat, texts, journal, Decoding(6))
    assert [lesson.answer for lesson in made] == [one.tokens for one in answers]
    for lesson, prompt in zip(made, BENIGN, strict=True):
        assert lesson.kind == "keep"
        assert lesson.prompt == tuple(chat.encode(prompt.text))
        ids = torch.tensor([[*lesson.prompt, *lesson.answer]])
        logits = chat.model(ids).logits[0, len(lesson.prompt) - 1 : -1]
        best = logits.log_softmax(-1).topk(CANDIDATES)
        assert lesson.log_probabilities.shape == (len(lesson.answer), CANDIDATES)
        assert lesson.log_probabilities.dtype == torch.float16
        assert torch.allclose(lesson.log_probabilities.float(), best.values, atol=1e-2)
        direct = logits.log_softmax(-1).gather(1, lesson.candidates.long())
        assert torch.allclose(lesson.log_probabilities.float(), direct, atol=1e-2)


def test_own_answers_go_on_from_the_journal(tmp_path, monkeypatch):
    chat, journal = student(), Journal(tmp_path / "journal.sqlite")
    advanced: list[int] = []
    first = own_answers(chat, BENIGN[:2], journal, 4, advanced.append)
    with Counted(chat.model) as counted:
        second = own_answers(chat, BENIGN, journal, 4, advanced.append)
    assert counted.calls > 0
    assert sum(advanced) == 2 + 4
    journal.close()
    journal = Journal(tmp_path / "journal.sqlite")
    monkeypatch.setattr(room, "decode_all", None)  # would fail if it were called
    with Counted(chat.model) as counted:
        third = own_answers(chat, BENIGN, journal, 4, advanced.append)
    assert counted.calls == 0
    assert sum(advanced) == 2 + 4 + 4
    for early, late in ((first, second[:2]), (second, third)):
        for one, other in zip(early, late, strict=True):
            assert (one.prompt, one.answer) == (other.prompt, other.answer)
            assert torch.equal(one.log_probabilities, other.log_probabilities)
            assert torch.equal(one.candidates, other.candidates)


def test_lessons_in_over_refusal_are_left_out():
    chat = student()

    def lesson(text: str) -> Lesson:
        return Lesson("keep", (1,), tuple(chat.tokenizer(text).input_ids))

    texts = ["Take the flour first.", "I can’t help with that.", "", "Sorry, but I cannot assist."]
    made = [lesson(text) for text in texts]
    kept, refused = sorted_by_verdict(chat, BENIGN, made, OpeningJudge())
    assert kept == made[:1]
    assert refused == [BENIGN[1], BENIGN[3]]


def test_a_refused_request_gets_an_own_answer_behind_a_helpful_opening(tmp_path):
    chat = student()
    journal = Journal(tmp_path / "journal.sqlite")
    lessons = own_answers(chat, BENIGN[:2], journal, 4, lambda count: None, opening="Here is")
    begun = tuple(chat.tokenizer("Here is", add_special_tokens=False).input_ids)
    for prompt, lesson in zip(BENIGN, lessons, strict=False):
        assert lesson.kind == "answer"
        assert lesson.log_probabilities is None
        assert lesson.prompt == tuple(chat.encode(prompt.text))
        assert lesson.answer[: len(begun)] == begun
        assert len(lesson.answer) > len(begun)
    journal.close()


@pytest.mark.parametrize(("refuse", "keep"), [(2, 3), (1, 5)])
def test_one_lesson_of_several_stays_whole(refuse, keep):
    def lesson(number: int) -> Lesson:
        prompt, answer = (1, number), tuple(range(number, number + 1 + number % 7))
        if number % 2:
            return Lesson("refuse", prompt, answer)
        values = torch.randn(len(answer), 4).half()
        return Lesson("keep", prompt, answer, values, torch.arange(4).expand(len(answer), 4).int())

    whole = [lesson(number) for number in range(23)]
    answers = [one.answer for one in whole]
    cut = mostly_openings(whole, refuse, keep)
    assert [one.answer for one in whole] == answers
    assert len(cut) == len(whole)
    for number, (one, before) in enumerate(zip(cut, whole, strict=True)):
        settled = len(before.answer) <= SETTLED_BY
        if not settled if before.kind == "keep" else number % WHOLE_EVERY == 0:
            assert one is before
            continue
        length = refuse if before.kind == "refuse" else keep
        assert (one.kind, one.prompt) == (before.kind, before.prompt)
        assert one.answer == before.answer[:length]
        if before.kind == "keep":
            assert torch.equal(one.log_probabilities, before.log_probabilities[:length])
            assert torch.equal(one.candidates, before.candidates[:length])
    assert mostly_openings(whole)[1].answer == whole[1].answer[:1]
    assert mostly_openings(whole)[2].answer == whole[2].answer[:1]
    assert mostly_openings(whole)[6].answer == whole[6].answer  # seven tokens: never settled
    assert mostly_openings([]) == []


def test_own_answers_end_when_it_is_settled_that_they_answer(tmp_path):
    chat = student()
    journal = Journal(tmp_path / "journal.sqlite")
    asked: list[str] = []

    class Judging:
        name, description, quick = "judging-1", "for this test", True

        def judge(self, prompts, answers):
            asked.extend(answers)
            return [Verdict("refused") for _ in answers]

    prompts = [Prompt(f"request {number}", "ordinary") for number in range(WHOLE_EVERY + 2)]
    silent = own_answers(chat, prompts, journal, 9, lambda count: None)
    judged = own_answers(chat, prompts, journal, 9, lambda count: None, judge=Judging())
    for index, (one, whole) in enumerate(zip(judged, silent, strict=True)):
        cut = len(whole.answer) > SETTLED_EVERY and index % WHOLE_EVERY != 0
        assert one.answer == (whole.answer[:SETTLED_EVERY] if cut else whole.answer)
        assert len(one.log_probabilities) == len(one.answer)
    assert asked
    journal.close()


def test_text_lessons_are_what_the_student_writes_of_itself(tmp_path):
    chat = student()
    journal = Journal(tmp_path / "journal.sqlite")
    texts = text_lessons(chat, 3, journal, seed=0)
    assert [one.kind for one in texts] == ["text"] * 3
    one = texts[0]
    assert len(one.prompt) + len(one.answer) == TEXT_TOKENS
    with torch.no_grad():
        logits = chat.model(torch.tensor([[*one.prompt, *one.answer[:-1]]])).logits[0]
    expected = logits.log_softmax(-1).gather(1, one.candidates.long())
    assert torch.allclose(one.log_probabilities.float(), expected, atol=2e-3)
    with Counted(chat.model) as counted:
        again = text_lessons(chat, 3, journal, seed=0)
    assert counted.calls == 0
    assert [one.answer for one in again] == [one.answer for one in texts]
    assert text_lessons(chat, 0, journal, seed=0) == []


def test_a_text_does_not_begin_as_a_turn_does():
    chat = student()
    turn = chat.tokenizer.convert_tokens_to_ids("<|im_start|>")
    chat.tokenizer.bos_token = "<|im_start|>"
    assert chat.encode("Hello").count(turn) > 1
    assert beginning_of_text(chat) not in (turn, None)
