"""Writing one graft into a large checkpoint: demur beside mergekit and plain copies, in one run.

    python benchmarks/writing.py --folder FOLDER [--layers 10] [--rounds 3] [--cache warm|cold]
                                 [--mergekit FOLDER/mergekit/bin/mergekit-yaml]

Two checkpoints of Llama-2-7B's widths with random bfloat16 weights in shards of at most 1 GB are
made in FOLDER (4.6 GB each with ten layers; it needs four times that at its largest), and the gates
of the middle half of the layers of one are put into the other. Contenders take turns, each in a
process of its own; medians count. Before each, earlier outputs are deleted, the disk is brought to
rest, and both checkpoints are read into the page cache (`warm`) or dropped from it (`cold`).

Two times are taken: until the program returns, and until all that it wrote is on the disk (fsync of
every file, by this script where the program does not). mergekit's fastest way to the same tensors
is a linear merge with weights of 0 and 1 in the layers that change, with shards of the same size.
Every tensor of every output is compared, by hash, with the donor's or the recipient's.
Without --mergekit it is installed into an environment in FOLDER that shares this one's packages.
All that was made is deleted at the end, unless --keep is given.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCABULARY, HIDDEN, INNER, HEADS = 32000, 4096, 11008, 32
SHARD_BYTES = 1_000_000_000
PACKAGES = ("mergekit==0.1.5", "immutables", "sentencepiece", "protobuf")
GATE = "model.layers.{}.mlp.gate_proj.weight"


@dataclass(frozen=True)
class Measured:
    """One run of one contender: seconds, and bytes."""

    returned: float
    on_disk: float
    peak: int
    written: int


def shapes(layers: int, scale: int) -> dict[str, tuple[int, ...]]:
    """Return the tensors of a Llama-2 of 7B's widths divided by `scale`."""
    hidden, inner = HIDDEN // scale, INNER // scale
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        found |= {f"{prefix}self_attn.{one}_proj.weight": (hidden, hidden) for one in "qkvo"}
        found |= {f"{prefix}mlp.{one}_proj.weight": (inner, hidden) for one in ("gate", "up")}
        found[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
        found[f"{prefix}input_layernorm.weight"] = (hidden,)
        found[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (VOCABULARY, hidden)}


def make(folder: Path, layers: int, scale: int, seed: int) -> None:
    """Write a checkpoint of random weights of magnitudes from 2^-15 to 2^-7."""
    import numpy as np

    from demur.checkpoint.header import layout

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shards: list[list[tuple[str, str, tuple[int, ...], int]]] = [[]]
    for name, shape in shapes(layers, scale).items():
        size = 2 * int(np.prod(shape))
        if shards[-1] and sum(one[3] for one in shards[-1]) + size > SHARD_BYTES // scale**2:
            shards.append([])
        shards[-1].append((name, "BF16", shape, size))
    weight_map = {}
    for number, tensors in enumerate(shards, 1):
        path = folder / f"model-{number:05}-of-{len(shards):05}.safetensors"
        with path.open("xb") as file:
            file.write(layout(tensors, {"format": "pt"}))
            for name, _, _, size in tensors:
                weight_map[name] = path.name
                for begin in range(0, size // 2, 1 << 22):
                    count = min(1 << 22, size // 2 - begin)
                    bits = np.frombuffer(rng.bytes(2 * count), "<u2")
                    file.write(((bits & 0x83FF) | 0x3800).tobytes())
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
        "hidden_size": HIDDEN // scale, "intermediate_size": INNER // scale,
        "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY, "tie_word_embeddings": False,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def middle(layers: int) -> range:
    """Return the middle half of the layers."""
    return range(layers // 4, layers - layers // 4)


def parts(layers: int, scale: int) -> list[Any]:
    """Return the gates of the middle half."""
    from demur.models.anatomy.types import Part

    inner = INNER // scale
    return [Part(GATE.format(one), 0, inner, 0, inner, inner) for one in middle(layers)]


def merge_recipe(folder: Path, layers: int) -> str:
    """Return mergekit's configuration for the same graft."""
    chosen = middle(layers)
    recipient, donor = str(folder / "recipient"), str(folder / "donor")

    def weights(gate: float) -> dict[str, Any]:
        return {"weight": [{"filter": "mlp.gate_proj", "value": gate}, {"value": 1.0 - gate}]}

    def source(model: str, first: int, last: int, gate: float | None = None) -> dict[str, Any]:
        parameters = {"weight": 1.0} if gate is None else weights(gate)
        return {"model": model, "layer_range": [first, last], "parameters": parameters}

    slices = [
        {"sources": [source(recipient, 0, chosen.start)]},
        {
            "sources": [
                source(recipient, chosen.start, chosen.stop, 0.0),
                source(donor, chosen.start, chosen.stop, 1.0),
            ]
        },
        {"sources": [source(recipient, chosen.stop, layers)]},
    ]
    kept = [one for one in slices if one["sources"][0]["layer_range"][0] < layers]
    return json.dumps({"merge_method": "linear", "dtype": "bfloat16", "slices": kept})


def verify(folder: Path, output: Path, layers: int) -> str:
    """Compare every tensor of an output with what it must be; return what was found."""
    from demur.checkpoint import open_checkpoint, tensor_hashes

    recipient, donor, found = (
        tensor_hashes(open_checkpoint(one))
        for one in (folder / "recipient", folder / "donor", output)
    )
    gates = {GATE.format(layer) for layer in middle(layers)}
    wanted = {name: donor[name] if name in gates else recipient[name] for name in recipient}
    wrong = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    return f"{len(wrong)} of {len(wanted)} tensors differ" if wrong else f"{len(wanted)} identical"


def install_mergekit(folder: Path) -> Path:
    """Install mergekit beside this environment's packages, and return its program."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = subprocess.run([python, "-c", query], check=True, capture_output=True, text=True)
    shared = sysconfig.get_path("purelib")
    (Path(own.stdout.strip()) / "shared.pth").write_text(shared + "\n")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *PACKAGES], check=True)
    return folder / "bin" / "mergekit-yaml"


def settle(folder: Path, cache: str) -> None:
    """Bring the disk to rest, and the checkpoints into the page cache or out of it."""
    os.sync()
    for path in sorted(folder.glob("*/*.safetensors")):
        with path.open("rb", buffering=0) as file:
            if cache == "cold":
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 20):
                    pass


def measure(command: list[str], output: Path) -> Measured:
    """Run a contender and bring what it wrote to the disk."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    returned = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{command[0]} failed:\n{said[-2000:]}")
    for path in sorted(output.iterdir()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
    on_disk = time.perf_counter() - begun
    return Measured(returned, on_disk, usage.ru_maxrss * 1024, usage.ru_oublock * 512)


def contenders(folder: Path, given: argparse.Namespace, program: Path) -> dict[str, list[str]]:
    """Return the command of each contender; the output folder is added to it."""
    recipient = str(folder / "recipient")
    own = [sys.executable, __file__, f"--folder={folder}", f"--layers={given.layers}",
           f"--scale={given.scale}"]  # fmt: skip
    shard_size = f"--out-shard-size={SHARD_BYTES // given.scale**2}"
    return {
        "cp --reflink=auto": ["cp", "-r", "--reflink=auto", recipient],
        "cp --reflink=never": ["cp", "-r", "--reflink=never", recipient],
        "demur": [*own, "--graft=durable"],
        "demur, not waiting for the disk": [*own, "--graft=quick"],
        "mergekit": [
            str(program), "--no-copy-tokenizer", "--quiet", shard_size, str(folder / "recipe.yml"),
        ],
    }  # fmt: skip


def graft(folder: Path, output: Path, given: argparse.Namespace) -> None:
    """Make the graft in this process."""
    from demur.checkpoint import graft_checkpoint

    graft_checkpoint(
        folder / "recipient",
        folder / "donor",
        parts(given.layers, given.scale),
        output,
        durable=given.graft == "durable",
    )


def compare(folder: Path, given: argparse.Namespace) -> None:
    """Let all take turns, and print the medians."""
    program = Path(given.mergekit) if given.mergekit else install_mergekit(folder / "mergekit")
    (folder / "recipe.yml").write_text(merge_recipe(folder, given.layers))
    again = [sys.executable, __file__, f"--layers={given.layers}", f"--scale={given.scale}"]
    for seed, name in enumerate(("recipient", "donor")):
        subprocess.run([*again, f"--folder={folder / name}", f"--make={seed}"], check=True)
    size = sum(path.stat().st_size for path in (folder / "recipient").iterdir())
    commands = contenders(folder, given, program)
    runs: dict[str, list[Measured]] = {name: [] for name in commands}
    checked: dict[str, str] = {}
    output = folder / "output"
    for number in range(given.rounds):
        order = list(commands)
        for name in order[number % len(order) :] + order[: number % len(order)]:
            settle(folder, given.cache)
            runs[name].append(measure([*commands[name], str(output)], output))
            if name not in checked and not name.startswith("cp"):
                check = [*again, f"--folder={folder}", f"--check={output}"]
                done = subprocess.run(check, check=True, capture_output=True, text=True)
                checked[name] = done.stdout.strip()
            shutil.rmtree(output)
            print(f"  {number + 1}: {name}: {runs[name][-1]}", file=sys.stderr, flush=True)
    show(runs, checked, size, given)


def show(
    runs: dict[str, list[Measured]], checked: dict[str, str], size: int, given: argparse.Namespace
) -> None:
    """Print the table, medians over the rounds, and the ratios."""
    median = {
        name: Measured(*(statistics.median(getattr(one, field) for one in found)
                         for field in ("returned", "on_disk", "peak", "written")))
        for name, found in runs.items()
    }  # fmt: skip
    print(
        f"Recipient: {size / 2**30:.2f} GiB, {given.layers} layers, {given.cache} page cache, "
        f"{os.cpu_count()} cores, medians of {given.rounds} (fastest to slowest)\n"
    )
    print("| | seconds until it returns | until on the disk | peak MiB | GB written | tensors |")
    print("|---|---|---|---|---|---|")
    for name, one in median.items():
        ranges = [
            f"{getattr(one, field):.2f} ({min(found):.2f} to {max(found):.2f})"
            for field in ("returned", "on_disk")
            for found in [[getattr(run, field) for run in runs[name]]]
        ]
        print(
            f"| {name} | {ranges[0]} | {ranges[1]} | {one.peak / 2**20:.0f} | "
            f"{one.written / 1e9:.2f} | {checked.get(name, '')} |"
        )
    demur, quick, merged = (
        median[name] for name in ("demur", "demur, not waiting for the disk", "mergekit")
    )
    copy = median["cp --reflink=auto"]
    print(
        f"\nUntil on the disk: mergekit takes {merged.on_disk / demur.on_disk:.1f} times as long "
        f"as demur, and demur {demur.on_disk / copy.on_disk:.2f} times as long as cp."
        f"\nUntil it returns, with nothing waiting for the disk: "
        f"{merged.returned / quick.returned:.1f} and {quick.returned / copy.returned:.2f}."
        f"\nPeak memory: mergekit {merged.peak / demur.peak:.1f} times demur's."
    )


def main() -> int:
    """Make the checkpoints, compare, and delete everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--scale", type=int, default=1, help="divide all widths, for a trial")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", choices=["warm", "cold"], default="warm")
    parser.add_argument("--mergekit", help="its program mergekit-yaml")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--graft", choices=["durable", "quick"], help=argparse.SUPPRESS)
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("output", type=Path, nargs="?", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder: Path = given.folder.absolute()
    if given.make is not None:
        make(folder, given.layers, given.scale, given.make)
    elif given.graft:
        graft(folder, given.output, given)
    elif given.check:
        print(verify(folder, given.check, given.layers))
    else:
        folder.mkdir(parents=True)  # never into a folder that may hold something
        try:
            compare(folder, given)
        finally:
            if not given.keep:
                shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
