"""One run by two processes over gloo, each with the model or a share of it: the same weights as by
one, and one voice."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.distill.students import Lenient
from tests.processes import together
from tests.small_run import prepare

from demur.checkpoint import read_patch
from demur.cli import entry
from demur.distilling.config import DistillConfig
from demur.distilling.treatment import distilling
from demur.errors import ConfigError
from demur.grafting.config import GraftConfig
from demur.run.folder import RunFolder
from demur.run.processes import Processes, launched, require_sharing
from demur.treating import pipeline
from demur.treating.pipeline import PATCH

OPTIONS = shlex.split(
    "--pairs pairs.jsonl --ordinary ordinary.jsonl --train-pairs 16 --train-ordinary 8 "
    "--test-pairs 4 --test-ordinary 4 --validation-pairs 4 --prefill 2 --checkpoints 2 "
    "--text-tokens 200 --answer-tokens 4 --longest 300 --batch 8 --micro-batch 4 --train-texts 2 "
    "--sample-tokens 4 --epochs 3 --device cpu --dtype float32"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    prepare(folder)
    return folder


def trained(run: Path) -> list[dict[str, Any]]:
    """Return what is trained, at each of a run's checkpoints."""
    found = sorted(run.glob("training/*/adapter_model.safetensors"))
    return [load_file(path) for path in found]


def same(place: Path, one: str, both: str) -> None:
    """Assert that two runs trained the same weights, and that these have moved."""
    expected, found = trained(place / one), trained(place / both)
    assert len(found) == len(expected) == 2
    for first, second in zip(expected, found, strict=True):
        assert first.keys() == second.keys()
        for tensor in first:
            assert np.allclose(first[tensor], second[tensor], rtol=1e-3, atol=2e-5), tensor
    learnt = [one for name, one in expected[-1].items() if "lora_B" in name]
    assert all(abs(one).max() > 4e-4 for one in learnt)  # far beyond what may differ


# The command line, with a judge to whom a tiny model's babble is an answer.
LENIENT = "from tests.distilling.test_several_processes import lenient; lenient()"
COMMAND = ("-c", LENIENT, "distill", "tiny", *OPTIONS)


def lenient() -> None:
    pipeline.OpeningJudge = Lenient  # type: ignore[misc]
    entry()


def one_process(place: Path, *options: str) -> None:
    (ended,) = together(place, *COMMAND, *options, count=1)
    assert ended.returncode == 0, ended.stderr[-2000:]


@pytest.fixture(scope="module")
def alone(place: Path) -> str:
    one_process(place, "--run", "one")
    return "one"


def test_two_processes_come_to_what_one_comes_to(place: Path, alone: str) -> None:
    leader, follower = together(place, *COMMAND, "--run", "both")
    assert leader.returncode == follower.returncode == 0, leader.stderr + follower.stderr
    assert "the report is" in leader.stderr
    assert "Training" not in follower.stderr and not follower.stdout
    same(place, alone, "both")
    log = (place / "both" / "run.log").read_text(encoding="utf-8")
    assert log.count("== Making lessons") == log.count("== Training") == 1
    assert (place / "both" / "result.json").exists()
    states = {path.name for path in (place / "both").glob("training/*/rng_state*")}
    assert states == {"rng_state_0.pth", "rng_state_1.pth"}


def test_a_model_that_is_divided_comes_to_the_same(place: Path, alone: str) -> None:
    leader, follower = together(place, *COMMAND, "--run", "shares", divided=True)
    assert leader.returncode == follower.returncode == 0, leader.stderr + follower.stderr
    same(place, alone, "shares")
    first, second = (read_patch(place / run / PATCH).manifest for run in (alone, "shares"))
    assert [one.tensor for one in first.entries] == [one.tensor for one in second.entries]


def test_a_model_that_is_divided_is_reinforced(place: Path) -> None:
    options = ("--objective", "rloo", "--run", "rloo-shares")
    leader, follower = together(place, *COMMAND, *options, divided=True)
    assert leader.returncode == follower.returncode == 0, leader.stderr + follower.stderr
    assert "training steps" in leader.stderr and len(trained(place / "rloo-shares")) == 2


def test_preferences_are_learnt_by_a_model_that_is_divided(place: Path) -> None:
    options = ("--objective", "dpo", "--run")
    one_process(place, *options, "dpo")
    leader, follower = together(place, *COMMAND, *options, "dpo-shares", divided=True)
    assert leader.returncode == follower.returncode == 0, leader.stderr + follower.stderr
    same(place, "dpo", "dpo-shares")


def test_a_reward_is_learnt_by_two_processes_as_by_one(place: Path) -> None:
    more = tuple("24" if one == "16" else one for one in COMMAND)  # pairs; some are held out
    options = (*more, "--objective", "rloo", "--reward", "learned", "--run")
    (alone,) = together(place, *options, "reward", count=1)
    leader, follower = together(place, *options, "reward-both")
    for ended in (alone, leader, follower):
        assert ended.returncode == 0, ended.stderr[-2000:]
    first, second = (
        load_file(place / run / "reward-0.safetensors") for run in ("reward", "reward-both")
    )
    assert first.keys() == second.keys() and len(first) > 10
    for name, tensor in first.items():
        assert np.allclose(tensor, second[name], rtol=1e-3, atol=2e-5), name
    assert all(abs(tensor).max() > 1e-5 for name, tensor in first.items() if name.endswith(".up"))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_what_a_process_is(two: pytest.MonkeyPatch) -> None:
    assert launched() == Processes(1, 2, 1)
    assert launched().several and launched().follows
    two.setenv("WORLD_SIZE", "1")
    assert launched() == Processes() and not launched().several


def test_what_several_processes_cannot_do_is_said(two: pytest.MonkeyPatch) -> None:
    require_sharing("distill", DistillConfig.parallel)
    with pytest.raises(ConfigError, match="`demur graft` is the work of one process, and 2 were"):
        require_sharing("graft", GraftConfig.parallel)
    two.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match="by DeepSpeed") as failed:
        require_sharing("distill", DistillConfig.parallel)
    assert "--use_fsdp" in failed.value.remedy
    two.setenv("WORLD_SIZE", "1")
    require_sharing("graft", GraftConfig.parallel)


def test_fsdp_becomes_a_matter_of_demurs_own(two: pytest.MonkeyPatch) -> None:
    two.setenv("DEMUR_DIVIDED", "0")  # put back at the end, with what is set below
    two.setenv("ACCELERATE_USE_FSDP", "true")
    assert launched() == Processes(1, 2, 1, divided=True)
    require_sharing("distill", DistillConfig.parallel)
    assert "ACCELERATE_USE_FSDP" not in os.environ  # accelerate would divide LoRA's weights too
    assert launched().divided
    two.setenv("WORLD_SIZE", "1")
    assert not launched().divided


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"objective": "rloo", "reward": "learned"}, "and not for a learned reward"),
        ({"objective": "logits"}, "and not for logits"),
        ({"full": True}, "and not for all weights"),
    ],
)
def test_trainings_that_cannot_be_divided_are_said(
    two: pytest.MonkeyPatch, choices: dict[str, Any], said: str
) -> None:
    two.setenv("DEMUR_DIVIDED", "1")
    distilling(DistillConfig("tiny", objective="dpo"))
    with pytest.raises(ConfigError, match=said):
        distilling(DistillConfig("tiny", **choices))


def test_a_batch_that_cannot_be_divided_is_said(two: pytest.MonkeyPatch) -> None:
    distilling(DistillConfig("tiny", batch=8))
    with pytest.raises(ConfigError, match="batch of 7 lessons cannot be divided among 2 proc"):
        distilling(DistillConfig("tiny", batch=7))


def test_a_follower_neither_locks_nor_writes(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {"a": 1}) as leader:
        leader.journal.keep_fact("said", 1)
        with RunFolder(tmp_path / "run", {"a": 1}, follows=True) as follower:
            assert follower.follows and follower.journal.fact("said") == 1
            follower.journal.keep_fact("said", 2)
            follower.journal.add_arrays([("key", b"value")])
        assert leader.journal.fact("said") == 1 and leader.journal.count("arrays") == 0
    assert os.listdir(tmp_path) == ["run"]
