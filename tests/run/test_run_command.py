"""The words that make a run again."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from demur.run.command import options


@dataclass(frozen=True)
class Choices:
    model: str
    learning_rate: float = 1e-3
    deep: bool = False
    teacher: str | None = None
    strengths: tuple[float, ...] = (0.85,)
    refusal: tuple[str, ...] = ("No.",)


def test_defaults_and_what_has_none_are_left_out() -> None:
    assert options(Choices("a model")) == []


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"learning_rate": 2e-4}, ["--learning-rate", "0.0002"]),
        ({"deep": True}, ["--deep"]),
        ({"teacher": "self"}, ["--teacher", "self"]),
        ({"teacher": ""}, ["--teacher="]),
        ({"teacher": "-x"}, ["--teacher=-x"]),
        ({"strengths": (0.5, 1.2)}, ["--strengths", "0.5", "1.2"]),
        ({"strengths": ()}, ["--strengths", "1.0"]),
        ({"refusal": ("No.", "-")}, ["--refusal", "No.", "--refusal=-"]),
    ],
)
def test_every_other_choice_is_said(choices: dict[str, object], words: list[str]) -> None:
    assert options(Choices("a model", **choices)) == words


def test_a_flag_that_takes_one_value_is_said_for_each() -> None:
    choices = Choices("a model", strengths=(0.5, -1.2))
    assert options(choices, repeated=True) == ["--strengths", "0.5", "--strengths=-1.2"]
    assert options(Choices("a model", strengths=()), repeated=True) == []
