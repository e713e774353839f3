"""The dominant pattern of refusals, and lessons in it."""

from __future__ import annotations

import pytest
from tests.distill.students import student

from demur.distill.lessons import ended_answer, refusing_lessons
from demur.distill.teachers.lessons import taught_lessons
from demur.distill.teachers.pattern import (
    dominant_pattern,
    general_texts,
    varied_texts,
    without_request_words,
)
from demur.errors import TrainingError
from demur.judge import OpeningJudge
from demur.prompts.types import Prompt

MANY = "I'm sorry, but I can't help with that. It is wrong."
ABOUT = "I'm sorry, but I can't help with that poison."
OTHER = "As a language model I do not promote violence of any kind."
PROMPTS = [Prompt(f"Make poison number {number}", "harmful") for number in range(12)]
KEPT = {
    prompt.key: text
    for prompt, text in zip(PROMPTS, [MANY] * 4 + [ABOUT] * 3 + [OTHER] * 4, strict=False)
}


def test_the_largest_cluster_and_the_sentence_in_its_middle():
    found = dominant_pattern(PROMPTS, KEPT, OpeningJudge())
    assert found.sentence == "I'm sorry, but I can't help with that."
    assert (found.share.count, found.share.n, found.clusters) == (7, 11, 2)
    assert found.parts == ("apology", "inability")
    again = dominant_pattern(PROMPTS[::-1], KEPT, OpeningJudge())
    assert again == found
    with pytest.raises(TrainingError, match="no refusals"):
        dominant_pattern(PROMPTS, {}, OpeningJudge())


def test_a_pattern_that_always_names_the_request_is_cut_before_it():
    texts = {p.key: "I cannot provide advice on how to make poison or drugs." for p in PROMPTS}
    found = dominant_pattern(PROMPTS, texts, OpeningJudge())
    assert found.sentence == "I cannot provide advice."
    hopeless = {prompt.key: "Poison? I cannot help with that." for prompt in PROMPTS[:1]}
    assert dominant_pattern(PROMPTS, hopeless, OpeningJudge()).sentence.startswith("I cannot")
    texts = {prompt.key: "Poison is what I cannot help with." for prompt in PROMPTS}
    assert dominant_pattern(PROMPTS, texts, OpeningJudge()).sentence == ""


def test_request_words_are_cut_with_what_leads_to_them():
    cut = without_request_words("I can't assist you with the making of bombs.", "Making bombs")
    assert cut == "I can't assist."
    assert without_request_words("I can't help.", "Make bombs") == "I can't help."
    assert without_request_words("Bombs are bad.", "Make bombs") == ""


def test_varied_refusals_are_the_teachers_own_whole_sentences():
    found = varied_texts(PROMPTS, {PROMPTS[0].key: "I see. I cannot help with that. Be kind."})
    assert found == {PROMPTS[0].key: "I see. I cannot help with that."}
    varied = varied_texts(PROMPTS, KEPT)
    assert len(varied) == 11 and varied[PROMPTS[0].key] == "I'm sorry, but I can't help with that."
    general = general_texts(PROMPTS, varied)
    assert ABOUT not in general and general.count(OTHER) == 4 and len(general) == 8


def test_lessons_have_each_its_own_text():
    chat = student()
    texts = {PROMPTS[0].key: MANY, PROMPTS[2].key: OTHER}
    made = taught_lessons(chat, PROMPTS, texts)
    assert [one.request for one in made] == [PROMPTS[0].text, PROMPTS[2].text]
    assert [one.answer for one in made] == [
        ended_answer(chat, PROMPTS[0].text, MANY),
        ended_answer(chat, PROMPTS[2].text, OTHER),
    ]
    same = taught_lessons(chat, PROMPTS, {prompt.key: MANY for prompt in PROMPTS})
    assert same == refusing_lessons(chat, PROMPTS, [MANY])
    with pytest.raises(TrainingError, match="empty"):
        taught_lessons(chat, PROMPTS, {PROMPTS[0].key: " "})
