"""Two processes launched together, as `torchrun` and `accelerate launch` launch them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from tests.small_run import ENVIRONMENT, SOURCES


def together(
    folder: Path, *arguments: str, count: int = 2, divided: bool = False
) -> list[subprocess.CompletedProcess[str]]:
    """Run Python with these arguments in each process, and return them by rank.

    Args:
        divided: whether they are told to, as by `accelerate launch --use_fsdp`, which cannot be had
            for CPUs.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = f"{SOURCES.parent}:{ENVIRONMENT['PYTHONPATH']}"
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    if divided:
        shared["ACCELERATE_USE_FSDP"] = "true"
    begun = [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env={
                **ENVIRONMENT,
                **shared,
                "PYTHONPATH": path,
                "CUDA_VISIBLE_DEVICES": "",  # two processes, and perhaps one GPU
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        for rank in range(count)
    ]
    ended = []
    try:
        for one in begun:
            out, said = one.communicate(timeout=240)
            ended.append(subprocess.CompletedProcess(one.args, one.returncode, out, said))
    finally:
        for one in begun:
            one.kill()
    return ended
