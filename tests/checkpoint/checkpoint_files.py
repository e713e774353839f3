"""Small model folders for the tests, written without the code that is tested."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

ITEM = {"F32": "<f4", "F16": "<f2"}


def bfloat16_bits(values):
    """Return float32 values as bfloat16 bits, rounded to nearest even by way of torch."""
    import torch

    rounded = torch.from_numpy(np.array(values, np.float32)).to(torch.bfloat16)
    return rounded.view(torch.int16).numpy().view("<u2")


def encode(values, dtype):
    """Return the raw little-endian bytes of float values in a dtype."""
    if dtype == "BF16":
        return bfloat16_bits(values).tobytes()
    return np.asarray(values).astype(ITEM[dtype]).tobytes()


def write_shard(path: Path, tensors: dict[str, tuple[str, tuple[int, ...], bytes]], tail=b""):
    """Write a safetensors file from name: (dtype, shape, bytes)."""
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [position, position + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        position += len(data)
    write_raw(path, header, b"".join(data for _, _, data in tensors.values()) + tail)


def write_raw(path: Path, header: dict, data: bytes):
    """Write a safetensors file with whatever header is given."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def write_model(folder: Path, dtype="BF16", shape=(6, 4), seed=0, names=("a.weight", "b.weight")):
    """Write a one-file model with normal weights, a norm, a config and a tokenizer."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: (dtype, shape, encode(rng.normal(size=shape).astype(np.float32), dtype))
        for name in names
    }
    tensors["norm.weight"] = ("F32", (4,), np.ones(4, "<f4").tobytes())
    write_shard(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def write_sharded(folder: Path, seed=0):
    """Write the same tensors as `write_model`, in two shards with an index."""
    single = write_model(folder.with_name(folder.name + "-single"), seed=seed)

    folder.mkdir(parents=True)
    raw = (single / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    parts = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = entry["data_offsets"]
            data = raw[8 + length + start : 8 + length + stop]
            parts[name] = (entry["dtype"], entry["shape"], data)
    places = {"a.weight": 1, "b.weight": 2, "norm.weight": 2}
    weight_map = {}
    for number in (1, 2):
        shard = f"model-0000{number}-of-00002.safetensors"
        write_shard(folder / shard, {n: parts[n] for n in parts if places[n] == number})
        weight_map |= {n: shard for n in parts if places[n] == number}
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder, single


def files(folder: Path):
    """Return the bytes of every file in a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
