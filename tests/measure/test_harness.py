"""lm-evaluation-harness: what it returns becomes scores; its absence and its errors are told.

The harness is an extra that need not be installed: its place is taken by a double with the two
names that demur calls, and results in the shape that the harness documents.
"""

from __future__ import annotations

import math
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import pytest

from demur.errors import ConfigError
from demur.measure.harness import TaskScore, run_tasks, scores_of

FOUND = {
    "results": {
        "arc_easy": {
            "alias": "arc_easy",
            "acc,none": 0.625,
            "acc_stderr,none": 0.05,
            "acc_norm,none": 0.5,
            "acc_norm_stderr,none": 0.06,
        },
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.0,
            "exact_match_stderr,strict-match": "N/A",
        },
        "group": {"alias": "group"},
    },
    "n-samples": {"arc_easy": {"original": 2376, "effective": 100}},
}


def test_the_first_metric_of_each_task_is_taken():
    first, second = scores_of(FOUND)
    assert first == TaskScore("arc_easy", "acc", 0.625, 0.05, 100)
    assert (second.task, second.metric, second.value, second.n) == ("gsm8k", "exact_match", 0.0, 0)
    assert math.isnan(second.error)


@pytest.fixture
def harness(monkeypatch):
    """The harness's two names, and what they were called with."""
    calls: list[dict] = []
    modules = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.models.huggingface")}
    modules["lm_eval.models"] = ModuleType("lm_eval.models")
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        monkeypatch.setitem(sys.modules, name, module)

    def simple_evaluate(**arguments):
        calls.append(arguments)
        if "nosuch" in arguments["tasks"]:
            raise KeyError("nosuch")
        return FOUND

    modules["lm_eval"].simple_evaluate = simple_evaluate
    modules["lm_eval.models.huggingface"].HFLM = lambda **arguments: SimpleNamespace(**arguments)
    return calls


def test_the_model_in_memory_is_handed_over(harness):
    chat = SimpleNamespace(model=object(), tokenizer=object())
    assert [score.task for score in run_tasks(chat, ("arc_easy", "gsm8k"), 100)] == [
        "arc_easy", "gsm8k",
    ]  # fmt: skip
    (call,) = harness
    assert call["model"].pretrained is chat.model and call["model"].tokenizer is chat.tokenizer
    assert (call["tasks"], call["limit"]) == (["arc_easy", "gsm8k"], 100)


def test_a_task_that_the_harness_does_not_know_is_told(harness):
    with pytest.raises(ConfigError, match="cannot run nosuch"):
        run_tasks(SimpleNamespace(model=None, tokenizer=None), ("nosuch",), None)


def test_without_the_harness_the_remedy_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        run_tasks(SimpleNamespace(), ("arc_easy",), None)
    assert "pip install 'demur[lm-eval]'" in caught.value.remedy
