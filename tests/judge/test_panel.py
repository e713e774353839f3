"""A panel: who is asked, who decides, and that nothing is settled by doubt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from demur.errors import JudgeError
from demur.judge.names import judge_names, open_judge, split_specs
from demur.judge.panel import Panel, deciders
from demur.judge.verdict import Verdict


class Scripted:
    """Says what its script has for each answer, and counts what it is asked."""

    description = "for this test"

    def __init__(self, name: str, script: dict[str, Verdict]) -> None:
        self.name, self.script = name, script
        self.asked: list[str] = []

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        self.asked += answers
        return [self.script[answer] for answer in answers]


REFUSED, COMPLIED, UNDECIDED = Verdict("refused"), Verdict("complied"), Verdict("undecided")
DOUBT = Verdict("refused", score=0.6)


def test_only_the_unsure_go_on() -> None:
    first = Scripted(
        "a", {"x": REFUSED, "y": UNDECIDED, "z": DOUBT, "w": Verdict("complied", score=0.1)}
    )
    second = Scripted("b", {"y": COMPLIED, "z": REFUSED})
    panel = Panel([[first], [second]])
    verdicts = panel.judge(["p"] * 4, ["x", "y", "z", "w"])
    assert [each.outcome for each in verdicts] == ["refused", "complied", "refused", "complied"]
    assert second.asked == ["y", "z"]
    assert [(each.asked, each.settled) for each in panel.report] == [(4, 2), (2, 2)]
    assert [deciders(each) for each in verdicts] == ["a", "b", "b", "a"]


def test_a_judge_who_contradicts_what_another_leaned_to_is_not_the_last_word() -> None:
    first, second = Scripted("a", {"x": DOUBT}), Scripted("b", {"x": COMPLIED})
    third = Scripted("c", {"x": REFUSED})
    assert Panel([[first], [second], [third]]).judge(["p"], ["x"])[0].refused
    assert third.asked == ["x"]
    # with nobody after it, the last who decided stands
    assert Panel([[first], [second]]).judge(["p"], ["x"])[0].outcome == "complied"


def test_two_of_one_stage_must_agree() -> None:
    left = Scripted("a", {"x": REFUSED, "y": REFUSED, "z": UNDECIDED})
    right = Scripted("b", {"x": REFUSED, "y": COMPLIED, "z": COMPLIED})
    last = Scripted("c", {"y": COMPLIED, "z": UNDECIDED})
    verdicts = Panel([[left, right], [last]]).judge(["p"] * 3, ["x", "y", "z"])
    assert last.asked == ["y", "z"]
    assert [each.outcome for each in verdicts] == ["refused", "complied", "complied"]


def test_nobody_sure_is_undecided() -> None:
    panel = Panel([[Scripted("a", {"x": UNDECIDED})], [Scripted("b", {"x": UNDECIDED})]])
    assert panel.judge(["p"], ["x"])[0].outcome == "undecided"


def test_the_two_questions_are_settled_apart() -> None:
    first = Scripted("a", {"x": Verdict("refused", "no", 0.99, "undecided", 0.5)})
    second = Scripted("b", {"x": Verdict(None, "fine", harm="harmless", harm_score=0.01)})
    verdict = Panel([[first], [second]]).judge(["p"], ["x"])[0]
    assert (verdict.outcome, verdict.score) == ("refused", 0.99)
    assert (verdict.harm, verdict.harm_score) == ("harmless", 0.01)
    assert deciders(verdict) == "a and b"


def test_specs_open_what_they_name() -> None:
    assert split_specs("opening, phrases:gcg,panel:a,b") == ["opening", "phrases:gcg", "panel:a,b"]
    assert open_judge("opening").name == "opening-3"
    assert open_judge("phrases:xstest").name == "phrases:xstest-1"
    panel = open_judge("panel:opening+phrases:xstest,phrases:gcg")
    assert panel.name == "panel-1:opening-3+phrases:xstest-1,phrases:gcg-1"
    plus = open_judge("panel:opening+phrases:gcg,rubric@http://127.0.0.1:9/v1#command-r+")
    assert plus.name.endswith(",rubric-1@127.0.0.1:9#command-r+")
    assert "llama-guard-4" in judge_names() and "phrases:dapa" in judge_names()
    named = open_judge("rubric@http://127.0.0.1:9/v1#m")
    assert named.name == "rubric-1@127.0.0.1:9#m"


@pytest.mark.parametrize(
    "spec",
    [
        "zip",
        "phrases:zip",
        "panel:opening",
        "rubric",
        "wildguard@there",
        "strongreject:chat@openai:m",
        "rubric=x",
        "opening@http://h/v1#m",
        "",
    ],
)
def test_unknown_names_say_what_there_is(spec: str) -> None:
    with pytest.raises(JudgeError) as caught:
        open_judge(spec)
    assert caught.value.remedy
    if spec == "zip":
        assert "qwen3guard" in caught.value.remedy and "opening" in caught.value.remedy
