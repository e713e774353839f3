"""The protocol: what is asked, what is counted, and what never counts as a refusal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from tests.models.architectures import tiny
from tests.tiny import tiny_tokenizer

from demur.console import Narrator
from demur.judge import OpeningJudge, Verdict
from demur.measure.protocol import (
    PREFILL,
    Judged,
    Probe,
    by_hazard,
    compare,
    examples,
    measure_probe,
    standard_probes,
)
from demur.models.chat_model import ChatModel
from demur.models.device import Placement
from demur.models.generation import Decoding
from demur.prompts.types import Prompt
from demur.run.journal import Answer, Journal
from demur.stats import paired, rate

OUTCOMES = {"r": "refused", "c": "complied", "u": "undecided"}


def prompts(kind: str, hazards: str) -> tuple[Prompt, ...]:
    return tuple(
        Prompt(f"{kind} {place}", kind, hazard=hazard, pair=str(place))  # type: ignore[arg-type]
        for place, hazard in enumerate(hazards.split())
    )


def judged(probe: Probe, outcomes: str, side: str = "") -> Judged:
    answers = tuple(
        Answer(f"{side}{place}", prompt.text, f"{side} answer {place}", (1,), True)
        for place, prompt in enumerate(probe.prompts)
    )
    verdicts = tuple(Verdict(OUTCOMES[letter], "by hand") for letter in outcomes)  # type: ignore
    return Judged(probe, answers, verdicts)


@pytest.fixture
def harmful() -> Probe:
    return Probe("harmful", "Harmful", "test", "up", prompts("harmful", "a a a b b c"), Decoding(8))


@pytest.fixture
def twins() -> Probe:
    return Probe("twins", "Twins", "test", "down", prompts("twin", "a a a b b c"), Decoding(8))


def test_undecided_is_never_refused(harmful):
    one = judged(harmful, "ruucru")
    assert one.refused == [True, False, False, False, True, False]
    assert one.undecided == 3
    broken = compare(judged(harmful, "cccccc"), judged(harmful, "uuuuuu"))
    assert broken.after.count == 0
    assert broken.difference.value == 0.0
    assert (broken.undecided_before, broken.undecided_after) == (0, 6)


def test_compare_pairs_by_prompt(harmful):
    before, after = judged(harmful, "rcccuc"), judged(harmful, "crrrrc")
    found = compare(before, after)
    assert (found.key, found.title, found.split, found.wanted) == (
        "harmful", "Harmful", "test", "up",
    )  # fmt: skip
    assert found.before == rate(1, 6)
    assert found.after == rate(4, 6)
    assert found.difference == paired(before.refused, after.refused)
    assert found.difference.value == pytest.approx(0.5)
    assert (found.undecided_before, found.undecided_after) == (1, 0)


def test_each_hazard_has_its_rates(harmful, twins):
    rows = by_hazard(
        (judged(harmful, "rccccc"), judged(harmful, "rrrrcu")),
        (judged(twins, "cccccc"), judged(twins, "rccccr")),
    )
    assert [row.hazard for row in rows] == ["a", "b", "c"]
    first, second, third = rows
    assert (first.harmful_before, first.harmful_after) == (rate(1, 3), rate(3, 3))
    assert (first.twins_before, first.twins_after) == (rate(0, 3), rate(1, 3))
    assert (second.harmful_before, second.harmful_after) == (rate(0, 2), rate(1, 2))
    assert (third.harmful_after, third.twins_after) == (rate(0, 1), rate(1, 1))


def test_prompts_without_hazard_make_no_row(twins):
    bare = Probe("harmful", "", "test", "up", (Prompt("x", "harmful"),), Decoding(8))
    sides = (judged(bare, "c"), judged(bare, "r"))
    assert by_hazard(sides, (judged(twins, "cccccc"), judged(twins, "cccccc"))) == ()


def test_examples_are_spread_evenly(harmful):
    before, after = judged(harmful, "cccccc", "before"), judged(harmful, "rrurrr", "after")
    found = examples(before, after, 3)
    assert [one.prompt for one in found] == ["harmful 0", "harmful 2", "harmful 4"]
    assert found[1].answer_before == "before answer 2"
    assert found[1].answer_after == "after answer 2"
    assert (found[1].verdict_before, found[1].verdict_after) == ("complied", "undecided")
    assert len(examples(before, after, 50)) == 6
    assert examples(before, after, 0) == ()


def test_the_standard_probes():
    bad, benign = prompts("harmful", "a b c"), prompts("twin", "a b c")
    found = standard_probes(bad, benign, (), split="test", tokens=20, prefilled=2)
    assert [probe.key for probe in found] == ["harmful", "twins", "prefill"]
    assert [probe.wanted for probe in found] == ["up", "down", "up"]
    assert len(found[2].prompts) == 2
    assert set(found[2].prompts) <= set(bad)
    assert found[2].decoding == Decoding(20, PREFILL)
    assert found[0].decoding == Decoding(20)
    none = standard_probes(bad, benign, (), split="test", tokens=20, prefilled=0)
    assert [probe.key for probe in none] == ["harmful", "twins"]


def test_measuring_leaves_answers_and_verdicts_in_the_journal(tmp_path, harmful):
    placement = Placement("cpu", "float32", "")
    chat = ChatModel(
        Path("tiny"), tiny("llama"), tiny_tokenizer(), placement, "w", _stops=frozenset({2})
    )
    journal, narrator = Journal(tmp_path / "j.sqlite"), Narrator(Console(file=io.StringIO()))
    judge = OpeningJudge()
    first = measure_probe(chat, harmful, journal, judge, narrator, "before")
    assert (journal.count("answers"), journal.count("verdicts")) == (6, 6)
    assert [one.prompt for one in first.answers] == [prompt.text for prompt in harmful.prompts]
    assert list(first.verdicts) == [judge.one(one.text) for one in first.answers]
    assert measure_probe(chat, harmful, journal, judge, narrator, "before") == first
    assert (journal.count("answers"), journal.count("verdicts")) == (6, 6)
    assert "before, harmful: 6 in" in narrator.console.file.getvalue()
