"""Device and number format: chosen for the machine, and said."""

from __future__ import annotations

from pathlib import Path

import pytest

from demur.errors import ConfigError, ModelError
from demur.models import device
from demur.models.device import Placement, choose_device_and_dtype, cpu_flags


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine without GPU, whose CPU has no fast bfloat16."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset({"avx2"}))
    return monkeypatch


def test_a_plain_cpu_gets_float32(machine: pytest.MonkeyPatch) -> None:
    found = choose_device_and_dtype()
    assert (found.device, found.dtype) == ("cpu", "float32")
    assert "no GPU" in found.sentence and "no fast bfloat16" in found.sentence


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16"])
def test_a_cpu_with_fast_bfloat16_uses_it(machine: pytest.MonkeyPatch, flag: str) -> None:
    machine.setattr(device, "cpu_flags", lambda: frozenset({"avx2", flag}))
    found = choose_device_and_dtype()
    assert (found.device, found.dtype) == ("cpu", "bfloat16")
    assert flag in found.sentence


@pytest.mark.parametrize(("has_bf16", "dtype"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_comes_first(machine: pytest.MonkeyPatch, has_bf16: bool, dtype: str) -> None:
    machine.setattr("torch.cuda.is_available", lambda: True)
    machine.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    machine.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: has_bf16)
    found = choose_device_and_dtype()
    assert (found.device, found.dtype) == ("cuda", dtype)
    assert "Some GPU" in found.sentence
    assert choose_device_and_dtype("cpu").device == "cpu"
    assert choose_device_and_dtype("cuda", "fp32").dtype == "float32"
    if not has_bf16:
        with pytest.raises(ModelError, match="cannot compute"):
            choose_device_and_dtype("auto", "bf16")


def test_an_apple_gpu_comes_before_the_cpu(machine: pytest.MonkeyPatch) -> None:
    machine.setattr("torch.backends.mps.is_available", lambda: True)
    machine.setattr("torch.backends.mps.is_macos_or_newer", lambda major, minor: True)
    found = choose_device_and_dtype()
    assert (found.device, found.dtype) == ("mps", "bfloat16")


def test_what_was_asked_for_is_given_and_its_cost_said(machine: pytest.MonkeyPatch) -> None:
    found = choose_device_and_dtype("cpu", "bf16")
    assert found == Placement("cpu", "bfloat16", found.sentence)
    assert "as asked" in found.sentence and "slow" in found.sentence


@pytest.mark.parametrize(
    ("where", "how", "cause"),
    [
        ("cuda", "auto", "finds none here"),
        ("tpu", "auto", "no device named 'tpu'"),
        ("auto", "int3", "no number format named 'int3'"),
    ],
)
def test_impossible_choices(machine: pytest.MonkeyPatch, where: str, how: str, cause: str) -> None:
    with pytest.raises(ModelError, match=cause):
        choose_device_and_dtype(where, how)


def test_the_flags_of_the_cpu_are_read(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16 avx2\nprocessor\t: 1\n")
    assert cpu_flags(info) == {"fpu", "amx_bf16", "avx2"}
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_each_process_has_a_gpu_of_its_own(machine: pytest.MonkeyPatch) -> None:
    machine.setattr("torch.cuda.is_available", lambda: True)
    machine.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    machine.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    machine.setattr("torch.cuda.device_count", lambda: 1)
    for variable, value in (("WORLD_SIZE", "2"), ("RANK", "0"), ("LOCAL_RANK", "0")):
        machine.setenv(variable, value)
    assert choose_device_and_dtype().device == "cuda"
    machine.setenv("RANK", "1")
    machine.setenv("LOCAL_RANK", "1")
    with pytest.raises(ConfigError, match=r"process 2 .* sees 1 GPU\."):
        choose_device_and_dtype()
    assert choose_device_and_dtype("cpu").device == "cpu"
