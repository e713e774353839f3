"""A model of which each of two processes holds a share: what it holds, and what it answers."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tests.distill.students import CPU
from tests.models.architectures import tiny
from tests.processes import together
from tests.tiny import tiny_llama

from demur.distill.divided import divide, divided, frozen_names
from demur.distill.recipe import Recipe
from demur.distill.sampling import rollout
from demur.distill.train import wrapped
from demur.distill.untouched import untouched
from demur.models.anatomy import decoder_layers
from demur.models.chat_model import load_chat_model
from demur.run.processes import launched, require_sharing

ARCHITECTURES = ("llama", "gemma3", "phi3", "gpt2", "opt", "falcon", "mpt", "mixtral")
IDS = torch.tensor([[5, 9, 14, 3], [8, 2, 6, 11]])
BOTH = "import sys; from tests.distill.test_divided import both; both(sys.argv[1])"


def taught(model: Any) -> Any:
    """Return the model with LoRA that does something, the same in every process."""
    peft = wrapped(model, Recipe(rank=2, first_layer=0.0))
    generator = torch.Generator().manual_seed(4)
    for name, parameter in peft.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return peft


def asked(peft: Any) -> dict[str, Any]:
    """Return what a wrapped model answers, also with LoRA off, and LoRA's gradients."""
    logits = peft(IDS).logits
    logits.logsumexp(-1).sum().backward()
    found = {name: one.grad for name, one in peft.named_parameters() if one.requires_grad}
    with torch.no_grad(), untouched(peft) as before:
        return {**found, "logits": logits.detach(), "before": before(IDS).logits}


def written(peft: Any) -> list[tuple[int, ...]]:
    """Return what a model writes to this process's own requests, far shorter in one of the two."""
    rank = launched().rank
    torch.manual_seed(rank)
    return rollout(peft, [(5, 9, 14 + rank), (8, 2)], 9 if rank else 2, frozenset({2}))


def share_of(model: Any) -> float:
    """Return how much of the layers' weights lies in this process."""
    weights = [one for layer in decoder_layers(model) for one in layer.parameters()]
    return sum(one.to_local().numel() for one in weights) / sum(one.numel() for one in weights)


def both(place: str) -> None:
    """Be one of two processes: hold half of each model, and compare it with the whole."""
    torch.set_num_threads(1)
    from torch.distributed.device_mesh import init_device_mesh

    require_sharing("distill", shares=True)
    launched().meet(on_cpu=True)
    for name in ARCHITECTURES:
        model = deepcopy(tiny(name))
        divide(model, init_device_mesh("cpu", (2,)))
        print(name, share_of(model))
        peft = taught(model)
        expected, found = asked(taught(deepcopy(tiny(name)))), asked(peft)
        assert expected.keys() == found.keys()
        for what, one in expected.items():
            torch.testing.assert_close(found[what], one, msg=f"{name}: {what}")
        assert not any("lora_" in one for one in frozen_names(peft))
        assert written(peft) == written(taught(deepcopy(tiny(name))))
    chat = load_chat_model(Path(place), CPU, weights="w")
    print(chat.model.device.type)
    whole = tiny_from(Path(place))
    shared = divided(chat)
    assert chat.model is None
    torch.testing.assert_close(shared.model(IDS).logits, whole(IDS).logits)
    print("loaded", share_of(shared.model))
    launched().part(on_cpu=True)


def tiny_from(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_each_holds_half_and_answers_as_the_whole(tmp_path: Path) -> None:
    folder = tiny_llama(tmp_path / "tiny")
    ended = together(Path.cwd(), "-c", BOTH, str(folder), divided=True)
    assert all(one.returncode == 0 for one in ended), "".join(one.stderr[-3000:] for one in ended)
    first, second = (one.stdout.splitlines() for one in ended)
    devices = {lines.pop(len(ARCHITECTURES)) for lines in (first, second)}
    assert devices == {"cpu", "meta"}  # the leader has it whole, the other has its shape
    for one, two in zip(first, second, strict=True):
        (name, share), (same, other) = one.split(), two.split()
        assert name == same and float(share) + float(other) == 1, name
        assert 0.45 < float(share) < 0.55, name
