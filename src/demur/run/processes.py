"""Several processes launched for one run: one leads it, the others follow it through training.

    torchrun --nproc-per-node 2 -m demur distill ...      # or `accelerate launch`

The leader alone opens the run folder for writing, measures, makes lessons, chooses, and reports.
A follower waits where the leader has not yet been, reads what it found from the journal, takes its
share of every training step, and is done. What a process is, launchers say in its environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from demur.errors import ConfigError

PATIENCE = timedelta(days=7)  # the leader's other work may take that long
# of torchrun and accelerate launch, of Open MPI, and of other MPIs
COUNTS = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
LOCALS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
FSDP, DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
DIVIDED = "DEMUR_DIVIDED"  # what FSDP becomes, since accelerate would divide the model its own way


@dataclass(frozen=True)
class Processes:
    """What this process is among those that were launched together.

    Attributes:
        rank: its number; 0 leads.
        count: how many there are.
        local: its number on this machine, which is that of its GPU.
        divided: whether they hold a student that is trained in shares (`distill.divided`).
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    divided: bool = False

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    @property
    def follows(self) -> bool:
        """Whether another process leads."""
        return self.rank > 0

    def meet(self, *, on_cpu: bool) -> None:
        """Wait until all processes are here.

        Args:
            on_cpu: whether the run computes on CPUs, so that they talk over gloo.
        """
        if self.several:
            self._state(on_cpu).wait_for_everyone()

    def all(self, here: bool, device: Any) -> bool:
        """Return whether something is so in every process; all of them ask at the same place."""
        import torch

        said = torch.tensor(int(here), device=device)
        torch.distributed.all_reduce(said, torch.distributed.ReduceOp.MIN)
        return bool(said)

    @contextmanager
    def leader_first(self, *, on_cpu: bool) -> Iterator[None]:
        """Have the leader go through the block before all others do."""
        if self.follows:
            self.meet(on_cpu=on_cpu)
        yield
        if not self.follows:
            self.meet(on_cpu=on_cpu)

    def part(self, *, on_cpu: bool) -> None:
        """End what holds the processes together; each goes on alone."""
        if not self.several:
            return
        import torch
        from accelerate.state import AcceleratorState, PartialState

        self.meet(on_cpu=on_cpu)
        torch.distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()

    @staticmethod
    def _state(on_cpu: bool) -> Any:
        from accelerate.state import PartialState

        return PartialState(cpu=on_cpu, timeout=PATIENCE)


def launched() -> Processes:
    """Return what this process is, by its environment."""
    count = _number(COUNTS) or 1
    if count == 1:
        return Processes()
    return Processes(_number(RANKS), count, _number(LOCALS), _is_set(FSDP) or _is_set(DIVIDED))


def _number(names: tuple[str, ...]) -> int:
    """Return the first of these variables that is a number, or 0."""
    said = (os.environ.get(name, "") for name in names)
    return next((int(one) for one in said if one.isdecimal()), 0)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in ("1", "true")


def require_sharing(command: str, shares: bool) -> None:
    """Check that a command can be run by the processes that were launched.

    From then on FSDP is demur's own matter, and neither transformers nor accelerate hear of it.

    Args:
        command: as the user wrote it, for the error.
        shares: whether several processes may run it together.

    Raises:
        ConfigError: it cannot, or they were told to divide the model in a way that is not known.
    """
    if not launched().several:
        return
    if not shares:
        raise ConfigError(
            f"`demur {command}` is the work of one process, and {launched().count} were launched.",
            "Run it without accelerate launch or torchrun; distill and align can be launched so.",
        )
    if _is_set(DEEPSPEED):
        raise ConfigError(
            "The processes were launched to divide the model among them by DeepSpeed.",
            "Launch them with --use_fsdp --fsdp_version 2, or without either: each then holds the "
            "whole model and trains on its share of every step.",
        )
    if _is_set(FSDP):
        del os.environ[FSDP]
        os.environ[DIVIDED] = "1"


def require_gpu(there: int) -> None:
    """Check that this process has one of the machine's GPUs for itself.

    Args:
        there: how many GPUs PyTorch sees.

    Raises:
        ConfigError: more processes were launched here than there are GPUs.
    """
    process = launched()
    if process.several and process.local >= there:
        raise ConfigError(
            f"This is process {process.local + 1} of those on this machine, and PyTorch sees "
            f"{there} GPU{'s' if there != 1 else ''}.",
            "Launch as many processes as there are GPUs, or choose --device cpu.",
        )
