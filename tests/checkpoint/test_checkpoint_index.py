import hashlib
import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
from checkpoint_files import bfloat16_bits, write_model, write_raw, write_shard, write_sharded

from demur.checkpoint import (
    checkpoint_hash,
    find_nonfinite,
    open_checkpoint,
    read_bits,
    read_tensor,
    tensor_hash,
)
from demur.checkpoint import index as index_module
from demur.errors import CheckpointError


def error_of(function, *arguments):
    with pytest.raises(CheckpointError) as caught:
        function(*arguments)
    return caught.value


def test_single_file_is_indexed_as_safetensors_sees_it(tmp_path):
    from safetensors import safe_open

    checkpoint = open_checkpoint(write_model(tmp_path / "m", "F16"))
    assert list(checkpoint.tensors) == ["a.weight", "b.weight", "norm.weight"]
    tensor = checkpoint.tensors["b.weight"]
    assert (tensor.dtype, tensor.shape, tensor.bytes) == ("F16", (6, 4), 48)
    assert checkpoint.parameters == 52
    with safe_open(tensor.shard, "np") as reference:
        for name in checkpoint.tensors:
            np.testing.assert_array_equal(read_tensor(checkpoint, name), reference.get_tensor(name))


def test_sharding_does_not_change_the_hash_and_names_do(tmp_path):
    sharded, single = write_sharded(tmp_path / "m")
    first, second = open_checkpoint(sharded), open_checkpoint(single)
    assert len(first.shards) == 2
    assert checkpoint_hash(first) == checkpoint_hash(second)
    renamed = open_checkpoint(write_model(tmp_path / "other", names=("b.weight", "a.weight")))
    assert tensor_hash(renamed, "b.weight") == tensor_hash(second, "a.weight")
    assert checkpoint_hash(renamed) != checkpoint_hash(second)


def test_tensor_hash_is_over_dtype_shape_and_bytes_whatever_the_chunks(tmp_path, monkeypatch):
    checkpoint = open_checkpoint(write_model(tmp_path / "m", "F32"))
    data = read_bits(checkpoint, "a.weight").tobytes()
    wanted = hashlib.sha256(b'["F32",[6,4]]\n' + data).hexdigest()
    assert tensor_hash(checkpoint, "a.weight") == wanted
    tensor = checkpoint.tensors["a.weight"]
    assert b"".join(index_module.stream(tensor, 7)) == data


def test_bfloat16_reads_as_float32_and_as_bits(tmp_path):
    values = np.array([[1.5, -0.0], [3e38, 1e-40]], np.float32)
    bits = bfloat16_bits(values)
    write_shard(tmp_path / "model.safetensors", {"w": ("BF16", (2, 2), bits.tobytes())})
    checkpoint = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(read_bits(checkpoint, "w"), bits)
    found = read_tensor(checkpoint, "w")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, values, rtol=2**-8, atol=1e-41)
    assert np.signbit(found[0, 1])


def test_other_dtypes_pass_through(tmp_path):
    tensors = {
        "ids": ("I64", (3,), np.arange(3, dtype="<i8").tobytes()),
        "small": ("F8_E4M3", (2, 2), bytes([1, 2, 3, 4])),
        "strange": ("F99_NEW", (5,), b"abc"),
        "empty": ("F32", (0, 4), b""),
        "scalar": ("F32", (), np.float32(2.5).tobytes()),
    }
    write_shard(tmp_path / "model.safetensors", tensors)
    checkpoint = open_checkpoint(tmp_path)
    assert read_tensor(checkpoint, "ids").tolist() == [0, 1, 2]
    assert read_tensor(checkpoint, "empty").shape == (0, 4)
    assert read_tensor(checkpoint, "scalar") == 2.5
    assert read_bits(checkpoint, "small").tolist() == [[1, 2], [3, 4]]
    assert len(checkpoint_hash(checkpoint)) == 64
    assert find_nonfinite(checkpoint) == ()
    assert "F8_E4M3" in error_of(read_tensor, checkpoint, "small").cause


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_nonfinite_weights_are_found(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(index_module, "CHUNK_BYTES", 16)
    kind = {"F32": "<f4", "F16": "<f2", "BF16": "<f4"}[dtype]
    top = {"F32": 3e38, "F16": 65504, "BF16": 3e38}[dtype]
    tensors = {}
    for name, value in (("good", top), ("nan", np.nan), ("inf", -np.inf)):
        values = np.zeros(40, np.float32)
        values[-1] = value
        data = bfloat16_bits(values) if dtype == "BF16" else values.astype(kind)
        tensors[name] = (dtype, (40,), data.tobytes())
    write_shard(tmp_path / "model.safetensors", tensors)
    assert find_nonfinite(open_checkpoint(tmp_path)) == ("nan", "inf")


def test_truncated_shard(tmp_path):
    path = write_model(tmp_path / "m") / "model.safetensors"
    whole = path.read_bytes()
    for size in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        error = error_of(open_checkpoint, tmp_path / "m")
        assert "truncated or corrupt" in error.cause
        assert "again" in error.remedy
    path.write_bytes(whole + b"x")
    assert "belong to no tensor" in error_of(open_checkpoint, tmp_path / "m").cause
    path.write_bytes((1 << 40).to_bytes(8, "little") + whole[8:])
    assert "header claims" in error_of(open_checkpoint, tmp_path / "m").cause


def test_a_file_cut_after_it_was_opened(tmp_path):
    path = write_model(tmp_path / "m") / "model.safetensors"
    checkpoint = open_checkpoint(tmp_path / "m")
    path.write_bytes(path.read_bytes()[:-3])
    assert "ends before" in error_of(checkpoint_hash, checkpoint).cause
    assert "ends before" in error_of(read_tensor, checkpoint, "norm.weight").cause


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ({"a": ["F32", [2], [0, 8]], "b": ["F32", [2], [4, 12]]}, "overlaps"),
        ({"a": ["F32", [2], [0, 8]], "b": ["F32", [1], [9, 13]]}, "gap"),
        ({"a": ["F32", [3], [0, 8]]}, "does not fit its shape"),
        ({"a": ["F32", [2], [8, 0]]}, "does not fit its shape"),
        ({"a": ["F32", [-2], [0, 8]]}, "no valid shape"),
        ({"a": ["F32", [2], [0]]}, "no valid shape"),
        ({"a": [7, [2], [0, 8]]}, "no dtype"),
    ],
)
def test_corrupt_byte_ranges(tmp_path, entries, reason):
    header = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        for name, (dtype, shape, offsets) in entries.items()
    }
    write_raw(tmp_path / "model.safetensors", header, bytes(12))
    assert reason in error_of(open_checkpoint, tmp_path).cause


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff\xff", b'{"a": 1, "a": 2}', b'{"a": 3}'])
def test_header_that_is_not_one(tmp_path, text):
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    assert "truncated or corrupt" in error_of(open_checkpoint, tmp_path).cause


def test_index_names_a_missing_shard(tmp_path):
    folder, _ = write_sharded(tmp_path / "m")
    (folder / "model-00002-of-00002.safetensors").unlink()
    error = error_of(open_checkpoint, folder)
    assert "model-00002-of-00002.safetensors" in error.cause
    assert "1 of 2 shards are missing" in error.cause
    assert "Download" in error.remedy


def test_index_names_a_tensor_that_its_shard_lacks(tmp_path):
    folder, _ = write_sharded(tmp_path / "m")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["ghost.weight"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    error = error_of(open_checkpoint, folder)
    assert "ghost.weight in model-00001-of-00002.safetensors" in error.cause
    index["weight_map"] = {"a.weight": "../model.safetensors"}
    path.write_text(json.dumps(index))
    assert "outside its folder" in error_of(open_checkpoint, folder).cause
    for text in ("{", "[]", '{"weight_map": {}}', '{"weight_map": 3}'):
        path.write_text(text)
        assert "weight_map" in error_of(open_checkpoint, folder).cause


def test_a_tensor_that_the_index_forgets_still_counts(tmp_path):
    folder, single = write_sharded(tmp_path / "m")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    del index["weight_map"]["norm.weight"]
    path.write_text(json.dumps(index))
    assert checkpoint_hash(open_checkpoint(folder)) == checkpoint_hash(open_checkpoint(single))


def test_folders_that_hold_no_model(tmp_path):
    assert "no folder" in error_of(open_checkpoint, tmp_path / "nowhere").cause
    assert "holds no model" in error_of(open_checkpoint, tmp_path).cause
    (tmp_path / "file").write_text("x")
    assert "is a file" in error_of(open_checkpoint, tmp_path / "file").cause
    lone = tmp_path / "lone"
    lone.mkdir()
    (lone / "model-00001-of-00002.safetensors").touch()
    assert "neither model.safetensors nor" in error_of(open_checkpoint, lone).cause
    (lone / "adapter_model.safetensors").touch()
    assert "PEFT adapter" in error_of(open_checkpoint, lone).cause
    assert (
        "no tensor x"
        in error_of(tensor_hash, open_checkpoint(write_model(tmp_path / "m")), "x").cause
    )


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_with_the_command_that_converts_them(tmp_path, name):
    (tmp_path / name).write_bytes(b"never opened")
    (tmp_path / "training_args.bin").touch()
    error = error_of(open_checkpoint, tmp_path)
    assert f"only pickled weights ({name})" in error.cause
    assert "python -c" in error.remedy
    assert str(tmp_path) in error.remedy
    assert "only if you trust" in error.remedy


def test_the_conversion_command_works(tmp_path):
    import torch

    folder = tmp_path / "a model's folder"
    folder.mkdir()
    torch.save({"w": torch.arange(6.0).reshape(2, 3)}, folder / "model.pt")
    remedy = error_of(open_checkpoint, folder).remedy
    command = shlex.split(remedy.split("convert it: ")[1])
    assert command[0] == "python"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *command[1:]], check=True, env=environment)
    found = read_tensor(open_checkpoint(folder), "w")
    np.testing.assert_array_equal(found, np.arange(6, dtype=np.float32).reshape(2, 3))
