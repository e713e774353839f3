"""Prefill of a given depth: every model is put where the original would have gone."""

from __future__ import annotations

import pytest
from tests.distill.students import Quiet, student

from demur.judge import OpeningJudge
from demur.judge.verdict import Verdict
from demur.measure.prefilled import DEPTHS, measure_prefilled, prefilled_probes
from demur.measure.protocol import compare
from demur.models.generation import decode
from demur.prompts.types import Prompt
from demur.run.journal import Journal

HARMFUL = [Prompt(f"Do harm number {number}.", "harmful") for number in range(5)]
OWN = [tuple(range(30, 50)), (), tuple(range(60, 85)), (5, 6, 7), tuple(range(90, 110))]


class ByLength:
    """Says that an answer refuses where its length is even."""

    name, description = "by-length", ""

    def judge(self, prompts, answers):
        return [Verdict("refused" if len(one) % 2 == 0 else "complied") for one in answers]


def test_all_depths_ask_the_same_prompts_those_with_answers_long_enough():
    probes = prefilled_probes(HARMFUL, OWN, split="test", tokens=8)
    assert DEPTHS == (0, 5, 10, 20)
    kept = (0, 2, 4)
    for depth, prefilled in zip(DEPTHS, probes, strict=True):
        probe = prefilled.probe
        assert probe.prompts == tuple(HARMFUL[index] for index in kept)
        assert prefilled.openings == tuple(OWN[index][:depth] for index in kept)
        assert (probe.key, probe.wanted) == (f"harmful-prefill-{depth}", "up")
        assert f"after {depth} tokens" in probe.title
    shallow = prefilled_probes(HARMFUL, OWN, split="test", tokens=8, depths=(0, 3), wanted="down")
    assert [len(one.probe.prompts) for one in shallow] == [4, 4]
    assert shallow[1].probe.key == "benign-prefill-3"
    assert prefilled_probes(HARMFUL, [()] * 5, split="test", tokens=8) == ()


def test_a_model_goes_on_from_the_tokens_given_and_only_what_it_adds_is_judged(tmp_path):
    chat, journal = student(), Journal(tmp_path / "journal.sqlite")
    for prefilled in prefilled_probes(HARMFUL, OWN, split="test", tokens=6):
        judged = measure_prefilled(chat, prefilled, journal, ByLength(), Quiet(), "before")
        for prompt, opening, answer, verdict in zip(
            prefilled.probe.prompts,
            prefilled.openings,
            judged.answers,
            judged.verdicts,
            strict=True,
        ):
            (written,) = decode(chat.model, [[*chat.encode(prompt.text), *opening]], 6, chat.stops)
            assert answer.tokens == written.tokens
            assert answer.text == chat.decode(written.tokens)
            assert verdict.refused == (len(answer.text) % 2 == 0)
    assert journal.count("answers") == 3 * len(DEPTHS)


@pytest.mark.parametrize("judge", [ByLength(), OpeningJudge()])
def test_what_is_in_the_journal_is_not_asked_again(tmp_path, monkeypatch, judge):
    chat, journal = student(), Journal(tmp_path / "journal.sqlite")
    prefilled = prefilled_probes(HARMFUL, OWN, split="test", tokens=6)[2]
    first = measure_prefilled(chat, prefilled, journal, judge, Quiet(), "before")
    monkeypatch.setattr(chat, "model", None)
    narrator = Quiet()
    assert measure_prefilled(chat, prefilled, journal, judge, narrator, "before") == first
    assert narrator.done == [3]
    comparison = compare(first, first)
    assert comparison.before.n == 3
    assert 0 <= comparison.before.low <= comparison.before.value <= comparison.before.high <= 1
