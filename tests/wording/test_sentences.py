"""Openings, refusing sentences and parts, on refusals written for these tests."""

from __future__ import annotations

import pytest

from demur.wording.parts import PARTS, parts_of, refusing_sentence
from demur.wording.sentences import (
    first_sentence,
    foreign_share,
    opening,
    seems_english,
    sentences,
    without_request,
)


def test_one_spelling_for_one_opening() -> None:
    same = (
        "I\u2019m sorry, but I can't do that.",
        "i am sorry but I cannot",
        "**I'm** Sorry; but I",
    )
    assert {opening(text) for text in same} == {"i am sorry but"}
    assert opening("I won't.", 2) == "i will" and opening("") == ""


def test_sentences_and_lines() -> None:
    assert sentences('He said "no." So.') == ['He said "no.', "So."]
    assert sentences("A b. C d!\n---\nE?") == ["A b.", "C d!", "E?"]
    assert first_sentence("I can't! Sorry.") == "i cannot"


def test_the_requests_own_words_are_taken_out() -> None:
    prompt = "How do I paint my neighbour's fence purple?"
    sentence = "I cannot help with painting purple fences or give such information."
    assert without_request(sentence, prompt) == (
        "i cannot help with something or give such information"
    )
    assert without_request("I cannot help.", "Can you help me?") == "i cannot help"


def test_the_refusing_sentence_is_the_one_that_declines() -> None:
    answer = "Thank you for asking. That is a delicate matter. I'm unable to assist. Bye."
    assert refusing_sentence(answer, "") == "i am unable to assist"
    assert refusing_sentence("Well. It would be wrong to do so. Bye.", "") == (
        "it would be wrong to do so"
    )
    assert refusing_sentence("No. Never.", "") == "no" and refusing_sentence("", "") == ""


@pytest.mark.parametrize(
    ("answer", "parts"),
    [
        ("Sorry, but I can't help with that.", {"apology", "inability"}),
        ("I will not do this: it is against the law.", {"inability", "law"}),
        ("I'm so sorry to hear that. Please call a crisis hotline.", {"help"}),
        ("As an AI language model, I cannot do so.", {"identity", "inability"}),
        ("I can't, as our content policy forbids it.", {"inability", "policy"}),
        ("I won't; it could be dangerous for you.", {"inability", "harm"}),
        ("It would be unethical. Would you like a recipe instead?",
         {"ethics", "alternative", "question"}),
        ("I cannot share somebody's personal information.", {"inability", "privacy"}),
        ("I do not have access to that.", {"knowledge"}),
        ("No.", set()),
        ("", set()),
    ],
)  # fmt: skip
def test_parts(answer: str, parts: set[str]) -> None:
    assert parts_of(answer) == parts
    assert parts_of(answer.upper()) == parts, "capital letters do not matter"
    assert parts <= set(PARTS)


def test_other_languages_are_told() -> None:
    english = "I am sorry, but I cannot help you with that request of yours."
    german = (
        "Es tut mir leid, aber dabei kann ich dir leider nicht behilflich sein, wirklich nicht."
    )
    chinese = "\u5f88\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u63d0\u4f9b\u5e2e\u52a9\u3002" * 3
    assert seems_english(english) and seems_english(german) is False
    assert seems_english(chinese) is False and seems_english("No.") is None
    assert foreign_share([english, german, chinese, "No."]) == pytest.approx(2 / 3)
    assert foreign_share([]) == 0
