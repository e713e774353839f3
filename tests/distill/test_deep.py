"""Deep refusals: what the answer begins with is context; the refusal and the decision follow it."""

from __future__ import annotations

import pytest
import torch
from tests.distill.students import made_lessons, student
from tests.models.architectures import tiny

from demur.distill.collate import Collator, shared_prefix
from demur.distill.deep import (
    MOST,
    begun_tokens,
    complying_answers,
    continued,
    deep_lessons,
)
from demur.distill.lessons import Lesson, refusing_lessons
from demur.distill.objectives.sft import decision
from demur.distill.scores import answer_logits
from demur.errors import TrainingError
from demur.judge.verdict import Verdict
from demur.models.generation import decode
from demur.prompts.types import Prompt
from demur.run.journal import Journal

REFUSAL = "Sorry, but I can't help with that."
PROMPTS = [Prompt(f"Do harm number {number}.", "harmful") for number in range(300)]
OWN = [tuple(range(10, 10 + MOST)) for _ in PROMPTS]


def test_half_refuse_at_once_and_the_others_after_one_to_twenty_tokens():
    chat = student()
    deep = deep_lessons(chat, PROMPTS, OWN, [REFUSAL], seed=3)
    plain = refusing_lessons(chat, PROMPTS, [REFUSAL])
    depths = [len(d.prompt) - len(p.prompt) for d, p in zip(deep, plain, strict=True)]
    assert 120 <= depths.count(0) <= 180
    assert set(depths) == set(range(MOST + 1))
    for new, old, depth in zip(deep, plain, depths, strict=True):
        assert new.kind == "refuse"
        assert new.prompt == (*old.prompt, *OWN[0][:depth])
        assert new.answer == old.answer
    # A prompt's depth is its own: it depends on neither order nor company.
    assert deep_lessons(chat, PROMPTS[5:], OWN[5:], [REFUSAL], seed=3) == deep[5:]
    assert deep_lessons(chat, PROMPTS, OWN, [REFUSAL], seed=4) != deep


def test_short_and_missing_answers_and_other_depths():
    chat = student()
    own = [() if number % 2 else (7, 8) for number in range(len(PROMPTS))]
    deep = deep_lessons(chat, PROMPTS, own, [REFUSAL], seed=0, at_once=0.0)
    plain = refusing_lessons(chat, PROMPTS, [REFUSAL])
    for number, (new, old) in enumerate(zip(deep, plain, strict=True)):
        begun = new.prompt[len(old.prompt) :]
        assert begun == () if number % 2 else begun in {(7,), (7, 8)}
    assert {begun_tokens(0, str(name), 3, 0.0) for name in range(50)} == {1, 2, 3}
    assert {begun_tokens(0, str(name), 3, 1.0) for name in range(50)} == {0}
    with pytest.raises(TrainingError, match="There are 1 answers to 300 harmful requests"):
        deep_lessons(chat, PROMPTS, own[:1], [REFUSAL], seed=0)


def test_a_context_that_is_nearly_full_is_not_outgrown():
    chat = student()
    room = 256
    prompt = Prompt("a b c d " * 36, "harmful")
    bare = refusing_lessons(chat, [prompt], [REFUSAL])[0]
    left = room - len(bare.prompt) - len(bare.answer)
    assert left > 0
    own = [tuple(range(5, 5 + left + 30))]
    (deep,) = deep_lessons(chat, [prompt], own, [REFUSAL], 0, most=left + 30, at_once=0.0)
    assert len(deep.prompt) + len(deep.answer) <= room


def test_benign_answers_go_on_from_where_they_were_begun():
    lessons = [one for one in made_lessons(tiny("llama"), 90) if one.kind == "keep"]
    lessons += [Lesson("answer", (3, 4, 5), (6, 7, 8)), Lesson("refuse", (3, 4), (5, 6))]
    lessons.append(Lesson("keep", (3, 4), (5,), torch.zeros(1, 4), torch.zeros(1, 4)))
    moved = continued(lessons, seed=1, most=3)
    depths = []
    for old, new in zip(lessons, moved, strict=True):
        depth = len(new.prompt) - len(old.prompt)
        assert (*old.prompt, *old.answer) == (*new.prompt, *new.answer)
        assert len(new.answer) >= 1
        if old.log_probabilities is not None:
            assert torch.equal(old.log_probabilities[depth:], new.log_probabilities)
            assert torch.equal(old.candidates[depth:], new.candidates)
        depths.append(depth)
    assert 0.3 < depths.count(0) / len(depths) < 0.7
    assert set(depths) == {0, 1, 2, 3}
    assert depths[-2:] == [0, 0]


def test_the_decision_is_made_where_recovery_is_wanted():
    chat = student()
    deep = deep_lessons(chat, PROMPTS[:6], OWN[:6], [REFUSAL], seed=3, at_once=0.2)
    first = deep[0].answer[0]
    assert {lesson.answer[0] for lesson in deep} == {first}
    batch = Collator(deep, shared_prefix(chat.model, deep))([{"lesson": i} for i in range(6)])
    with torch.no_grad():
        found = decision(answer_logits(chat.model, batch), batch, (first,))
        expected = torch.zeros(())
        for lesson in deep:
            logits = chat.model(torch.tensor([lesson.prompt])).logits[0, -1]
            rival = torch.cat([logits[:first], logits[first + 1 :]]).max()
            expected += torch.nn.functional.softplus(1 - (logits[first] - rival))
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


class Odd:
    """Says of every second answer that it refuses."""

    name, description = "odd", ""

    def judge(self, prompts, answers):
        return [Verdict("refused" if place % 2 else "complied") for place in range(len(prompts))]


def test_complying_answers_are_the_students_own_and_kept_in_the_journal(tmp_path):
    chat = student()
    journal = Journal(tmp_path / "journal.sqlite")
    done: list[int] = []
    own = complying_answers(chat, PROMPTS[:4], journal, Odd(), tokens=6, advance=done.append)
    for number, (prompt, answer) in enumerate(zip(PROMPTS[:4], own, strict=True)):
        (written,) = decode(chat.model, [chat.encode(prompt.text)], 6, chat.stops)
        expected = tuple(token for token in written.tokens if token not in chat.stops)
        assert answer == (() if number % 2 else expected)
    assert sum(done) == journal.count("arrays") == 4
    assert complying_answers(chat, PROMPTS[:4], journal, Odd(), tokens=6) == own
