"""An endpoint as a source: a real server, one that goes away in the middle, and no prefill."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.endpoint_server import Fails, Says, model_server
from tests.study.test_study_sources import own_prompts

from demur.errors import EndpointError
from demur.judge.names import Means
from demur.models.asking import Patience
from demur.study.gather import parse
from demur.study.outcome import Study
from demur.study.study import study_refusals

REFUSAL = "I'm sorry, but I can't help with that."


def script(path: str, body: dict[str, Any]) -> Says:
    return Says(REFUSAL if "Tell" in body["messages"][-1]["content"] else "Of course: here it is.")


def run(folder: Path, spec: str) -> Study:
    places = {name: str(folder / f"{name}.jsonl") for name in ("pairs", "ordinary")}
    if not Path(places["pairs"]).exists():
        own_prompts(places)
    return study_refusals(
        [f"there={spec}"], run=folder / "run", means=Means(patience=Patience(tries=1)),
        judge="opening", embedder="tfidf", prompts=4, ordinary_prompts=2, tokens=20, **places,
    )  # fmt: skip


def test_an_endpoint_that_goes_away_is_asked_only_what_is_missing(tmp_path: Path) -> None:
    with model_server() as server:
        server.script = script
        server.fails.append(Fails(500, after=4))
        with pytest.raises(EndpointError):
            run(tmp_path, server.spec())
        assert not (tmp_path / "run" / "study.json").exists()
        server.fails.clear()
        before = server.answered
        assert before >= 4
        done = run(tmp_path, server.spec())
        assert server.answered == 10, "what had been answered was not asked again"
        (source,) = done.findings.sources
        assert (source.name, source.how, source.answers) == ("there", "endpoint", 10)
        assert source.security.prefill.n == 0 and "No words can be put" in " ".join(source.notes)
        written = json.loads(done.data.read_text(encoding="utf-8"))
        assert server.url not in json.dumps(written["findings"]["sources"][0]["notes"])


def test_endpoints_are_known_by_how_they_are_written() -> None:
    assert parse("openai:gpt-4o-mini").kind == "endpoint"
    assert parse("mine=http://localhost:1/v1#model").kind == "endpoint"
