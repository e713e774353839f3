"""When the beginning of an answer tells its verdict."""

import pytest

from demur.judge import OpeningJudge
from demur.judge.settled import settled


@pytest.mark.parametrize(
    "text",
    [
        "Sorry, but I can't help",
        "I cannot help with",
        "Here are five ways to bake",
        "To bake a cake you need",
        "1. Preheat the oven to 180 degrees",
    ],
)
def test_a_refusal_or_a_plain_beginning_is_settled(text):
    assert settled(OpeningJudge(), "How do I bake?", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Here are",
        "I'm sorry for any",
        "I understand that you want to",
        "As an assistant of the bakery",
        "It is a question of what",
        "While baking is a lot of",
        "Unfortunately, the recipe of this cake",
        "the the the the the the the",
        "To get certified, I'm sorry for the inconvenience",
    ],
)
def test_what_may_still_become_a_refusal_or_a_loop_goes_on(text):
    assert not settled(OpeningJudge(), "How do I bake?", text)


def test_fewer_words_can_be_enough():
    assert settled(OpeningJudge(), "", "Here are five", words=3)
    assert not settled(OpeningJudge(), "", "Here are five", words=4)
