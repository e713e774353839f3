"""A small bench on a tiny model: every row is made, kept, and shown with its controls."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.distill.students import Quiet
from tests.small_run import ENVIRONMENT, SMALLEST, prepare

from demur.benching import bench as room
from demur.benching.bench import bench_distill
from demur.benching.config import BenchConfig
from demur.benching.tables import Result, over_seeds
from demur.errors import ConfigError

pytestmark = pytest.mark.usefixtures("lenient")

ROWS = ("untouched", "prompt", "shown", "template", "sft", "noise", "dpo", "logits", "discriminant")


def config(place: Path) -> BenchConfig:
    return BenchConfig(
        str(place / "tiny"),
        pairs=str(place / "pairs.jsonl"),
        ordinary=str(place / "ordinary.jsonl"),
        train_pairs=24,
        train_ordinary=8,
        test_pairs=8,
        test_ordinary=6,
        validation_pairs=6,
        text_tokens=300,
        train_texts=4,
        rows=ROWS,
        seeds=(0, 1),
        **SMALLEST,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def benched(place: Path) -> room.Benched:
    return bench_distill(config(place), run=place / "run", narrator=Quiet())


def test_every_row_has_all_its_figures(benched: room.Benched) -> None:
    kept = json.loads(benched.figures.read_text(encoding="utf-8"))
    assert [(one["row"], one["seed"]) for one in kept["results"]] == [
        ("untouched", 0), ("prompt", 0), ("shown", 0), ("template", 0), ("template", 1),
        ("discriminant", 0), ("discriminant", 1), ("sft", 0), ("sft", 1), ("noise", 0),
        ("noise", 1), ("dpo", 0), ("dpo", 1), ("logits", 0), ("logits", 1),
    ]  # fmt: skip
    for one in benched.results:
        assert {key: len(found) for key, found in one.refused.items()} == {
            "harmful": 8, "twins": 8, "ordinary": 6, "prefill": 2,
            "harmful-prefill-0": 2, "harmful-prefill-5": 2, "harmful-prefill-10": 2,
            "harmful-prefill-20": 2,
        }  # fmt: skip
        assert one.peak_memory > 50e6
        assert one.seconds > 0
        assert one.perplexity_ratio["value"] > 0
    untouched = benched.results[0]
    assert untouched.perplexity_ratio["value"] == 1
    assert abs(untouched.divergence["value"]) < 1e-6
    trained = [one for one in benched.results if one.row == "sft"]
    assert all(one.divergence["value"] > 0 for one in trained)
    assert trained[0].note.startswith("step ")
    assert 0 < kept["probe"]["against_ordinary"]["value"] <= 1


def test_the_table_and_the_plot_show_every_row(benched: room.Benched) -> None:
    lines = benched.table.read_text(encoding="utf-8").splitlines()
    rows = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:] if line.startswith("|")]
    assert rows == [
        "untouched", "safety system prompt", "examples in its context, the self-teacher",
        "refusals only, SFT",
        "discriminant direction in weights", "SFT, anchored", "noise of equal size", "DPO",
        "self, logits on own samples",
    ]  # fmt: skip
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
    plot = (benched.run / "bench.svg").read_text(encoding="utf-8")
    assert all(title in plot for title in rows)
    assert "linear probe" in plot


def test_minimal_pairs_are_asked_of_rows_that_are_there(
    place: Path, benched: room.Benched, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"UID": "agreement", "sentence_good": f"he {n}", "sentence_bad": f"he {n} {n}"}
        for n in range(5)
    ]
    path = place / "pairs-of-blimp.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = replace(config(place), blimp=str(path), rows=("untouched", "sft"))
    again = bench_distill(asked, run=benched.run, narrator=Quiet())
    assert [one.pairs for one in again.results] == [[1] * 5] * 3  # what is shorter is likelier
    assert [one.refused for one in again.results] == [
        one.refused for one in benched.results if one.row in asked.rows
    ]
    assert "BLiMP (n 5)" in again.table.read_text(encoding="utf-8")
    monkeypatch.setattr(room, "judge_pairs", None)  # asked once
    assert bench_distill(asked, run=benched.run, narrator=Quiet()).results == again.results


def test_nothing_is_made_twice(
    place: Path, benched: room.Benched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("a row was made again")

    monkeypatch.setattr(room, "_row", never)
    again = bench_distill(config(place), run=place / "run", narrator=Quiet())
    assert again.results == benched.results


def test_rows_and_seeds_are_added_to_a_finished_bench(
    place: Path, benched: room.Benched, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, real = [], room._row

    def noted(bench: Any, name: str, seed: int, *others: Any) -> Any:
        made.append((name, seed))
        return real(bench, name, seed, *others)

    monkeypatch.setattr(room, "_row", noted)
    more = replace(config(place), rows=("untouched", "one-shot", "template"), seeds=(1, 2))
    again = bench_distill(more, run=place / "run", narrator=Quiet())
    assert made == [("one-shot", 1), ("one-shot", 2), ("template", 2)]
    assert [(one.row, one.seed) for one in again.results] == [("untouched", 0), *made[:2],
        ("template", 1), ("template", 2)]  # fmt: skip


def test_a_row_is_told_its_own_training_alone(benched: room.Benched) -> None:
    phases = {one.row: one.seconds for one in benched.results if one.seed == 0}
    with sqlite3.connect(benched.run / "journal.sqlite") as connection:
        kept = dict(connection.execute("SELECT key, value FROM facts WHERE key LIKE 'seconds/%'"))
    for row in ("template", "dpo", "logits"):
        assert phases[row] == float(kept[f"seconds/Training: {row}, seed 0"])
    # noise looks the trained change up again, after the row was written down
    assert phases["sft"] < float(kept["seconds/Training: sft, seed 0"])


def test_an_unknown_row_is_an_error_before_any_work(place: Path) -> None:
    wrong = replace(config(place), rows=("sft", "magic"))
    with pytest.raises(ConfigError, match="no row 'magic'") as error:
        bench_distill(wrong, run=place / "wrong", narrator=Quiet())
    assert "untouched" in error.value.remedy
    assert not (place / "wrong").exists()


@pytest.mark.parametrize(
    ("row", "option"), [("arithmetic", "--donor"), ("cross-varied", "--cross-teacher")]
)
def test_a_row_that_lacks_what_it_is_made_from_is_an_error_before_any_work(
    place: Path, row: str, option: str
) -> None:
    with pytest.raises(ConfigError, match=f"'{row}' needs") as error:
        bench_distill(replace(config(place), rows=(row,)), run=place / "bare", narrator=Quiet())
    assert option in error.value.remedy
    assert not (place / "bare").exists()


def test_seeds_are_averaged_before_prompts() -> None:
    def result(refused: list[int]) -> Result:
        return Result(
            "sft", "SFT", "method", 0, "", 1.0, 1, {"harmful": refused}, {}, {}, {}, {}, {}
        )

    found = over_seeds([result([1, 1, 0, 0]), result([1, 0, 0, 0])], "harmful")
    assert found.value == pytest.approx(3 / 8)
    assert found.n == 4


def join(*arguments: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[2] / "scripts" / "join_benches.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )


def test_benches_that_ran_apart_are_joined(benched: room.Benched, tmp_path: Path) -> None:
    whole = json.loads(benched.figures.read_text(encoding="utf-8"))
    for name, kept in (("one", slice(0, None, 2)), ("other", slice(1, None, 2))):
        (tmp_path / name).mkdir()
        part = {**whole, "results": whole["results"][kept]}
        (tmp_path / name / "bench.json").write_text(json.dumps(part), encoding="utf-8")
    done = join(tmp_path / "joined", tmp_path / "other", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    joined = json.loads((tmp_path / "joined" / "bench.json").read_text(encoding="utf-8"))
    assert joined["results"] == whole["results"]
    table = (tmp_path / "joined" / "bench.md").read_text(encoding="utf-8")
    assert table == benched.table.read_text(encoding="utf-8")
    other = {**whole, "configuration": {**whole["configuration"], "test_pairs": 1}}
    (tmp_path / "other" / "bench.json").write_text(json.dumps(other), encoding="utf-8")
    apart = join(tmp_path / "apart", tmp_path / "other", tmp_path / "one")
    assert apart.returncode == 2
    assert "differ in test_pairs" in apart.stderr and "Traceback" not in apart.stderr
    assert not (tmp_path / "apart").exists()
