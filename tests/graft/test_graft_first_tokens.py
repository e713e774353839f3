"""What first tokens tell: learned from answers, and left open where they do not."""

from __future__ import annotations

import torch
from tests.tiny import tiny_tokenizer

from demur.graft.first_tokens import FirstTokens


def first(text: str) -> int:
    return int(tiny_tokenizer()(text).input_ids[0])


def test_kinds_are_learned_from_answers() -> None:
    sorry, here, it = first("Sorry"), first("Here"), first("it")
    answers = [(sorry, True)] * 9 + [(here, False)] * 9 + [(it, True)] * 3 + [(it, False)] * 6

    kinds = FirstTokens.learned(tiny_tokenizer(), answers)

    assert kinds.refusing == {sorry}
    assert it in kinds.open and first("I") in kinds.open  # mixed; never seen, but refusals say so
    assert here not in kinds.open


def test_too_few_answers_tell_nothing() -> None:
    sorry, here = first("Sorry"), first("Here")

    kinds = FirstTokens.learned(tiny_tokenizer(), [(sorry, True)] * 4 + [(here, True)])

    assert not kinds.refusing and {sorry, here} <= kinds.open


def test_a_word_that_hesitates_but_never_refused_is_plain() -> None:
    eye = first("I")

    assert eye not in FirstTokens.learned(tiny_tokenizer(), [(eye, False)] * 60).open


def test_margins_are_those_of_the_greedy_choice() -> None:
    kinds = FirstTokens(frozenset({1, 2}), frozenset({5}))
    logits = torch.tensor(
        [
            [0.0, 1.0, 4.0, 3.0, 0.0, 0.0, 0.0],  # a refusal
            [0.0, 1.0, 2.0, 3.5, 0.0, 0.0, 0.0],  # none
            [0.0, 1.0, 4.0, 3.0, 0.0, 9.0, 0.0],  # open
            [0.0, 1.0, 4.0, 3.99, 0.0, 0.0, 0.0],  # too close to call
        ]
    )

    reading = kinds.read(logits)

    assert [round(margin, 3) for margin in reading.margins] == [1.0, -1.5, 1.0, 0.01]
    assert reading.refused() == [True, False, None, None]


def test_without_refusing_tokens_margins_are_numbers() -> None:
    reading = FirstTokens(frozenset(), frozenset()).read(torch.zeros(2, 7))

    assert reading.margins == (-50.0, -50.0) and reading.refused() == [False, False]
