"""A graft that is killed in its search, in writing its patch and its model: nothing by halves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distill.students import Quiet
from tests.small_graft import prepare
from tests.small_run import ENVIRONMENT
from tests.test_killed import watch, written_again

from demur.checkpoint import checkpoint_hash, open_checkpoint, read_patch
from demur.grafting.graft import graft
from demur.treating.treated import Outcome

SMALL: dict[str, Any] = {
    "search_pairs": 6,
    "test_pairs": 4,
    "test_ordinary": 2,
    "validation_pairs": 2,
    "prefill": 0,
    "text_tokens": 100,
    "answer_tokens": 24,  # the tiny tokenizer cuts words into many
    "shares": (1.0,),
    "ranks": (),
    "search": "prefix",
    "checked": 1,
    "max_share": 1.0,
    "device": "cpu",
    "dtype": "float32",
}
# Dies of SIGKILL at a moment that does not depend on how fast the machine is.
KILLED = """
import json, os, signal, sys
from pathlib import Path

from demur.grafting.graft import graft

kill = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "search":
    from demur.graft.oracle import Oracle
    Oracle.judge = kill
elif sys.argv[1] == "patch":
    from demur.checkpoint import patch
    patch.copy_range = kill
else:
    from demur.checkpoint import copying
    copying._Run.copy_all = kill
told = json.loads(sys.argv[2])
graft(told.pop("recipient"), run=Path(told.pop("run")), **told)
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()  # the killed processes have one: sums in the same order
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def finished(told: dict[str, Any], run: Path) -> Outcome:
    choices = {key: value for key, value in told.items() if key != "recipient"}
    return graft(told["recipient"], run=run, narrator=Quiet(), **choices)


def record(outcome: Outcome) -> dict[str, Any]:
    """Return what the search found, without what it took."""
    content: dict[str, Any] = json.loads((outcome.run / "graft.json").read_text(encoding="utf-8"))
    for point in content["points"]:
        del point["cost"]
    del content["search"]["cost"]
    return content


def test_killed_a_graft_leaves_nothing_by_halves_and_goes_on(tmp_path: Path) -> None:
    family = prepare(tmp_path)
    told = {
        "recipient": str(family.recipient),
        "donor": str(family.donor),
        "base": str(family.base),
        "harmful": str(tmp_path / "harmful.jsonl"),
        "ordinary": str(tmp_path / "ordinary.jsonl"),
        **SMALL,
    }
    run = tmp_path / "killed"
    for moment in ("search", "patch", "model"):
        done = subprocess.run(
            [
                *(sys.executable, "-c", KILLED, moment),
                json.dumps({**told, "run": str(run)}),
            ],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (run / "model").exists()
        assert (run / "patch.safetensors").exists() == (moment == "model")
        assert not (run / "result.json").exists()
        if moment == "search":
            watch(run / "journal.sqlite")
    again, whole = finished(told, run), finished(told, tmp_path / "whole")
    assert written_again(run / "journal.sqlite") == []
    assert not list(run.glob(".*.partial"))
    ours, theirs = (read_patch(one.patch).manifest for one in (again, whole))
    assert (ours.hash, ours.result_hash) == (theirs.hash, theirs.result_hash)
    assert checkpoint_hash(open_checkpoint(again.model)) == ours.result_hash
    first, second = record(again), record(whole)
    assert first == second
    assert first["search"]["tests"] > 0
    assert first["agreement"]["decisions"]["n"] == 1
