"""A teacher's logits on disk: what is read is what it thinks, and what is lost is as stated."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.distill.students import made_lessons, student
from tests.distill.test_logits import STOPS, adapted, along, batch_of

from demur.distill.cached_logits import with_teacher_logits
from demur.distill.objectives.logits import Distilled
from demur.run.journal import Journal

COUNT = 7


def lessons_and_contexts(chat):
    lessons = made_lessons(chat.model, COUNT)
    contexts = {
        index: (11, 12, *lesson.prompt)
        for index, lesson in enumerate(lessons)
        if lesson.kind == "refuse"
    }
    return lessons, contexts


@pytest.mark.parametrize("kept", [8, 40])
def test_the_error_is_that_of_what_is_read_back(tmp_path, kept):
    chat = student()
    lessons, contexts = lessons_and_contexts(chat)
    journal = Journal(tmp_path / "journal.sqlite")
    taught, truncation = with_teacher_logits(chat, lessons, contexts, journal, kept=kept)
    outside, divergences, most, tokens = [], [], 0.0, 0
    for index, (old, new) in enumerate(zip(lessons, taught, strict=True)):
        if old.kind == "keep":
            assert new is old
            continue
        assert (new.kind, new.prompt, new.answer) == (old.kind, old.prompt, old.answer)
        with torch.no_grad():
            whole = along(chat.model, contexts[index], old.answer).double().log_softmax(-1)
        best = whole.topk(kept)
        assert torch.equal(new.candidates.long(), best.indices)
        assert torch.allclose(new.log_probabilities.double(), best.values, atol=1e-2)
        beyond = 1 - best.values.exp().sum(-1)
        read = torch.full_like(whole, 0.0)
        rest = 1 - new.log_probabilities.double().exp().sum(-1, keepdim=True)
        read += rest / (whole.shape[-1] - kept)
        read.scatter_(1, best.indices, new.log_probabilities.double().exp())
        lost = (whole.exp() * (whole - read.log())).sum(-1)
        outside.append(beyond.mean().item())
        divergences.append(lost.mean().item())
        most, tokens = max(most, beyond.max().item()), tokens + len(beyond)
    assert truncation.kept == kept and truncation.tokens == tokens
    assert truncation.outside.n == truncation.divergence.n == len(outside)
    assert truncation.outside.value == pytest.approx(sum(outside) / len(outside), rel=1e-4)
    assert truncation.most_outside == pytest.approx(most, rel=1e-4)
    mean = sum(divergences) / len(divergences)
    assert truncation.divergence.value == pytest.approx(mean, rel=1e-3)
    assert truncation.divergence.low <= mean <= truncation.divergence.high


def test_what_is_known_is_not_asked_again_and_other_contexts_are_other_rows(tmp_path):
    chat = student()
    lessons, contexts = lessons_and_contexts(chat)
    journal = Journal(tmp_path / "journal.sqlite")
    first, error = with_teacher_logits(chat, lessons, contexts, journal)
    rows = journal.count("arrays")
    other, _ = with_teacher_logits(chat, lessons, {}, journal)
    assert journal.count("arrays") == 2 * rows
    assert not torch.equal(other[1].log_probabilities, first[1].log_probabilities)
    # A model that cannot be asked: only its configuration is there.
    chat = replace(chat, model=SimpleNamespace(config=chat.model.config))
    done: list[int] = []
    again, same = with_teacher_logits(chat, lessons, contexts, journal, advance=done.append)
    assert same == error and sum(done) == rows
    for one, two in zip(first, again, strict=True):
        if one.kind == "refuse":
            assert torch.equal(one.log_probabilities, two.log_probabilities)
    assert with_teacher_logits(chat, lessons[:1], {}, journal) == (lessons[:1], None)


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 1.0])
def test_training_on_what_was_kept_is_training_on_the_teacher(tmp_path, coefficient):
    chat = student()
    lessons, contexts = lessons_and_contexts(chat)
    journal = Journal(tmp_path / "journal.sqlite")
    vocabulary = chat.model.config.vocab_size
    model = adapted()
    losses, gradients = [], []
    for kept in (None, vocabulary):
        taught = lessons
        if kept is not None:
            taught, _ = with_teacher_logits(chat, lessons, contexts, journal, kept=kept)
            taught = [one for one in taught if one.kind == "refuse"]
            told = {}
        else:
            places = [index for index, one in enumerate(lessons) if one.kind == "refuse"]
            taught = [lessons[index] for index in places]
            told = {new: contexts[index] for new, index in enumerate(places)}
        objective = Distilled(taught, STOPS, told, None, 0.0, coefficient)
        model.zero_grad()
        loss = objective.loss(model, batch_of(model, taught))
        loss.backward()
        losses.append(loss.item())
        gradients.append(
            torch.cat([one.grad.flatten() for one in model.parameters() if one.requires_grad])
        )
    assert losses[1] == pytest.approx(losses[0], rel=5e-3)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0).item() > 0.999
