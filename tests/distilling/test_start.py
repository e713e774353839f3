"""Runs that go on from an earlier run's patch, and patches that they cannot go on from."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.distill.students import Quiet
from tests.distilling.test_distill import SMALL
from tests.small_run import prepare
from tests.tiny import tiny_llama

from demur.aligning.align import align
from demur.aligning.config import AlignConfig
from demur.checkpoint import Dense, checkpoint_hash, make_patch, open_checkpoint, read_patch
from demur.distill import choose
from demur.distill.choose import Candidate
from demur.distilling import treatment
from demur.distilling.config import DistillConfig
from demur.distilling.distill import distill
from demur.distilling.start import read_start
from demur.errors import CheckpointError, ConfigError, DemurError, TrainingError
from demur.stats import rate
from demur.treating.treated import Outcome


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> DistillConfig:
    folder = tmp_path_factory.mktemp("start")
    prepare(folder)
    sources = {"pairs": str(folder / "pairs.jsonl"), "ordinary": str(folder / "ordinary.jsonl")}
    return DistillConfig(str(folder / "tiny"), **SMALL, **sources)


@pytest.fixture(scope="module")
def first(config: DistillConfig) -> Outcome:
    return distill(config, run=Path(config.model).parent / "first", narrator=Quiet())


def test_reinforcement_goes_on_from_what_was_taught(config: DistillConfig, first: Outcome) -> None:
    onward = replace(config, objective="rloo", from_patch=str(first.run), rank=9, epochs=1)
    second = distill(onward, run=first.run.parent / "second", narrator=Quiet())
    entries = read_patch(second.patch).manifest.entries
    assert {entry.tensor for entry in entries} == {
        entry.tensor for entry in read_patch(first.patch).manifest.entries
    }
    assert {entry.rank for entry in entries} == {9}
    assert "begun as that of an earlier run" in second.report.read_text("utf-8")
    untouched = [[one.before for one in run.scorecard.comparisons] for run in (first, second)]
    assert untouched[0] == untouched[1]  # it is compared with the student as that was


def test_a_run_is_another_where_it_begins_with_another_change(
    config: DistillConfig, first: Outcome, tmp_path: Path
) -> None:
    assert "from_patch" not in config.identity()  # runs of earlier versions go on
    begun = replace(config, from_patch=str(first.run)).identity()
    assert begun != config.identity()
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(first.patch.read_bytes())
    assert replace(config, from_patch=str(moved)).identity() == begun
    name = "model.norm.weight"
    base = Path(config.model)
    other = Dense(np.full(open_checkpoint(base).tensors[name].shape, 2, "f4"))
    moved.unlink()
    make_patch(base, {name: other}, moved, base_name="x", recipe={}, results={})
    assert replace(config, from_patch=str(moved)).identity() != begun


def test_lessons_of_another_seed_are_refused_before_any_work(
    config: DistillConfig, first: Outcome
) -> None:
    run = first.run.parent / "never"
    with pytest.raises(ConfigError, match="trained with the seed 0") as failed:
        distill(replace(config, seed=1, from_patch=str(first.patch)), run=run, narrator=Quiet())
    assert failed.value.remedy == "Give --seed 0."
    with pytest.raises(CheckpointError):
        distill(replace(config, from_patch="nowhere"), run=run, narrator=Quiet())
    shared = {each.name: getattr(config, each.name) for each in fields(config)}
    with pytest.raises(ConfigError, match="trained with the seed 0"):
        align(
            AlignConfig(**{**shared, "seed": 1, "from_patch": str(first.patch)}),
            run=run,
            narrator=Quiet(),
        )
    assert not run.exists()


def test_patches_that_training_cannot_begin_from(
    config: DistillConfig, first: Outcome, tmp_path: Path
) -> None:
    base = Path(config.model)
    own = checkpoint_hash(open_checkpoint(base))
    other = checkpoint_hash(open_checkpoint(tiny_llama(tmp_path / "other", seed=3)))

    def refused(config: DistillConfig, weights: str) -> DemurError:
        with pytest.raises(DemurError) as failed:
            read_start(config, weights)
        return failed.value

    begun = replace(config, from_patch=str(first.patch))
    assert read_start(begun, own)
    assert "`demur graft`" in refused(begun, other).remedy
    assert refused(replace(begun, rank=4), own).remedy == "Give --rank 8."
    name = "model.norm.weight"
    whole = Dense(np.full(open_checkpoint(base).tensors[name].shape, 2, "f4"))
    path = tmp_path / "whole.safetensors"
    make_patch(base, {name: whole}, path, base_name="x", recipe={}, results={})
    assert "low rank" in refused(replace(config, from_patch=str(path)), own).cause
    with pytest.raises(ConfigError, match="all weights are trained"):
        replace(begun, full=True)


def test_a_student_that_was_taught_to_refuse_less_is_not_written(
    config: DistillConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        treatment, "refusal_rates", lambda *_: (rate(80, 80), rate(0, 80), rate(0, 80))
    )
    monkeypatch.setattr(treatment, "teach", taught_nothing)
    monkeypatch.setattr(choose, "put", lambda *_: None)
    run = Path(config.model).parent / "less"
    with pytest.raises(TrainingError, match="0 of 80 harmful validation requests, and 80 before"):
        distill(config, run=run, narrator=Quiet())
    assert not (run / "patch.safetensors").exists()
    assert not (run / "model").exists()


def taught_nothing(config: Any, context: Any, chat: Any, *_: Any, **__: Any) -> treatment.Taught:
    """Come to a checkpoint that answers everything."""
    none = rate(0, 80)
    chosen = Candidate(none, none, none, Path("checkpoint-1"), 1.0)
    return treatment.Taught(chosen, (chosen,))
