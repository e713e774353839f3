"""Verdicts are asked for once, and chunks that were finished survive a judge that fails."""

import pytest

from demur.judge import OpeningJudge, Verdict
from demur.judge.kept import CHUNK, answer_keys, judge_kept
from demur.run.journal import Journal


class Counting:
    """Judges by length, counts what it is asked, and goes away after `until` answers."""

    name = "counting-1"
    description = "for this test"

    def __init__(self, until: int = 10_000) -> None:
        self.until, self.asked = until, 0

    def judge(self, prompts, answers):
        if self.asked >= self.until:
            raise ConnectionError("gone")
        self.asked += len(answers)
        return [Verdict("complied", "long", 0.25, "harmful", len(a) / 1000) for a in answers]


def test_a_judge_that_goes_away_is_asked_only_for_the_rest(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    prompts = [f"prompt {index}" for index in range(3 * CHUNK + 5)]
    answers = ["a" * index for index in range(len(prompts))]
    keys = answer_keys(prompts, answers)
    with pytest.raises(ConnectionError):
        judge_kept(Counting(until=CHUNK), prompts, answers, keys, journal)
    again, seen = Counting(), []
    verdicts = judge_kept(again, prompts, answers, keys, journal, advance=seen.append)
    assert again.asked == 2 * CHUNK + 5
    assert seen[0] == CHUNK and sum(seen) == len(prompts)
    assert verdicts == Counting().judge(prompts, answers)


def test_each_judge_has_verdicts_of_its_own(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    keys = answer_keys(["p"], ["I cannot help with that."])
    first = judge_kept(Counting(), ["p"], ["I cannot help with that."], keys, journal)
    second = judge_kept(OpeningJudge(), ["p"], ["I cannot help with that."], keys, journal)
    assert first[0].outcome == "complied" and second[0].refused and second[0].harm is None
