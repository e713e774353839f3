import dataclasses
import errno
import json
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from checkpoint_files import (
    bfloat16_bits,
    encode,
    files,
    write_model,
    write_raw,
    write_shard,
    write_sharded,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from demur.checkpoint import (
    Dense,
    LowRank,
    apply_patch,
    arithmetic,
    changes,
    checkpoint_hash,
    make_patch,
    open_checkpoint,
    read_bits,
    read_patch,
    read_tensor,
    revert_patch,
    storage,
    tensor_hash,
    update_results,
)
from demur.errors import CheckpointError

WIDTH = {"F32": 32, "F16": 16, "BF16": 16}
FINITE = {"F32": 0x7F7FFFFF, "F16": 0x7BFF, "BF16": 0x7F7F}


def low_rank(rows=6, columns=4, rank=2, size=0.1, seed=1):
    rng = np.random.default_rng(seed)
    return LowRank(rng.normal(size=(rows, rank)) * size, rng.normal(size=(rank, columns)))


def patch_of(folder, changed, path, base_name="owner/base"):
    return make_patch(folder, changed, path, base_name=base_name, recipe={"epochs": 1}, results={})


@pytest.fixture
def patched(tmp_path):
    """Return a model, a patch of it with both kinds, and the folder that it was applied to."""
    model = write_model(tmp_path / "base")
    new = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
    summary = patch_of(
        model, {"a.weight": low_rank(), "b.weight": Dense(new)}, tmp_path / "p.safetensors"
    )
    applied = apply_patch(model, summary.path, tmp_path / "out")
    return model, summary, applied


def error_of(function, *arguments, **named):
    with pytest.raises(CheckpointError) as caught:
        function(*arguments, **named)
    return caught.value


def no_leftovers(folder):
    return not [path for path in folder.iterdir() if "partial" in path.name]


def test_apply_and_revert_are_exact(patched, tmp_path):
    model, summary, applied = patched
    before = files(model)
    assert applied.exact
    assert applied.checkpoint_hash == summary.result_hash
    assert applied.tensors == 2
    assert "to the bit" in applied.sentence
    assert checkpoint_hash(open_checkpoint(applied.folder)) == summary.result_hash
    assert json.loads((applied.folder / "demur.json").read_text())["patches"] == [
        {
            "demur": read_patch(summary.path).manifest.demur,
            "patch": summary.hash,
            "base": {"name": "owner/base", "hash": summary.base_hash},
            "result": {"hash": summary.result_hash},
            "recipe": read_patch(summary.path).manifest.recipe,
        }
    ]
    reverted = revert_patch(applied.folder, summary.path, tmp_path / "back")
    assert reverted.exact
    assert reverted.checkpoint_hash == summary.base_hash
    assert files(reverted.folder) == before == files(model)
    assert no_leftovers(tmp_path)


def test_the_result_is_what_the_definition_says(patched):
    model, _, applied = patched
    base, result = open_checkpoint(model), open_checkpoint(applied.folder)
    change = low_rank()
    up, down = (np.float64(np.float32(factor)) for factor in (change.up, change.down))
    wanted = read_tensor(base, "a.weight").astype(np.float64)
    total = np.zeros_like(wanted)
    for k in range(2):
        total += np.outer(up[:, k], down[k])
    np.testing.assert_array_equal(
        read_bits(result, "a.weight"), arithmetic.round_to_bits(wanted + total, "BF16")
    )
    new = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
    np.testing.assert_array_equal(read_bits(result, "b.weight"), bfloat16_bits(new))
    assert tensor_hash(base, "norm.weight") == tensor_hash(result, "norm.weight")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_weights_and_any_change_come_back_to_the_bit(dtype, data):
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    rank = data.draw(st.integers(1, 3))
    largest = FINITE[dtype]
    awkward = st.sampled_from([0, 1, 2, largest, largest - 1, largest // 2, 0x80, 0x3C00])
    sign = st.sampled_from([0, 1 << (WIDTH[dtype] - 1)])
    weight = st.builds(lambda m, s: m | s, awkward | st.integers(0, largest), sign)
    count = rows * columns
    bits = data.draw(st.lists(weight, min_size=count, max_size=count))
    raw = np.array(bits, f"<u{WIDTH[dtype] // 8}").reshape(rows, columns)
    reach = {"F32": 2.0**62, "F16": 2.0**7, "BF16": 2.0**62}[dtype]
    factor = (
        st.floats(-reach, reach, width=32)
        | st.floats(-1, 1, width=32)
        | st.sampled_from([0.0, -0.0, -(2.0**-140), 2.0**-24, 2.0**-133, 2.0**-149])
    )
    up = data.draw(st.lists(factor, min_size=rows * rank, max_size=rows * rank))
    down = data.draw(st.lists(factor, min_size=rank * columns, max_size=rank * columns))
    change = LowRank(
        np.array(up, np.float32).reshape(rows, rank),
        np.array(down, np.float32).reshape(rank, columns),
    )
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(changes, "BLOCK_ELEMENTS", 6)
        model = Path(name) / "m"
        model.mkdir()
        write_shard(model / "model.safetensors", {"w": (dtype, raw.shape, raw.tobytes())})
        path = Path(name) / "p"
        total = arithmetic.low_rank_sum(np.float64(change.up), np.float64(change.down))
        result = arithmetic.add(raw, total, dtype)
        if (result & result.dtype.type((1 << (WIDTH[dtype] - 1)) - 1)).max() > FINITE[dtype]:
            error = error_of(patch_of, model, {"w": change}, path)
            assert "beyond the range" in error.cause
            assert not path.exists()
            return
        summary = patch_of(model, {"w": change}, path)
        applied = apply_patch(model, path, Path(name) / "out")
        assert applied.exact
        assert summary.corrections <= count
        reverted = revert_patch(applied.folder, path, Path(name) / "back")
        assert reverted.exact
        assert files(reverted.folder) == files(model)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_several_blocks_with_corrections(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(changes, "BLOCK_ELEMENTS", 64)
    model = write_model(tmp_path / "m", dtype, (37, 20))
    change = low_rank(37, 20, 3, size=10.0)
    summary = patch_of(model, {"a.weight": change}, tmp_path / "p")
    assert summary.corrections > 100
    entry = read_patch(tmp_path / "p").manifest.entries[0]
    assert (entry.rank, entry.rows_per_block) == (3, 3)
    monkeypatch.setattr(changes, "BLOCK_ELEMENTS", 1 << 18)
    applied = apply_patch(model, tmp_path / "p", tmp_path / "out")
    reverted = revert_patch(applied.folder, tmp_path / "p", tmp_path / "back")
    assert applied.exact
    assert reverted.exact
    assert files(reverted.folder) == files(model)


def test_ordinary_changes_need_few_corrections(tmp_path):
    model = write_model(tmp_path / "m", "BF16", (300, 300))
    summary = patch_of(model, {"a.weight": low_rank(300, 300, size=0.003)}, tmp_path / "p")
    assert 0 < summary.corrections < 0.01 * 90_000
    assert summary.share == summary.changed / summary.parameters
    assert f"{summary.share:.2%}" in summary.sentence
    assert summary.bytes == (tmp_path / "p").stat().st_size < 4 * 2 * 600 + 5000


def test_a_sharded_model_and_stacked_patches(tmp_path):
    model, single = write_sharded(tmp_path / "m")
    one, two = tmp_path / "one", tmp_path / "two"
    patch_of(model, {"a.weight": low_rank(), "norm.weight": Dense(np.zeros(4))}, one)
    first = apply_patch(model, one, tmp_path / "first")
    assert {path.name for path in first.folder.iterdir()} == {
        *(path.name for path in model.iterdir()),
        "demur.json",
    }
    same = apply_patch(single, one, tmp_path / "single")
    assert same.checkpoint_hash == first.checkpoint_hash
    patch_of(first.folder, {"b.weight": low_rank(seed=5)}, two)
    second = apply_patch(first.folder, two, tmp_path / "second")
    assert len(json.loads((second.folder / "demur.json").read_text())["patches"]) == 2
    error = error_of(revert_patch, second.folder, one, tmp_path / "x")
    assert "other tensors have changed since" in error.cause
    assert "later changes first" in error.remedy
    back = revert_patch(second.folder, two, tmp_path / "back")
    assert files(back.folder) == files(first.folder)
    assert files(revert_patch(back.folder, one, tmp_path / "base").folder) == files(model)


def test_dense_takes_raw_bits_and_other_dtypes(tmp_path):
    tensors = {
        "half": ("F16", (2, 2), encode(np.ones((2, 2)), "F16")),
        "ids": ("I64", (3,), np.arange(3, dtype="<i8").tobytes()),
        "small": ("F8_E5M2", (3,), bytes([1, 2, 3])),
        "scalar": ("F32", (), np.float32(1).tobytes()),
        "empty": ("F32", (0, 2), b""),
    }
    (tmp_path / "m").mkdir()
    write_shard(tmp_path / "m" / "model.safetensors", tensors)
    new = {
        "half": Dense(np.array([[1, 2], [3, 0x8000]], np.uint16)),
        "ids": Dense(np.array([7, 1, -1])),
        "small": Dense(np.array([4, 2, 3], np.uint8)),
        "scalar": Dense(np.array(-0.0)),
        "empty": Dense(np.zeros((0, 2))),
    }
    summary = patch_of(tmp_path / "m", new, tmp_path / "p")
    assert summary.changed == 4 + 2 + 1 + 1
    applied = apply_patch(tmp_path / "m", tmp_path / "p", tmp_path / "out")
    result = open_checkpoint(applied.folder)
    assert read_bits(result, "half").tolist() == [[1, 2], [3, 0x8000]]
    assert read_tensor(result, "ids").tolist() == [7, 1, -1]
    assert read_bits(result, "small").tolist() == [4, 2, 3]
    assert np.signbit(read_tensor(result, "scalar"))
    reverted = revert_patch(applied.folder, tmp_path / "p", tmp_path / "back")
    assert files(reverted.folder) == files(tmp_path / "m")


def test_a_patch_is_a_plain_safetensors_file(patched):
    from safetensors.numpy import load_file

    _, summary, _ = patched
    parts = load_file(summary.path)
    assert {"a.weight.up", "a.weight.down", "b.weight.xor"} <= set(parts)
    np.testing.assert_array_equal(parts["a.weight.up"], low_rank().up.astype(np.float32))
    manifest = read_patch(summary.path).manifest
    assert manifest.base_name == "owner/base"
    assert manifest.recipe == {"epochs": 1}
    assert [entry.kind for entry in manifest.entries] == ["low-rank", "dense"]


def test_making_a_patch_twice_gives_the_same_bytes(patched, tmp_path):
    model, summary, _ = patched
    new = np.linspace(-1, 1, 24, dtype=np.float32).reshape(6, 4)
    changed = {"b.weight": Dense(new), "a.weight": low_rank()}
    again = patch_of(model, changed, tmp_path / "again")
    assert again.path.read_bytes() == summary.path.read_bytes()


def test_results_are_added_without_touching_the_rest(patched, tmp_path):
    model, summary, _ = patched
    before = read_patch(summary.path)
    update_results(summary.path, {"refused": 0.95, "worst": float("nan"), "n": np.int64(3)})
    update_results(summary.path, {"refused": 0.96, "model": Path("x"), "text": "é" * 999})
    after = read_patch(summary.path)
    results = {"refused": 0.96, "worst": None, "n": 3, "model": "x", "text": "é" * 999}
    assert after.manifest.results == results
    assert after.manifest.hash == before.manifest.hash
    assert dataclasses.replace(after.manifest, results={}) == before.manifest
    assert apply_patch(model, summary.path, tmp_path / "later").exact
    assert no_leftovers(tmp_path)


def test_the_wrong_base_is_refused_with_the_name_of_the_right_one(patched, tmp_path):
    _, summary, _ = patched
    other = write_model(tmp_path / "other", seed=9)
    error = error_of(apply_patch, other, summary.path, tmp_path / "x")
    assert "2 of the 2 tensors that it changes differ" in error.cause
    assert "owner/base" in error.remedy
    assert summary.base_hash[:16] in error.remedy
    elsewhere = write_model(tmp_path / "elsewhere")
    path = elsewhere / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x40")
    error = error_of(apply_patch, elsewhere, summary.path, tmp_path / "x")
    assert "tensors that it does not change differ" in error.cause
    error = error_of(revert_patch, other, summary.path, tmp_path / "x")
    assert "2 of the 2 tensors" in error.cause
    assert summary.result_hash[:16] in error.remedy
    assert not (tmp_path / "x").exists()


def test_a_model_that_carries_the_patch_or_does_not(patched, tmp_path):
    model, summary, applied = patched
    error = error_of(apply_patch, applied.folder, summary.path, tmp_path / "x")
    assert "already carries this patch" in error.cause
    assert "demur revert" in error.remedy
    error = error_of(revert_patch, model, summary.path, tmp_path / "x")
    assert "it is its base" in error.cause


def test_dtype_shape_and_missing_tensors(patched, tmp_path):
    _, summary, _ = patched
    for name, arguments, text in (
        ("dtype", {"dtype": "F16"}, "a.weight is F16 [6, 4]"),
        ("shape", {"shape": (6, 8)}, "a.weight is BF16 [6, 8]"),
        ("names", {"names": ("c.weight", "b.weight")}, "no tensor a.weight"),
    ):
        model = write_model(tmp_path / name, **arguments)
        error = error_of(apply_patch, model, summary.path, tmp_path / "x")
        assert text in error.cause
        assert "owner/base" in error.remedy


def test_the_output_must_be_free(patched, tmp_path):
    model, summary, applied = patched
    for taken in (model, applied.folder, summary.path):
        before = files(taken) if taken.is_dir() else taken.read_bytes()
        error = error_of(apply_patch, model, summary.path, taken)
        assert "delete it" in error.remedy
        assert before == (files(taken) if taken.is_dir() else taken.read_bytes())
    (tmp_path / "empty").mkdir()
    assert apply_patch(model, summary.path, tmp_path / "empty").exact
    assert apply_patch(model, summary.path, tmp_path / "deep" / "er" / "out").exact


def test_a_broken_or_foreign_patch(patched, tmp_path):
    model, summary, _ = patched
    out = tmp_path / "x"
    assert "no patch file" in error_of(apply_patch, model, tmp_path / "none", out).cause
    foreign = model / "model.safetensors"
    assert "not a demur patch" in error_of(apply_patch, model, foreign, out).cause
    whole = summary.path.read_bytes()
    bad = tmp_path / "bad"
    bad.write_bytes(whole[:-5])
    assert "truncated or corrupt" in error_of(apply_patch, model, bad, out).cause
    bad.write_bytes(whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:])
    assert "differ from their hash" in error_of(apply_patch, model, bad, out).cause
    assert not out.exists()


@pytest.mark.parametrize(
    ("manifest", "text"),
    [
        ('{"version": 2, "demur": "9.0"}', "newer demur (9.0, patch version 2"),
        ('{"version": 1}', "manifest is damaged"),
        ("[]", "manifest is damaged"),
        ("{", "manifest is damaged"),
    ],
)
def test_manifests_that_cannot_be_read(tmp_path, manifest, text):
    write_raw(tmp_path / "p", {"__metadata__": {"demur_patch": manifest}}, b"")
    assert text in error_of(read_patch, tmp_path / "p").cause


def test_a_payload_that_the_manifest_does_not_describe(patched, tmp_path):
    _, summary, _ = patched
    raw = summary.path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    manifest = json.loads(header["__metadata__"]["demur_patch"])
    for key, value in (("rank", 3), ("kind", "sparse"), ("rows_per_block", 0), ("shape", [6])):
        changed = json.loads(json.dumps(manifest))
        changed["entries"][0][key] = value
        header["__metadata__"]["demur_patch"] = json.dumps(changed)
        write_raw(tmp_path / "bad", header, raw[8 + length :])
        assert "manifest is damaged" in error_of(read_patch, tmp_path / "bad").cause


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("c.weight", Dense(np.zeros(4)), "no tensor c.weight"),
        ("lm_head.weight", low_rank(), "tied to the input embedding"),
        ("lm_head.weight", Dense(np.zeros((6, 4))), "nothing to change"),
        ("norm.weight", LowRank(np.ones((4, 1)), np.ones((1, 1))), "needs a matrix"),
        ("a.weight", low_rank(4, 6), "do not fit a.weight"),
        ("a.weight", LowRank(np.ones((6, 0)), np.ones((0, 4))), "do not fit a.weight"),
        ("a.weight", Dense(np.zeros((4, 6))), "do not fit a.weight"),
        ("a.weight", Dense(np.zeros((6, 4), np.int64)), "do not fit a.weight"),
        ("a.weight", Dense(np.full((6, 4), np.nan)), "NaN"),
        ("a.weight", Dense(np.full((6, 4), 1e39)), "beyond the range"),
        ("a.weight", Dense(np.full((6, 4), 0x7F80, np.uint16)), "infinite"),
        ("a.weight", LowRank(np.full((6, 1), np.inf), np.ones((1, 4))), "NaN"),
        ("a.weight", LowRank(np.full((6, 1), 1e30), np.full((1, 4), 1e30)), "beyond the range"),
    ],
)
def test_changes_that_cannot_be_made(tmp_path, name, change, text):
    model = write_model(tmp_path / "m")
    error = error_of(patch_of, model, {name: change}, tmp_path / "p" / "p.safetensors")
    assert text in error.cause
    assert not list(tmp_path.glob("p/*"))


def test_a_base_with_nan_weights_is_refused(tmp_path):
    (tmp_path / "m").mkdir()
    data = np.array([[np.nan, 1]], "<f4").tobytes()
    write_shard(tmp_path / "m" / "model.safetensors", {"w": ("F32", (1, 2), data)})
    error = error_of(patch_of, tmp_path / "m", {"w": low_rank(1, 2)}, tmp_path / "p")
    assert "w, or what the change makes of it, holds numbers that are NaN" in error.cause


def test_a_tied_head_is_left_aside(tmp_path):
    model = write_model(tmp_path / "m")
    changed = {"a.weight": low_rank(), "lm_head.weight": Dense(np.zeros((6, 4)))}
    summary = patch_of(model, changed, tmp_path / "p")
    assert summary.tied == ("lm_head.weight",)
    assert summary.tensors == 1


def test_what_is_copied_and_what_is_left_out(tmp_path):
    model = write_model(tmp_path / "m")
    for name in ("pytorch_model.bin", "old.gguf", "consolidated.safetensors", "notes.md"):
        (model / name).write_text(name)
    for folder in ("checkpoint-500", "additional_chat_templates"):
        (model / folder).mkdir()
        (model / folder / "inner.jinja").write_text("{{ x }}")
    (tmp_path / "blob").write_text("linked")
    (model / "vocab.txt").symlink_to(tmp_path / "blob")
    patch_of(model, {"a.weight": low_rank()}, tmp_path / "p")
    applied = apply_patch(model, tmp_path / "p", tmp_path / "out")
    assert applied.left_out == ("consolidated.safetensors", "old.gguf", "pytorch_model.bin")
    assert "Left out consolidated.safetensors" in applied.sentence
    assert {path.name for path in applied.folder.iterdir()} == {
        "model.safetensors", "config.json", "tokenizer.json", "notes.md", "vocab.txt",
        "additional_chat_templates", "demur.json",
    }  # fmt: skip
    assert not (applied.folder / "vocab.txt").is_symlink()
    assert (applied.folder / "additional_chat_templates" / "inner.jinja").read_text() == "{{ x }}"


def test_a_provenance_file_that_is_not_ours(patched, tmp_path):
    model, summary, _ = patched
    (model / "demur.json").write_text("{}")
    error = error_of(apply_patch, model, summary.path, tmp_path / "x")
    assert "demur.json is not the list of patches" in error.cause


def test_no_room_is_seen_before_anything_is_written(patched, tmp_path, monkeypatch):
    model, summary, _ = patched
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1))
    error = error_of(apply_patch, model, summary.path, tmp_path / "x")
    assert "no room on the disk" in error.cause
    assert "Free some space" in error.remedy
    assert "no room" in error_of(patch_of, model, {"a.weight": low_rank()}, tmp_path / "q").cause
    assert not (tmp_path / "q").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "could not be")]
)
def test_a_disk_that_fails_halfway_leaves_nothing(patched, tmp_path, monkeypatch, number, text):
    model, summary, _ = patched
    before = summary.path.read_bytes()
    kernel_copy = storage._kernel_copy

    def fail(reader, writer, start, count):
        kernel_copy(reader, writer, start, count // 2)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(storage, "_kernel_copy", fail)
    present = set(tmp_path.iterdir())
    assert text in error_of(apply_patch, model, summary.path, tmp_path / "x").cause
    assert text in error_of(patch_of, model, {"a.weight": low_rank()}, summary.path).cause
    assert text in error_of(update_results, summary.path, {"n": 1}).cause
    assert set(tmp_path.iterdir()) == present
    assert summary.path.read_bytes() == before


@pytest.mark.parametrize("supported", [True, False])
def test_copying_without_the_kernels_help(tmp_path, monkeypatch, supported):
    if supported:

        def refuse(*_):
            raise OSError(errno.EXDEV, "another file system")

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    else:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    monkeypatch.setattr(storage, "COPY_BYTES", 7)
    (tmp_path / "a").write_bytes(bytes(range(100)))
    storage.copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == bytes(range(100))


def test_where_a_quicker_sum_errs_the_slower_one_is_taken(patched, tmp_path, monkeypatch):
    model, summary, applied = patched
    quick = arithmetic.quick_low_rank_sum
    calls = []

    def wrong(up, down):
        calls.append(len(up))
        return quick(up, down) + 1

    monkeypatch.setattr("demur.checkpoint.patch_rewrites.quick_low_rank_sum", wrong)
    again = apply_patch(model, summary.path, tmp_path / "again")
    assert again.exact
    assert files(again.folder) == files(applied.folder)
    assert revert_patch(again.folder, summary.path, tmp_path / "back").exact
    assert files(tmp_path / "back") == files(model)
    assert calls == [6, 6]


def test_rounding_that_differs_is_said(patched, tmp_path, monkeypatch):
    model, summary, _ = patched
    add = arithmetic.add
    monkeypatch.setattr(arithmetic, "add", lambda *a: add(*a) ^ np.uint16(1))
    applied = apply_patch(model, summary.path, tmp_path / "x")
    assert not applied.exact
    assert "not the patched model to the bit" in applied.sentence
    assert applied.checkpoint_hash == checkpoint_hash(open_checkpoint(applied.folder))
