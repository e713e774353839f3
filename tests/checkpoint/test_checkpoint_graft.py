import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import encode, files, write_shard
from hypothesis import given, settings
from hypothesis import strategies as st

import demur
from demur.checkpoint import (
    apply_patch,
    arithmetic,
    checkpoint_hash,
    copying,
    donor_changes,
    graft,
    graft_checkpoint,
    make_patch,
    open_checkpoint,
    places,
    read_bits,
    revert_patch,
    storage,
    tensor_hashes,
)
from demur.errors import CheckpointError
from demur.models.anatomy.types import Part

BITS = {"F32": "<u4", "F16": "<u2", "BF16": "<u2"}
SHAPES = {"a": (8, 6), "b": (12, 5), "experts": (3, 4, 10), "bias": (12,), "kept": (7,)}


def whole(name, size):
    return Part(name, 0, size, 0, size, size)


def write(
    folder, seed, dtype="BF16", shards=(("a", "b"), ("experts", "bias", "kept")), shapes=None
):
    """Write a model of normal weights whose tensors lie in the given shards, in their order."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    data = {
        name: (dtype, shape, encode(rng.normal(size=shape).astype(np.float32), dtype))
        for name, shape in (shapes or SHAPES).items()
    }
    weight_map = {}
    for number, names in enumerate(shards, 1):
        shard = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / shard, {name: data[name] for name in names})
        weight_map |= dict.fromkeys(names, shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    return folder


def expected(recipient, donor, parts):
    """Return the bits of every tensor after the swap, by plain indexing."""
    ours, theirs = open_checkpoint(recipient), open_checkpoint(donor)
    bits = {name: read_bits(ours, name).copy() for name in ours.tensors}
    for part in parts:
        numbers = np.arange(part.size) % part.period
        chosen = np.flatnonzero((part.start <= numbers) & (numbers < part.stop))
        at = (slice(None),) * part.dim + (chosen,)
        new = read_bits(theirs, part.tensor)
        kinds = theirs.tensors[part.tensor].dtype, ours.tensors[part.tensor].dtype
        if kinds[0] != kinds[1]:
            new = arithmetic.round_to_bits(arithmetic.to_float64(new, kinds[0]), kinds[1])
        bits[part.tensor][at] = new[at]
    return bits


def same(folder, bits):
    found = open_checkpoint(folder)
    assert set(found.tensors) == set(bits)
    for name, wanted in bits.items():
        np.testing.assert_array_equal(read_bits(found, name), wanted, err_msg=name)


def error_of(function, *arguments, **named):
    with pytest.raises(CheckpointError) as caught:
        function(*arguments, **named)
    return caught.value


PARTS = [
    whole("a", 8),
    Part("b", 0, 12, 4, 8, 12),  # the middle one of three fused blocks of rows
    Part("experts", 2, 2, 0, 1, 10),  # interleaved columns of every expert
    Part("bias", 0, 6, 2, 5, 12),  # grouped queries
]


@pytest.fixture
def models(tmp_path):
    """Return two models of the same shapes that lie in other shards and in another order."""
    donor_shards = (("kept", "experts"), ("b",), ("bias", "a"))
    return write(tmp_path / "recipient", 0), write(tmp_path / "donor", 1, shards=donor_shards)


def test_a_graft_is_the_swap_and_nothing_else(models, tmp_path):
    recipient, donor = models
    before = files(recipient), files(donor)
    grafted = graft_checkpoint(recipient, donor, PARTS, tmp_path / "out", donor_name="owner/donor")
    same(tmp_path / "out", expected(recipient, donor, PARTS))
    assert (files(recipient), files(donor)) == before
    assert set(files(grafted.folder)) == {*before[0], "demur.json"}
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        assert files(grafted.folder)[name] == before[0][name]
    assert grafted.tensors == 4
    assert grafted.parameters == 48 + 4 * 5 + 3 * 4 * 5 + 6
    assert grafted.share == grafted.parameters / (48 + 60 + 120 + 12 + 7)
    assert grafted.converted == ()
    assert grafted.base_hash == checkpoint_hash(open_checkpoint(recipient))
    assert grafted.checkpoint_hash == checkpoint_hash(open_checkpoint(tmp_path / "out"))
    assert "Put 134 numbers of the donor" in grafted.sentence
    (entry,) = json.loads((tmp_path / "out" / "demur.json").read_text())["patches"]
    assert entry["graft"]["donor"] == "owner/donor"
    assert entry["graft"]["parts"][:2] == [
        {"tensor": "a"},
        {"tensor": "b", "dim": 0, "period": 12, "start": 4, "stop": 8},
    ]
    assert entry["base"] == {"name": "recipient", "hash": grafted.base_hash}
    assert entry["result"] == {"hash": grafted.checkpoint_hash}
    assert not list(tmp_path.glob(".*"))


part_of = st.sampled_from(sorted(SHAPES)).flatmap(
    lambda name: st.integers(0, len(SHAPES[name]) - 1).flatmap(
        lambda dim: st.sampled_from(
            [p for p in range(1, SHAPES[name][dim] + 1) if SHAPES[name][dim] % p == 0]
        ).flatmap(
            lambda period: st.integers(0, period - 1).flatmap(
                lambda start: st.integers(start + 1, period).map(
                    lambda stop: Part(name, dim, period, start, stop, SHAPES[name][dim])
                )
            )
        )
    )
)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    return write(folder / "r", 2), write(folder / "d", 3, shards=(tuple(sorted(SHAPES)),))


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(part_of, min_size=1, max_size=4), block=st.sampled_from([2, 6, 14, 1 << 20]),
       few=st.sampled_from([0, 2, 64]))  # fmt: skip
def test_any_parts_in_blocks_of_any_size(pair, tmp_path_factory, parts, block, few):
    recipient, donor = pair
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(graft, "BLOCK_BYTES", block)
        monkeypatch.setattr(places, "BLOCK_BYTES", block)
        monkeypatch.setattr(places, "FEW_RUNS", few)
        graft_checkpoint(recipient, donor, parts, out / "model", durable=False)
        same(out / "model", expected(recipient, donor, parts))
    shutil.rmtree(out)


@pytest.mark.parametrize("ours", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("theirs", ["F32", "F16", "BF16"])
def test_other_dtypes_are_converted_and_that_is_said(tmp_path, ours, theirs):
    recipient = write(tmp_path / "r", 0, ours)
    donor = write(tmp_path / "d", 1, theirs, shards=(tuple(SHAPES),))
    grafted = graft_checkpoint(recipient, donor, PARTS, tmp_path / "out")
    same(tmp_path / "out", expected(recipient, donor, PARTS))
    if ours == theirs:
        assert grafted.converted == ()
    else:
        assert grafted.converted == ((theirs, ours),)
        assert f"converted from {theirs} to {ours}" in grafted.sentence


def test_the_donor_may_name_and_lay_out_its_tensors_otherwise(tmp_path):
    recipient = write(tmp_path / "r", 0, shapes={"up": (4, 3), "k": (2,)}, shards=(("up", "k"),))
    donor = write(tmp_path / "d", 1, shapes={"gate_up": (8, 3), "k": (2,)},
                  shards=(("k",), ("gate_up",)))  # fmt: skip
    for theirs, rows in (
        (Part("gate_up", 0, 8, 4, 8, 8), slice(4, 8)),
        (Part("gate_up", 0, 2, 1, 2, 8), slice(1, 8, 2)),
    ):
        out = tmp_path / f"out{rows.step}"
        graft_checkpoint(recipient, donor, [whole("up", 4)], out, donor_parts=[theirs])
        taken = read_bits(open_checkpoint(donor), "gate_up")[rows]
        np.testing.assert_array_equal(read_bits(open_checkpoint(out), "up"), taken)


def test_a_patch_of_a_graft_makes_the_same_model_and_comes_back(models, tmp_path):
    recipient, donor = models
    grafted = graft_checkpoint(recipient, donor, PARTS, tmp_path / "grafted")
    changes = donor_changes(recipient, donor, PARTS)
    assert set(changes) == {"a", "b", "experts", "bias"}
    summary = make_patch(
        recipient, changes, tmp_path / "p.safetensors", base_name="r", recipe={}, results={}
    )
    assert summary.result_hash == grafted.checkpoint_hash
    assert summary.base_hash == grafted.base_hash
    assert 0 < summary.changed <= grafted.parameters
    applied = apply_patch(recipient, summary.path, tmp_path / "applied")
    assert applied.exact
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        assert files(applied.folder)[name] == files(grafted.folder)[name]
    reverted = revert_patch(applied.folder, summary.path, tmp_path / "back")
    assert reverted.exact
    assert files(reverted.folder) == files(recipient)


def test_history_goes_on(models, tmp_path):
    recipient, donor = models
    graft_checkpoint(recipient, donor, PARTS[:1], tmp_path / "one")
    graft_checkpoint(tmp_path / "one", donor, PARTS[1:], tmp_path / "two")
    history = json.loads((tmp_path / "two" / "demur.json").read_text())["patches"]
    assert [len(entry["graft"]["parts"]) for entry in history] == [1, 3]
    assert history[0]["result"]["hash"] == history[1]["base"]["hash"]
    same(tmp_path / "two", expected(recipient, donor, PARTS))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([], "nothing to graft"),
        ([whole("missing", 3)], "no tensor missing"),
        ([Part("a", 2, 8, 0, 8, 8)], "no places 0 to 8"),
        ([whole("a", 9)], "no places 0 to 9"),
        ([Part("a", 0, 3, 0, 1, 8)], "no places 0 to 1 of every 3"),
        ([Part("a", 0, 4, 2, 2, 8)], "no places 2 to 2"),
    ],
)
def test_parts_that_are_not_there(models, tmp_path, parts, text):
    error = error_of(graft_checkpoint, *models, parts, tmp_path / "out")
    assert text in error.cause
    assert error.remedy
    assert not (tmp_path / "out").exists()


def test_tensors_of_other_shapes(tmp_path):
    recipient = write(tmp_path / "r", 0, shapes={"a": (4, 6)}, shards=(("a",),))
    donor = write(tmp_path / "d", 1, shapes={"a": (4, 8)}, shards=(("a",),))
    error = error_of(graft_checkpoint, recipient, donor, [whole("a", 4)], tmp_path / "out")
    assert "[4, 6]" in error.cause and "[4, 8]" in error.cause
    assert "same family" in error.remedy


@pytest.mark.parametrize("side", ["recipient", "donor"])
@pytest.mark.parametrize("dtype", ["U8", None])
def test_quantised_models_are_refused_with_what_to_do(models, tmp_path, side, dtype):
    folder = dict(zip(("recipient", "donor"), models, strict=True))[side]
    shutil.rmtree(folder)
    tensors = {"a": (dtype, (8, 6), bytes(48))} if dtype else {"a.qweight": ("U8", (4,), bytes(4))}
    folder.mkdir()
    write_shard(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text('{"quantization_config": {"quant_method": "gptq"}}')
    error = error_of(graft_checkpoint, *models, [whole("a", 8)], tmp_path / "out")
    assert f"The {side} " in error.cause and "quantised (gptq)" in error.cause
    assert "before it was quantised" in error.remedy
    (folder / "config.json").write_text("{}")
    error = error_of(graft_checkpoint, *models, [whole("a", 8)], tmp_path / "out")
    assert ("which cannot be changed" if dtype else "no tensor a") in error.cause


@pytest.mark.parametrize(("dtype", "value"), [("BF16", 0x7FC0), ("F32", 0x7F000000)])
def test_numbers_that_the_recipient_cannot_hold(models, tmp_path, dtype, value):
    recipient = write(tmp_path / "half", 0, "F16")
    donor = write(tmp_path / "wide", 1, dtype, shards=(tuple(SHAPES),))
    path = donor / "model-00001-of-00001.safetensors"
    tensor = open_checkpoint(donor).tensors["b"]
    raw = bytearray(path.read_bytes())
    raw[tensor.stop - 4 : tensor.stop] = np.array([value], BITS[dtype]).tobytes().ljust(4, b"\0")
    path.write_bytes(raw)
    error = error_of(graft_checkpoint, recipient, donor, [whole("b", 12)], tmp_path / "out")
    assert "b of the donor holds numbers that are NaN, infinite or beyond" in error.cause
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("how", ["written", "cut", "replaced", "gone"])
def test_a_shard_that_changes_while_it_is_read(models, tmp_path, monkeypatch, side, how):
    victim = open_checkpoint(models[side]).tensors["b"].shard
    blocks_of = copying.blocks_of

    def disturbing(tensor, step, file):
        yield from blocks_of(tensor, step, file)
        if tensor.name == "kept":
            if how == "written":
                with victim.open("r+b") as other:
                    other.seek(-1, os.SEEK_END)
                    other.write(b"\x00")
                os.utime(victim, ns=(1, 1))
            elif how == "cut":
                os.truncate(victim, victim.stat().st_size - 1)
            elif how == "replaced":
                shutil.copy(victim, tmp_path / "copy")
                os.replace(tmp_path / "copy", victim)
            else:
                victim.unlink()

    monkeypatch.setattr(copying, "blocks_of", disturbing)
    error = error_of(graft_checkpoint, *models, PARTS, tmp_path / "out")
    assert f"{victim} changed while it was read" in error.cause
    assert "Wait until nothing writes" in error.remedy
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("side", [0, 1])
def test_a_shard_that_has_gone_before_it_is_read_again(models, tmp_path, monkeypatch, side):
    victim = open_checkpoint(models[side]).tensors["b"].shard
    blocks_of = copying.blocks_of

    def disturbing(tensor, step, file):
        yield from blocks_of(tensor, step, file)
        if tensor.name == "a":
            victim.unlink(missing_ok=True)

    monkeypatch.setattr(copying, "blocks_of", disturbing)
    monkeypatch.setattr(copying, "THREADS", 1)
    error = error_of(graft_checkpoint, *models, PARTS, tmp_path / "out")
    assert f"{victim} changed while it was read" in error.cause
    assert not (tmp_path / "out").exists()


def test_what_the_disk_gives_back_is_checked(models, tmp_path, monkeypatch):
    write_bytes = copying._write

    def flaky(file, start, data):
        write_bytes(file, start, bytes(len(data)) if len(data) == 24 else data)

    monkeypatch.setattr(copying, "_write", flaky)
    error = error_of(graft_checkpoint, *models, [whole("bias", 12)], tmp_path / "out")
    assert "bias does not come back from the disk" in error.cause
    assert not (tmp_path / "out").exists()


def test_no_room_is_said_before_anything_is_written(models, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    monkeypatch.setattr(storage, "copy_file", None)
    error = error_of(graft_checkpoint, *models, PARTS, tmp_path / "out")
    assert "no room on the disk" in error.cause
    assert not (tmp_path / "out").exists()


def test_the_output_must_be_free(models, tmp_path):
    before = files(models[0])
    error = error_of(graft_checkpoint, *models, PARTS, models[0])
    assert "not empty" in error.cause
    assert files(models[0]) == before


def test_shared_blocks_are_told_and_only_the_change_is_written(models, tmp_path, monkeypatch):
    written = []
    write_bytes = copying._write

    def clone(source, target):
        shutil.copy(source, target)
        return True

    def counting(file, start, data):
        written.append(len(data))
        write_bytes(file, start, data)

    monkeypatch.setattr(copying, "clone_file", clone)
    monkeypatch.setattr(copying, "_write", counting)
    grafted = graft_checkpoint(*models, [whole("bias", 12)], tmp_path / "out")
    assert grafted.shared
    assert written == [24]
    same(tmp_path / "out", expected(*models, [whole("bias", 12)]))


def test_hashes_are_computed_once_and_never_believed_of_another_file(models, tmp_path, monkeypatch):
    recipient, donor = models
    for path in recipient.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    checkpoint = open_checkpoint(recipient)
    monkeypatch.setattr("demur.checkpoint.stamps.SETTLED_NANOSECONDS", -(10**12))
    before = tensor_hashes(checkpoint)
    hashed = []
    new_digest = copying.new_digest
    monkeypatch.setattr(
        copying, "new_digest", lambda *form: hashed.append(form) or new_digest(*form)
    )
    grafted = graft_checkpoint(recipient, donor, [whole("a", 8)], tmp_path / "out")
    assert len(hashed) == 2  # what was written, and what is read back
    assert grafted.checkpoint_hash == checkpoint_hash(open_checkpoint(tmp_path / "out"))
    shard = checkpoint.tensors["kept"].shard
    with shard.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x11")
    os.utime(shard, ns=(10**18, 10**18))
    after = tensor_hashes(open_checkpoint(recipient))
    assert {name for name in before if before[name] != after[name]} == {"kept"}


CHILD = """
import sys, time
from pathlib import Path
from demur.checkpoint import graft_checkpoint
from demur.models.anatomy.types import Part
folder = Path(sys.argv[1])
parts = [Part("gate_up", 1, 2, 0, 1, 16384), Part("q", 0, 3072, 1024, 2048, 3072)]
begun = time.perf_counter()
graft_checkpoint(folder / "r", folder / "d", parts, folder / sys.argv[2])
print(time.perf_counter() - begun)
assert "torch" not in sys.modules
status = Path("/proc/self/status")
if status.exists():
    print(next(line.split()[1] for line in status.open() if line.startswith("VmHWM")))
"""


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(demur.__file__).parents[1])}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return the folder of two models of 112 MiB each, whose tensors are up to 64 MiB."""
    folder = tmp_path_factory.mktemp("large")
    shapes = {"gate_up": (2048, 16384), "q": (3072, 4096), "o": (3072, 4096)}
    for name, value in (("r", 1), ("d", 2)):
        (folder / name).mkdir()
        tensors = {
            key: ("BF16", shape, np.full(shape, value, "<u2").tobytes())
            for key, shape in shapes.items()
        }
        write_shard(folder / name / "model.safetensors", tensors)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of memory")
def test_memory_stays_small_and_torch_away(large):
    command = [sys.executable, "-c", CHILD, str(large), "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert int(done.stdout.split()[1]) < 100 * 1024
    found = open_checkpoint(large / "out")
    gate_up = read_bits(found, "gate_up")
    assert (gate_up[:, ::2] == 2).all() and (gate_up[:, 1::2] == 1).all()
    assert (read_bits(found, "q")[1024:2048] == 2).all()
    assert int(read_bits(found, "q").sum()) == 3072 * 4096 + 1024 * 4096
    shutil.rmtree(large / "out")


def test_killed_at_any_moment_the_output_is_absent_or_whole(large):
    command = [sys.executable, "-c", CHILD, str(large), "killed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    seconds = float(done.stdout.split()[0])
    whole_hash = checkpoint_hash(open_checkpoint(large / "killed"))
    shutil.rmtree(large / "killed")
    draw = random.Random(0)
    unfinished = 0
    for moment in range(6):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        while process.poll() is None and not list(large.glob(".killed.*")):
            time.sleep(0.001)
        time.sleep(draw.uniform(moment, moment + 1) / 6 * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if (large / "killed").exists():
            assert checkpoint_hash(open_checkpoint(large / "killed")) == whole_hash
            shutil.rmtree(large / "killed")
        for left in large.glob(".killed.*"):
            unfinished += 1
            shutil.rmtree(left)
    assert unfinished > 0, "no kill fell into the writing"
