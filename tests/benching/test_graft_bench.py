"""A small bench of grafts on tiny relatives: rows, rivals and controls, kept and shown."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.distill.students import Quiet
from tests.relatives import make_refusing

from demur.benching.grafts import bench as room
from demur.benching.grafts.bench import Benched, bench_graft
from demur.benching.grafts.config import GraftBenchConfig
from demur.benching.grafts.result import Result
from demur.benching.grafts.rows import ROWS
from demur.benching.grafts.summary import contests, summaries
from demur.checkpoint import checkpoint_hash, open_checkpoint
from demur.errors import ConfigError, Interrupted
from demur.prompts.builtin import builtin_set
from demur.stats import mcnemar

SMALL: dict[str, Any] = {
    "search_pairs": 6,
    "test_pairs": 4,
    "test_ordinary": 2,
    "validation_pairs": 2,
    "prefill": 2,
    "text_tokens": 100,
    "answer_tokens": 12,
    "shares": (1.0,),
    "ranks": (1,),
    "max_share": 1.0,
    "tests": 4,
    "device": "cpu",
    "dtype": "float32",
}
CORE = ("untouched", "donor", "open", "paper", "released", "random", "noise", "vector")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> GraftBenchConfig:
    folder = tmp_path_factory.mktemp("grafts")
    # The shortest, since the tiny tokenizer cuts words into many tokens; all are taught.
    asked, twins, ordinary = (
        sorted((one.text for one in builtin_set().of(kind)), key=len)[:count]
        for kind, count in (("harmful", 28), ("twin", 14), ("ordinary", 14))
    )
    for name, lines in (("harmful", asked), ("benign", twins), ("ordinary", ordinary)):
        text = "".join(json.dumps({"prompt": one}) + "\n" for one in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    family = make_refusing(
        folder / "family", steps=120, harmful=asked, benign=(*twins, *ordinary), rank=4
    )
    second = folder / "family" / "second"
    shutil.copytree(family.recipient, second)
    weights = load_file(second / "model.safetensors")
    noise = np.random.default_rng(7)
    other = {
        name: (values + 1e-3 * noise.standard_normal(values.shape)).astype("f4")
        if "layers" in name and values.ndim == 2
        else values
        for name, values in weights.items()
    }
    save_file(other, second / "model.safetensors", {"format": "pt"})
    return GraftBenchConfig(
        str(family.base),
        donor=str(family.donor),
        recipients=(str(family.recipient), str(second)),
        rows=CORE,
        harmful=str(folder / "harmful.jsonl"),
        benign=str(folder / "benign.jsonl"),
        ordinary=str(folder / "ordinary.jsonl"),
        **SMALL,
    )


@pytest.fixture(scope="module")
def place(config: GraftBenchConfig) -> Path:
    return Path(config.model).parents[1]


@pytest.fixture(scope="module")
def benched(config: GraftBenchConfig, place: Path) -> Benched:
    return bench_graft(config, run=place / "run", narrator=Quiet())


def found(benched: Benched, row: str, recipient: str = "recipient") -> Result:
    return next(one for one in benched.results if (one.row, one.recipient) == (row, recipient))


def test_every_row_of_every_recipient_is_measured(benched: Benched) -> None:
    assert [(one.recipient, one.row) for one in benched.results] == [
        (name, row) for name in ("recipient", "second") for row in ROWS if row in CORE
    ]
    assert not benched.missing
    for one in benched.results:
        counts = {key: len(refused) for key, refused in one.refused.items()}
        assert counts == {"harmful": 2, "twins": 2, "ordinary": 2, "prefill": 2}
        assert one.perplexity_ratio["value"] > 0
    untouched = found(benched, "untouched")
    assert untouched.rate("harmful") == untouched.share == untouched.passes == 0
    assert untouched.perplexity_ratio["value"] == 1
    assert found(benched, "open").rate("harmful") > 0.5
    assert found(benched, "donor").rate("harmful") > 0.5


def test_a_graft_says_what_it_is_and_what_it_took(benched: Benched) -> None:
    graft, vector = found(benched, "open"), found(benched, "vector")
    assert graft.candidate is not None
    assert graft.candidate["scale"] > 0
    assert graft.passes > 50
    assert graft.seconds > 0
    assert 0 < graft.share <= graft.touched < 1
    assert 0 < vector.share < vector.touched < 1  # low factors, whole tensors
    paper = found(benched, "paper")
    assert paper.candidate is not None
    assert all(name.endswith(".gate") for name in paper.candidate["modules"])
    assert found(benched, "released").passes == 0


def test_controls_are_of_the_graft_s_size(benched: Benched) -> None:
    graft, random, noise = (found(benched, row) for row in ("open", "random", "noise"))
    assert graft.candidate is not None
    assert random.candidate is not None
    assert len(random.candidate["modules"]) == len(graft.candidate["modules"])
    assert (random.candidate["scale"], random.candidate["rank"]) == (
        graft.candidate["scale"],
        graft.candidate["rank"],
    )
    assert noise.share == graft.share
    assert noise.divergence["value"] > 0
    assert noise.rate("harmful") < graft.rate("harmful")


def test_the_tables_show_every_row_and_the_test(benched: Benched, place: Path) -> None:
    bench_text = benched.table.read_text(encoding="utf-8")
    for row in CORE:
        assert bench_text.count(f"| {ROWS[row].title} |") >= 3 - (row == "untouched")
    kept = json.loads(benched.figures.read_text(encoding="utf-8"))
    assert {one["row"] for one in kept["against"]} == set(CORE) - {"open"}
    plot = (benched.run / "bench.svg").read_text(encoding="utf-8")
    assert all(ROWS[row].title in plot for row in CORE if row != "untouched")


def test_nothing_is_made_twice_and_nothing_of_a_model_is_written(
    config: GraftBenchConfig, place: Path, benched: Benched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("a row was made again")

    monkeypatch.setattr(room, "_row", never)
    monkeypatch.setattr(room, "_untouched", never)
    again = bench_graft(config, run=place / "run", narrator=Quiet())
    assert again.results == benched.results
    written = [
        path for path in (place / "run").rglob("*.safetensors") if "deltas" not in path.parts
    ]
    assert written == []


def test_rows_and_recipients_are_added_to_a_finished_bench(
    config: GraftBenchConfig, place: Path, benched: Benched, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, str]] = []
    real = room._row

    def noted(recipient: Any, name: str, *others: Any) -> Any:
        made.append((recipient.name, name))
        return real(recipient, name, *others)

    third = place / "family" / "third"
    shutil.copytree(place / "family" / "base", third)
    more = replace(
        config,
        rows=("untouched", "vector", "safe-merge", "resta", "safe-lora", "lox", "vector-tuned"),
        recipients=(config.recipients[1], str(third)),
    )
    before = checkpoint_hash(open_checkpoint(Path(config.recipients[1])))

    def struck(recipient: Any, name: str, *others: Any) -> Any:
        if name == "resta":
            raise KeyboardInterrupt
        return noted(recipient, name, *others)

    monkeypatch.setattr(room, "_row", struck)
    with pytest.raises(Interrupted):
        bench_graft(more, run=place / "run", narrator=Quiet())
    assert made == [("second", "vector-tuned")]
    monkeypatch.setattr(room, "_row", noted)
    again = bench_graft(more, run=place / "run", narrator=Quiet())
    rivals = ("vector-tuned", "resta", "safe-lora", "safe-merge", "lox")
    assert made[:5] == [("second", row) for row in rivals]
    assert {row for name, row in made if name == "third"} == {"untouched", "vector", *rivals}
    assert [one.row for one in again.missing] == ["safe-lora", "safe-merge"]
    assert "third" in (again.run / "bench.md").read_text(encoding="utf-8")
    assert checkpoint_hash(open_checkpoint(Path(config.recipients[1]))) == before


def made_up(recipient: str, row: str, harmful: list[int], twins: list[int]) -> Result:
    return Result(
        *(recipient, row, row, "graft", "", 0.01, 0.02, 5, 60.0),
        {"harmful": harmful, "twins": twins},
        *({}, {}, {"value": 1.0}, {"value": 0.0}, None),
    )


def test_prompts_count_once_however_many_recipients() -> None:
    results = [
        *(made_up(name, "untouched", [0] * 8, [0] * 4) for name in "ab"),
        *(made_up(name, "open", [1] * 8, [0, 0, 0, 1]) for name in "ab"),
        *(made_up(name, "vector", [1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0]) for name in "ab"),
    ]
    of = {one.row: one for one in contests(results)}
    assert (of["vector"].more, of["vector"].fewer) == (6, 0)
    assert of["vector"].p_value == mcnemar(6, 0)
    assert (of["vector"].spared, of["vector"].hit) == (2, 1)
    assert of["vector"].p_holm == of["vector"].p_value  # the larger of two
    assert of["untouched"].p_holm == 2 * mcnemar(8, 0)
    assert of["vector"].better == 2
    over = {one.row: one for one in summaries(results)}
    assert over["vector"].gains["harmful"].value == 0.25
    assert over["vector"].gains["twins"].value == 0.5
    assert over["open"].score.value == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("choices", "cause"),
    [
        ({"rows": ("open", "magic")}, "no row 'magic'"),
        ({"recipients": ()}, "--recipients"),
        ({"recipients": ("a", "a")}, "--recipients"),
        ({"base": "other"}, "--base"),
        ({"mode": "paper"}, "--mode"),
    ],
)
def test_wrong_choices_are_an_error_before_any_work(
    place: Path, choices: dict[str, Any], cause: str
) -> None:
    with pytest.raises(ConfigError, match=cause):
        bench_graft(
            "tiny",
            run=place / "wrong",
            narrator=Quiet(),
            **{"donor": "d", "recipients": ("a",), **choices},
        )
    assert not (place / "wrong").exists()
