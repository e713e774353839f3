"""One run by two processes over gloo: the same weights as by one, and one voice."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.processes import together
from tests.small_run import demur, prepare

from demur.distilling.config import DistillConfig
from demur.distilling.treatment import distilling
from demur.errors import ConfigError
from demur.grafting.config import GraftConfig
from demur.run.folder import RunFolder
from demur.run.processes import Processes, launched, require_sharing

OPTIONS = shlex.split(
    "--pairs pairs.jsonl --ordinary ordinary.jsonl --train-pairs 16 --train-ordinary 8 "
    "--test-pairs 4 --test-ordinary 4 --validation-pairs 4 --prefill 2 --checkpoints 2 "
    "--text-tokens 200 --answer-tokens 4 --longest 300 --batch 8 --micro-batch 4 --train-texts 2 "
    "--sample-tokens 4 --device cpu --dtype float32"
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


def test_two_processes_come_to_what_one_comes_to(place: Path) -> None:
    command = ["-m", "demur", "distill", "tiny", *OPTIONS]
    alone = demur(place, *command[2:], "--run", "one")
    assert alone.returncode == 0, alone.stderr[-2000:]
    leader, follower = together(place, *command, "--run", "both")
    assert leader.returncode == follower.returncode == 0, leader.stderr + follower.stderr
    assert "the report is" in leader.stderr
    assert "Training" not in follower.stderr and not follower.stdout
    expected, found = trained(place / "one"), trained(place / "both")
    assert len(found) == len(expected) == 2
    for one, two in zip(expected, found, strict=True):
        assert one.keys() == two.keys()
        for tensor in one:
            assert np.allclose(one[tensor], two[tensor], rtol=1e-3, atol=2e-5), tensor
    log = (place / "both" / "run.log").read_text(encoding="utf-8")
    assert log.count("== Making lessons") == log.count("== Training") == 1
    assert (place / "both" / "result.json").exists()
    states = {path.name for path in (place / "both").glob("training/*/rng_state*")}
    assert states == {"rng_state_0.pth", "rng_state_1.pth"}


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
    two.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"divide the model among them \(FSDP\)"):
        require_sharing("distill", DistillConfig.parallel)
    two.setenv("WORLD_SIZE", "1")
    require_sharing("graft", GraftConfig.parallel)


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
