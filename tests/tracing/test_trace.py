"""Whole runs of `demur trace` on tiny relatives: both ways, resumed, written, and bad choices."""

from __future__ import annotations

import json
import math
import re
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.distill.students import Quiet
from tests.relatives import PLACES, Relatives, make_refusing
from tests.small_run import ENVIRONMENT
from tests.tiny import tiny_llama

from demur.checkpoint import LowRank, make_patch
from demur.cli import main
from demur.cli.app import app
from demur.errors import ConfigError, ModelError
from demur.prompts.choose import gather
from demur.run.journal import Journal
from demur.tracing.config import TraceConfig
from demur.tracing.outcome import Trace
from demur.tracing.trace import SPLIT, trace

KEPT = 9  # arrays that the killed trace leaves
CLOSE = {"rel": 1e-3, "abs": 1e-3}
KILLED = f"""
import os, signal, sys
from demur.cli import main
from demur.run.journal import Journal

add, kept = Journal.add_arrays, []

def strike(self, rows):
    if len(kept) == {KEPT}:
        os.kill(os.getpid(), signal.SIGKILL)
    kept.append(rows)
    add(self, rows)

Journal.add_arrays = strike
main(["trace", *sys.argv[1:]])
"""
NOUNS = ("process", "bread", "flour", "weather", "assistant", "user", "answer", "request")
VERBS = (("harmful", "Kill"), ("benign", "Bake"))
SMALL: dict[str, Any] = {"prompts": 3, "device": "cpu", "dtype": "float32"}


@dataclass(frozen=True)
class Place:
    """Where the relatives and the prompts lie."""

    folder: Path
    relatives: Relatives

    def run(self, name: str, model: Path | None = None, **choices: Any) -> Trace:
        told: dict[str, Any] = {"pairs": str(self.folder / "pairs.jsonl"), **SMALL, **choices}
        chosen = model or self.relatives.donor
        narrator = told.pop("narrator", None) or Quiet()
        return trace(str(chosen), run=self.folder / name, narrator=narrator, **told)


def keys_of(run: Path) -> dict[str, list[str]]:
    """Return the keys of all that a run's journal holds, by table."""
    with closing(sqlite3.connect(run / "journal.sqlite")) as journal:
        return {
            table: [key for (key,) in journal.execute(f"SELECT key FROM {table}")]
            for table in ("answers", "arrays")
        }


def write_pairs(path: Path) -> None:
    """Write requests and twins of one kind, short, and of the words that the tokenizer knows."""
    rows = []
    for number, where in enumerate((*PLACES, *PLACES)):
        what = NOUNS[(3 * number + number // 8 + number // 16) % len(NOUNS)]
        then = PLACES[(5 * number + 3 + number // 16) % len(PLACES)]
        rows.append({side: f"{verb} the {what} of the {where}, {then}." for side, verb in VERBS})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("trace")
    write_pairs(folder / "pairs.jsonl")
    tiny_llama(folder / "tiny")
    # Those that are traced: so small a model tells apart only what it has seen.
    splits = gather(pairs=str(folder / "pairs.jsonl"))
    family = make_refusing(
        folder / "family",
        steps=60,
        harmful=[prompt.text for prompt in splits.harmful(SPLIT)],
        benign=[prompt.text for prompt in splits.twins(SPLIT)],
        rank=4,
        spread=0.3,
    )
    return Place(folder, family)


@pytest.fixture(scope="module")
def traced(place: Place) -> Trace:
    return place.run("both", place.relatives.recipient, donor=str(place.relatives.donor))


def test_maps_of_the_donor(traced: Trace) -> None:
    found = traced.findings
    assert [each.kind for each in found.maps] == ["state", "mlp", "attention"]
    assert found.clean.value > found.corrupted.value
    assert 2 <= found.prompts <= 3
    for each in found.maps:
        assert len(each.cells) == len(each.attributed) == found.layers * len(found.places)
        assert each.agreement is not None and each.agreement.cells > 0
        assert all(cell.effect.n == cell.share.n <= found.prompts for cell in each.cells)
    states = {(cell.layer, cell.place): cell for cell in found.maps[0].cells}
    last = states[found.layers - 1, "last token"]
    assert last.effect.low <= last.effect.value <= last.effect.high
    assert last.share.value == pytest.approx(1, abs=0.5)
    first = states[found.layers - 1, "request, first token"]  # above it there is nothing to tell
    assert first.effect.value == pytest.approx(0, abs=1e-4)


def test_modules_put_over_both_ways(traced: Trace) -> None:
    into, back = traced.findings.crossings
    assert (into.direction, back.direction) == ("into", "back")
    assert into.harmful.value < 0 < into.whole_harmful.value
    assert into.whole_benign.value < 0
    assert into.harmful.value == pytest.approx(back.whole_harmful.value, abs=1e-5)
    assert {each.kind for each in into.blocks} == {"mlp", "attention"}
    assert len(into.blocks) == 2 * traced.findings.layers
    assert {each.kind for each in into.attributed} >= {"gate", "up", "down", "q", "k", "v", "o"}
    for each in (*into.blocks, *back.blocks):
        assert each.selectivity.value == pytest.approx(each.harmful.value - each.benign.value)
    untouched = [each for each in into.attributed if each.kind in ("q", "k", "v")]
    moved = [each for each in into.attributed if each.kind in ("gate", "down", "o")]
    most = max(abs(each.harmful.value) for each in moved)
    assert max(abs(each.harmful.value) for each in untouched) < 0.1 * most


def test_documents(traced: Trace, place: Place) -> None:
    content = json.loads(traced.data.read_text(encoding="utf-8"))
    assert content["findings"]["prompts"] == traced.findings.prompts
    page = traced.report.read_text(encoding="utf-8")
    assert page.count("<svg") == 2 * (3 + 2)
    assert "<script" not in page and "http-equiv" in page
    for each in ("#010207", "#010208", "#010209", ">nan", " nan "):
        assert each not in page.lower()
    assert len(set(re.findall(r'<section id="([\w-]+)"', page))) == 3 + 2 + 2
    asked = [json.loads(line)["harmful"] for line in (place.folder / "pairs.jsonl").open()]
    assert not any(request in page for request in asked)
    assert f"demur trace {place.relatives.recipient} --donor" in page
    assert "--run" in traced.findings.command


def test_the_same_again_computes_nothing(
    traced: Trace, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("demur.tracing.mapping.Runs", never)
    monkeypatch.setattr("demur.tracing.crossings.attributed", never)
    monkeypatch.setattr("demur.tracing.crossings._both", never)
    again = place.run("both", place.relatives.recipient, donor=str(place.relatives.donor))
    assert again.findings == traced.findings


def test_a_trace_that_was_killed_goes_on(
    traced: Trace, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = subprocess.run(
        [
            *(sys.executable, "-c", KILLED, place.relatives.recipient),
            *("--donor", place.relatives.donor, "--pairs", place.folder / "pairs.jsonl"),
            *("--prompts", "3", "--device", "cpu", "--dtype", "float32"),
            *("--run", place.folder / "again"),
        ],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (place.folder / "again" / "trace.json").exists()
    kept = keys_of(place.folder / "again")
    assert len(kept["arrays"]) == KEPT  # in the middle of the modules that are put over
    assert len(kept["answers"]) == len(keys_of(traced.run)["answers"])
    written: list[str] = []
    add = Journal.add_arrays

    def note(self: Journal, rows: list[tuple[str, bytes]]) -> None:
        written.extend(key for key, _ in rows)
        add(self, rows)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(Journal, "add_arrays", note)
    monkeypatch.setattr(Journal, "add_answers", never)
    monkeypatch.setattr("demur.tracing.mapping.Runs", never)
    after = place.run("again", place.relatives.recipient, donor=str(place.relatives.donor))
    assert not set(written) & set(kept["arrays"])
    assert len(written) + KEPT == len(keys_of(traced.run)["arrays"])
    # Another process may add up in another order, so that last bits may differ.
    assert flat(after.findings.maps) == pytest.approx(flat(traced.findings.maps), **CLOSE)
    assert flat(after.findings.crossings) == pytest.approx(flat(traced.findings.crossings), **CLOSE)


def flat(found: Any) -> list[float]:
    """Return every number of findings, in their order."""
    if is_dataclass(found) and not isinstance(found, type):
        return [number for each in fields(found) for number in flat(getattr(found, each.name))]
    if isinstance(found, tuple | list):
        return [number for each in found for number in flat(each)]
    return [float(found)] if isinstance(found, int | float) else []


def test_a_patch_is_a_donor(place: Place) -> None:
    changes = {}
    for name, added in place.relatives.added.items():
        left, values, right = np.linalg.svd(added.astype("f8"), full_matrices=False)
        changes[name] = LowRank((left[:, :4] * values[:4]).astype("f4"), right[:4].astype("f4"))
    base, patch = place.relatives.base, place.folder / "patch.safetensors"
    make_patch(base, changes, patch, base_name=str(base), recipe={}, results={})
    told: dict[str, Any] = {"donor": str(patch), "kinds": ("mlp",), "fast": True}
    done = place.run("patched", place.relatives.recipient, **told)
    assert done.findings.traced == str(patch)
    assert done.findings.clean.value > done.findings.corrupted.value
    assert (done.run / "donor" / "model.safetensors").exists()
    assert done.findings.crossings[0].whole_harmful.value > done.findings.crossings[0].harmful.value
    with pytest.raises(ConfigError, match="the same weights"):
        place.run("same", done.run / "donor", **told)


def test_noise_tokens_windows_and_projections(place: Place) -> None:
    found = place.run(
        "noise",
        corruption="noise",
        prompts=2,
        draws=2,
        positions="tokens",
        window=3,
        kinds=("state", "o"),
    ).findings
    assert found.draws == 2 and found.deviation > 0 and not found.crossings
    assert [(each.kind, each.window) for each in found.maps] == [
        ("state", 1),
        ("o", 3),
    ]
    assert found.places[-1] == "token -1"
    assert not math.isnan(found.maps[1].cells[-1].effect.value)


def test_fast_is_attribution_alone_and_batches_do_not_matter(
    traced: Trace, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demur.tracing.mapping.UNITS_CPU", 1)
    done = place.run("fast", place.relatives.recipient, donor=str(place.relatives.donor), fast=True)
    for each, before in zip(done.findings.maps, traced.findings.maps, strict=True):
        assert not each.cells and each.agreement is None
        for one, other in zip(each.attributed, before.attributed, strict=True):
            assert (one.layer, one.place) == (other.layer, other.place)
            assert one.effect.value == pytest.approx(other.effect.value, abs=1e-3)
    for crossing in done.findings.crossings:
        assert not crossing.blocks and crossing.attributed
    assert "to first order" in done.report.read_text(encoding="utf-8")


def test_a_model_that_does_not_refuse_is_not_traced(place: Place) -> None:
    with pytest.raises(ModelError, match="too little to trace"):
        place.run("unaligned", place.relatives.recipient)


def test_strangers_are_not_put_over(place: Place) -> None:
    with pytest.raises(ModelError, match="not relatives"):
        place.run("strangers", place.folder / "tiny", donor=str(place.relatives.donor))


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"prompts": 1}, "--prompts is 1, but must be at least 2"),
        ({"window": 0}, "--window is 0"),
        ({"draws": 0}, "--draws is 0"),
        ({"kinds": ("state", "head")}, "--kinds is state head, but must be among"),
        ({"kinds": ()}, "--kinds"),
        ({"modules": ("brain",)}, "--modules is brain"),
        ({"corruption": "fog"}, "--corruption is fog"),
        ({"positions": "all"}, "--positions is all"),
    ],
)
def test_bad_choices(choices: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        TraceConfig("model", **choices)


def test_the_command_line(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *("trace", str(place.relatives.donor), "--pairs", str(place.folder / "pairs.jsonl")),
        *("--prompts", "3", "--kinds", "state", "mlp", "--fast", "--device", "cpu"),
        *("--dtype", "float32", "--run", str(place.folder / "line"), "--json"),
    ]
    assert main(arguments) == 0
    content = json.loads(capsys.readouterr().out)
    assert [each["kind"] for each in content["findings"]["maps"]] == ["state", "mlp"]
    assert content["findings"]["command"].endswith(str(place.folder / "line"))
    with pytest.raises(SystemExit):
        app(["trace", "--help"])
    assert "--corruption" in capsys.readouterr().out
