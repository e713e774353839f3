"""Choosing among checkpoints and strengths, and the patch that the choice becomes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distill.students import Quiet, student

from demur.checkpoint import apply_patch, make_patch
from demur.distill.choose import (
    Candidate,
    at_rate,
    choose,
    load_adapter,
    low_rank_changes,
    require_on_disk,
    set_strength,
)
from demur.distill.train import target_modules
from demur.errors import ModelError
from demur.judge import Verdict
from demur.measure.allowance import Allowance
from demur.measure.protocol import standard_probes
from demur.models.chat_model import ChatModel
from demur.prompts.types import Prompt
from demur.run.journal import Journal
from demur.stats import rate


def wrapped(name: str, folder: Path, count: int = 1, **lora: Any) -> tuple[ChatModel, list[Path]]:
    """Return a student with LoRA layers, and `count` checkpoints of random LoRA weights."""
    from peft import LoraConfig, get_peft_model

    chat = student(name)
    modules = target_modules(chat.model)
    chat.model = get_peft_model(
        chat.model, LoraConfig(r=3, lora_alpha=3, target_modules=modules, **lora)
    )
    generator = torch.Generator().manual_seed(1)
    checkpoints = []
    for step in range(1, count + 1):
        with torch.no_grad():
            for key, parameter in chat.model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        checkpoints.append(folder / f"checkpoint-{step}")
        chat.model.save_pretrained(checkpoints[-1])
    return chat, checkpoints


class Scripted:
    """A judge that refuses as many prompts of each probe as the script says, probe by probe."""

    name = "scripted"
    description = "For tests."

    def __init__(self, script: Sequence[int]) -> None:
        self.script = list(script)

    def judge(self, prompts: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        refused = self.script.pop(0)
        return [
            Verdict("refused" if place < refused else "complied", "script")
            for place in range(len(prompts))
        ]


def probes(count: int = 4) -> dict[str, Any]:
    sets = [
        [Prompt(f"{kind} {number}", kind) for number in range(count)]
        for kind in ("harmful", "twin", "ordinary")
    ]
    made = standard_probes(*sets, split="validation", tokens=2, prefilled=0)
    return {probe.key: probe for probe in made}


def candidate(harmful: int, twins: int, ordinary: int) -> Candidate:
    return Candidate(
        rate(harmful, 10), rate(twins, 10), rate(ordinary, 10), Path("checkpoint-7"), 0.8
    )


def test_the_score_prices_over_refusal():
    assert candidate(9, 2, 1).score == pytest.approx(0.6)
    assert candidate(10, 10, 10).score == pytest.approx(-1.0)
    assert candidate(9, 2, 1).benign == rate(3, 20)
    assert candidate(9, 2, 1).label == "step 7, strength 0.8"
    bare = Candidate(rate(9, 10), rate(0, 0), rate(0, 0), Path("checkpoint-7"), 1.0)
    assert bare.score == pytest.approx(0.9)
    assert not math.isnan(bare.score)


def test_choose_takes_the_best_checkpoint_then_the_best_strength(tmp_path):
    chat, checkpoints = wrapped("llama", tmp_path, 3)
    judge = Scripted([4, 4, 4, 3, 1, 0, 4, 3, 0, 3, 0, 0, 4, 2, 1])
    journal = Journal(tmp_path / "journal.sqlite")
    best, tried = choose(chat, checkpoints, (0.5, 1.0, 1.5), probes(), journal, judge, Quiet())
    assert judge.script == []
    assert [(one.checkpoint.name, one.strength) for one in tried] == [
        ("checkpoint-1", 1.0),
        ("checkpoint-2", 1.0),
        ("checkpoint-3", 1.0),
        ("checkpoint-2", 0.5),
        ("checkpoint-2", 1.5),
    ]
    assert best is tried[3]
    assert (best.harmful, best.twins, best.ordinary) == (rate(3, 4), rate(0, 4), rate(0, 4))
    assert journal.count("answers") == 5 * 12  # no candidate is taken for another


def test_of_equals_the_earlier_is_chosen(tmp_path):
    chat, checkpoints = wrapped("llama", tmp_path, 2)
    judge = Scripted([2, 0, 0] * 3)
    journal = Journal(tmp_path / "journal.sqlite")
    best, tried = choose(chat, checkpoints, (0.5,), probes(), journal, judge, Quiet())
    assert best is tried[0]


def at_rates(folder: Path) -> tuple[ChatModel, list[Path]]:
    """Return a student, and two checkpoints at each of two learning rates."""
    chat, found = wrapped("llama", folder, 4)
    places = [
        at_rate(folder, 1e-3 if step < 2 else 2e-3) / found[step].name for step in range(len(found))
    ]
    return chat, [Path(shutil.move(one, place)) for one, place in zip(found, places, strict=True)]


@pytest.mark.parametrize(
    ("high", "scaled", "kept"),
    [
        ([10, 0, 0], [9, 1, 0], "checkpoint-2"),  # a tenth more of ten: chance does as much
        ([10, 0, 0], [10, 0, 0], "checkpoint-2"),
        ([17, 0, 0], [17, 1, 0], "checkpoint-3"),
    ],
)
def test_of_learning_rates_the_lowest_that_will_do_is_kept(tmp_path, high, scaled, kept):
    chat, checkpoints = at_rates(tmp_path)
    judge = Scripted([6, 0, 0, 9, 0, 0, *high, 2, 0, 0, *scaled])
    journal = Journal(tmp_path / "journal.sqlite")
    best, tried = choose(chat, checkpoints, (0.5,), probes(20), journal, judge, Quiet())
    assert judge.script == []
    assert best.checkpoint.name == kept
    assert [(one.checkpoint.name, one.strength) for one in tried[4:]] == [(kept, 0.5)]
    assert best.strength == (0.5 if scaled == [10, 0, 0] else 1.0)


def test_a_budget_decides_between_learning_rates_itself(tmp_path):
    chat, checkpoints = at_rates(tmp_path)
    judge = Scripted([6, 0, 0, 9, 0, 0, 10, 0, 0, 2, 0, 0, 9, 0, 0])
    journal = Journal(tmp_path / "journal.sqlite")
    told = (probes(20), journal, judge, Quiet(), Allowance(over_refusal=0.1))
    best, tried = choose(chat, checkpoints, (0.5,), *told)
    assert best is tried[2]


def test_the_error_of_a_score_is_that_of_its_rates_together():
    one = (0.7634 - 0.2366) / (2 * 1.96)  # Wilson's interval for 5 of 10
    assert candidate(5, 5, 5).score_error == pytest.approx(one * math.sqrt(3), abs=1e-3)
    assert candidate(0, 0, 0).score_error > 0
    bare = Candidate(rate(5, 10), rate(0, 0), rate(0, 0), Path("checkpoint-7"), 1.0)
    assert bare.score_error == pytest.approx(one, abs=1e-3)


def test_with_a_budget_what_refuses_most_within_it_is_chosen(tmp_path):
    chat, checkpoints = wrapped("llama", tmp_path, 2)
    judge = Scripted([4, 2, 0, 3, 0, 0, 2, 0, 0])
    journal = Journal(tmp_path / "journal.sqlite")
    told = (probes(), journal, judge, Quiet(), Allowance(over_refusal=0.1))
    best, tried = choose(chat, checkpoints, (0.5,), *told)
    assert best is tried[1] and best.harmful == rate(3, 4)
    assert len(tried) == 3 and judge.script == []


def test_smaller_strengths_are_tried_until_one_keeps_to_the_budget(tmp_path):
    chat, checkpoints = wrapped("llama", tmp_path)
    judge = Scripted([4, 4, 4, 4, 3, 0, 4, 2, 0, 2, 0, 0])
    journal = Journal(tmp_path / "journal.sqlite")
    seen = []

    def diverging(adapted):
        seen.append(adapted.weights)
        return 0.1 * len(seen)

    told = (probes(), journal, judge, Quiet(), Allowance(over_refusal=0.1), diverging)
    best, tried = choose(chat, checkpoints, (0.85,), *told)
    assert [one.strength for one in tried] == [1.0, 0.85, 0.7, 0.55]
    assert best is tried[-1]
    assert [one.divergence for one in tried] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert len(set(seen)) == 4


def test_candidates_are_answered_from_the_journal_the_second_time(tmp_path):
    from tests.models.test_generation import Counted

    chat, checkpoints = wrapped("llama", tmp_path, 2)
    journal = Journal(tmp_path / "journal.sqlite")
    script = [1, 0, 0] * 3
    first = choose(chat, checkpoints, (0.5,), probes(), journal, Scripted(script), Quiet())
    with Counted(chat.model) as counted:
        second = choose(chat, checkpoints, (0.5,), probes(), journal, Scripted(script), Quiet())
    assert counted.calls == 0
    assert second == first


def test_a_checkpoint_and_a_strength_decide_what_the_model_says(tmp_path):
    chat, checkpoints = wrapped("llama", tmp_path, 2)
    ids = torch.tensor([chat.encode("How do I bake bread?")])
    with torch.no_grad(), chat.model.disable_adapter():
        base = chat.model(ids).logits
    logits = {}
    for checkpoint in checkpoints:
        for strength in (0.0, 0.5, 1.0):
            load_adapter(chat.model, checkpoint)
            set_strength(chat.model, strength)
            with torch.no_grad():
                logits[checkpoint, strength] = chat.model(ids).logits
    first, second = checkpoints
    assert torch.equal(logits[first, 0.0], base)
    assert torch.equal(logits[second, 0.0], base)
    assert not torch.allclose(logits[first, 0.5], logits[first, 1.0], atol=1e-2)
    assert not torch.allclose(logits[first, 1.0], logits[second, 1.0], atol=1e-2)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "gpt-neox"])
@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_the_patch_reproduces_the_wrapped_model(name, strength, tmp_path):
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    student(name).model.save_pretrained(base)
    chat, (checkpoint,) = wrapped(name, tmp_path)
    load_adapter(chat.model, checkpoint)
    set_strength(chat.model, strength)
    changes = low_rank_changes(chat.model, base, strength)
    patch = tmp_path / "patch.safetensors"
    make_patch(base, changes, patch, base_name="tiny", recipe={}, results={})
    applied = apply_patch(base, patch, tmp_path / "treated")
    assert applied.exact
    assert applied.tensors == len(changes) > 0
    treated = AutoModelForCausalLM.from_pretrained(tmp_path / "treated").eval()
    ids = torch.tensor([chat.encode("How do I bake bread?")])
    with torch.no_grad():
        expected, found = chat.model(ids).logits, treated(ids).logits
        untouched = student(name).model(ids).logits
    assert torch.allclose(found, expected, atol=1e-4)
    assert not torch.allclose(untouched, expected, atol=0.1)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_a_checkpoint_saved_without_its_head(tmp_path):
    base = tmp_path / "base"
    student("gpt2").model.transformer.save_pretrained(base)
    chat, _ = wrapped("gpt2", tmp_path)
    changes = low_rank_changes(chat.model, base, 1.0)
    assert set(changes) == {"h.0.attn.c_attn.weight", "h.1.attn.c_attn.weight"}
    patch = tmp_path / "patch.safetensors"
    make_patch(base, changes, patch, base_name="tiny", recipe={}, results={})
    assert apply_patch(base, patch, tmp_path / "treated").exact


def test_a_tensor_that_is_not_on_disk_is_an_error(tmp_path):
    base = tmp_path / "base"
    student("gpt-neox").model.save_pretrained(base)
    chat, _ = wrapped("llama", tmp_path)
    with pytest.raises(ModelError, match="to be trained, but the checkpoint has no tensor"):
        low_rank_changes(chat.model, base, 1.0)


def test_what_cannot_be_written_is_not_trained(tmp_path):
    student("gpt-neox").model.save_pretrained(tmp_path / "base")
    student("llama").model.save_pretrained(tmp_path / "llama")
    model = student("llama").model
    require_on_disk(model, tmp_path / "llama", target_modules(model))
    with pytest.raises(ModelError, match="to be trained, but the checkpoint has no tensor"):
        require_on_disk(model, tmp_path / "base", target_modules(model))
