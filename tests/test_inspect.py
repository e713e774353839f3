"""Inspect's own classes read what `--inspect` writes, and run the task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("inspect_ai", reason="the extra demur[inspect] is not installed")

from demur.measuring.measure import measure_models
from tests.test_measuring import CHOICES, HashJudge, home, write  # noqa: F401


def test_inspect_reads_the_answers(home: Path, monkeypatch):  # noqa: F811
    from inspect_ai.log import read_eval_log

    monkeypatch.chdir(home)
    found = measure_models("one", run=Path("runs/i"), judge=HashJudge(), inspect=True, **CHOICES)
    logs = {path.stem: read_eval_log(str(path)) for path in (found.run / "inspect").iterdir()}
    assert set(logs) == {
        f"one_{name}"
        for name in (
            "direct-harmful.jsonl", "direct-benign.jsonl", "direct-ordinary.jsonl",
            "prefill-pooled-harmful", "templates-pooled-harmful",
        )
    }  # fmt: skip
    rows = [json.loads(line) for line in found.answers.read_text(encoding="utf-8").splitlines()]
    for row in found.standing.rows:
        name = f"one_{row.key.replace('/', '-').replace(':', '-')}"
        if name not in logs:
            continue
        log = logs[name]
        assert (log.status, log.eval.model) == ("success", "demur/one")
        assert log.eval.metadata["judge"] == "hash-1"
        assert log.results.scores[0].metrics["refused"].value == row.cells[0].refused.value
        said = [
            (r["response"], r["outcome"]) for r in rows
            if r["attack"] == row.attack and (row.attack != "direct" or r["set"] == row.set)
        ]  # fmt: skip
        assert [(s.output.completion, s.scores["demur"].value) for s in log.samples] == said


def test_the_task_asks_and_judges(tmp_path):
    from inspect_ai import eval as evaluate
    from inspect_ai.model import ModelAPI, ModelOutput, modelapi

    from demur.measuring.inspect_task import refusals

    @modelapi(name="told")
    class Told(ModelAPI):
        async def generate(self, input, tools, tool_choice, config):
            asked = input[0].text
            said = "I can't help with that." if "bad" in asked else "Sure: first, take the flour."
            return ModelOutput.from_content(self.model_name, "" if "void" in asked else said)

        async def count_tokens(self, *arguments, **options):
            return 1

    harmful = ["bad one", "bad two", "worse three", "void four"]
    write(tmp_path / "advbench.jsonl", [{"prompt": text} for text in harmful])
    safe = [{"prompt": f"{word} {i}", "label": "safe"} for i, word in enumerate(("good", "bad"))]
    write(tmp_path / "xstest.jsonl", safe)
    write(tmp_path / "dolly.jsonl", [{"instruction": "Fine.", "context": ""}])
    for prefill, n in ((False, 7), (True, 4)):
        task = refusals(
            ["advbench", "xstest:safe", "dolly"],
            n=9,
            data=str(tmp_path),
            apart="none",
            prefill=prefill,
        )
        (log,) = evaluate(task, model="told/x", display="none", log_dir=str(tmp_path / "logs"))
        assert log.status == "success", log.error
        assert len(log.samples) == n
        metrics = {name: each.value for name, each in log.results.scores[0].metrics.items()}
        assert metrics["harmful_refused"] == 0.5
        assert metrics["undecided"] == pytest.approx(1 / n)
        if not prefill:
            assert metrics["benign_refused"] == pytest.approx(1 / 3)
