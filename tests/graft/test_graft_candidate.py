"""Candidates: what they change, tried in memory and written as a patch, and what they weigh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tests.relatives import Relatives, make_relatives

from demur.checkpoint import Dense, LowRank, apply_patch, make_patch, open_checkpoint
from demur.errors import ConfigError
from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas, find_deltas
from demur.graft.workbench import Workbench
from demur.models.anatomy import anatomy_of
from demur.models.chat_model import ChatModel
from demur.models.edits import edited

Setting = tuple[Relatives, ChatModel, Deltas]
TENSORS = {
    "llama": ("gate", "down_proj", "o_proj"),
    "phi3": ("gate_up", "qkv", "down_proj"),
    "mixtral": ("w1", "w2", "o_proj"),
}


@pytest.fixture(scope="module", params=["llama", "phi3"])
def setting(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return make_setting(tmp_path_factory.mktemp("setting"), request.param)


def make_setting(folder: Path, kind: str) -> Setting:
    relatives = make_relatives(folder, kind, tensors=TENSORS[kind])
    chat = relatives.chat()
    anatomy = anatomy_of(chat.model, open_checkpoint(relatives.recipient))
    deltas = find_deltas(
        anatomy, relatives.recipient, relatives.donor, relatives.base, store=folder / "deltas"
    )
    return relatives, chat, deltas


def some(deltas: Deltas) -> frozenset[str]:
    """Return modules of two layers: a gate alone in its tensor or half of one, and others."""
    return frozenset(name for name in deltas.changed if name.startswith("layers.1.")) | {
        "layers.0.gate"
    }


def candidates(deltas: Deltas) -> list[Candidate]:
    modules, every = some(deltas), frozenset(deltas)
    return [
        Candidate(modules),
        Candidate(modules, 2.5),
        Candidate(modules, 1.0, 1),
        Candidate(frozenset({"layers.0.gate"}), 3.0, 1),
        Candidate(modules, kind="swap"),
        Candidate(every, 0.5),
        Candidate(frozenset()),
    ]


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_workbench_makes_what_edits_make_and_undoes_it_to_the_bit(setting: Setting) -> None:
    _, chat, deltas = setting
    before = state(chat.model)
    order = candidates(deltas)
    with Workbench(chat.model, deltas) as bench:
        for candidate in [*order, *reversed(order), order[1]]:
            bench.move(candidate)
            tried = state(chat.model)
            bench.move(None)
            assert same(state(chat.model), before)
            with edited(chat.model, candidate.changes(deltas)):
                expected = state(chat.model)
            for name in tried:
                assert torch.allclose(tried[name], expected[name], rtol=0, atol=1e-6)
            bench.move(candidate)
            assert same(state(chat.model), tried)
    assert same(state(chat.model), before)


def test_the_workbench_touches_only_what_differs(setting: Setting) -> None:
    _, chat, deltas = setting
    small, large = frozenset({"layers.0.down"}), frozenset({"layers.0.down", "layers.1.down"})
    before = state(chat.model)
    with Workbench(chat.model, deltas) as bench:
        touched = []
        for candidate in (
            Candidate(small),
            Candidate(large),
            Candidate(large),
            Candidate(small),
            Candidate(small, 2.0),
        ):
            bench.move(candidate)
            touched.append(bench.touched)
        assert touched == [1, 2, 2, 3, 4]
    assert same(state(chat.model), before)


def test_the_patch_is_what_was_tried(setting: Setting, tmp_path: Path) -> None:
    relatives, chat, deltas = setting
    for number, candidate in enumerate(candidates(deltas)[:5]):
        patch = tmp_path / f"{number}.safetensors"
        summary = make_patch(
            relatives.recipient,
            candidate.changes(deltas),
            patch,
            base_name="tiny",
            recipe=candidate.to_json(),
            results={},
        )
        apply_patch(relatives.recipient, patch, tmp_path / str(number))
        written = load_file(tmp_path / str(number) / "model.safetensors")
        with Workbench(chat.model, deltas) as bench:
            bench.move(candidate)
            for name, value in chat.model.named_parameters():
                assert np.abs(written[name] - value.numpy()).max() < 1e-6
        assert summary.tensors == len(candidate.changes(deltas))


def test_experts_that_memory_holds_in_one_tensor_are_tried_too(tmp_path: Path) -> None:
    from demur.models.chat_model import load_chat_model

    relatives, chat, deltas = make_setting(tmp_path, "mixtral")
    before = state(chat.model)
    assert {"layers.0.gate", "layers.1.down"} <= set(deltas.changed)
    with Workbench(chat.model, deltas) as bench:
        for number, candidate in enumerate(candidates(deltas)[:5]):
            patch, folder = tmp_path / f"{number}.safetensors", tmp_path / str(number)
            changes = candidate.changes(deltas)
            make_patch(relatives.recipient, changes, patch, base_name="tiny", recipe={}, results={})
            apply_patch(relatives.recipient, patch, folder)
            written = load_chat_model(folder, chat.placement, weights="").model
            bench.move(candidate)
            for name, value in chat.model.state_dict().items():
                assert torch.allclose(written.state_dict()[name], value, rtol=0, atol=1e-6)
            assert not same(state(chat.model), before)
    assert same(state(chat.model), before)


def test_a_graft_adds_what_the_donor_has_and_no_other_module(setting: Setting) -> None:
    relatives, _, deltas = setting
    gate = deltas["layers.1.gate"].pieces[0].disk
    candidate = Candidate(frozenset({"layers.1.gate"}), 2.0)
    change = candidate.changes(deltas)[gate.tensor]

    assert isinstance(change, LowRank)
    found = change.up @ change.down
    rows = slice(gate.start, gate.stop)
    expected = np.zeros_like(found)
    expected[rows] = 2 * relatives.added[gate.tensor][rows]
    assert np.abs(found - expected).max() < 1e-5
    assert list(candidate.changes(deltas)) == [gate.tensor]


def test_a_swap_gives_the_donors_own_bits(setting: Setting) -> None:
    relatives, _, deltas = setting
    gate = deltas["layers.1.gate"].pieces[0].disk
    change = Candidate(frozenset({"layers.1.gate"}), kind="swap").changes(deltas)[gate.tensor]

    assert isinstance(change, Dense)
    given = load_file(relatives.donor / "model.safetensors")[gate.tensor]
    own = load_file(relatives.recipient / "model.safetensors")[gate.tensor].copy()
    own[gate.start : gate.stop] = given[gate.start : gate.stop]
    assert np.array_equal(change.values.astype("f4"), own)


def test_parameters_are_those_of_the_patch(setting: Setting) -> None:
    _, chat, deltas = setting
    hidden, inner = chat.model.config.hidden_size, chat.model.config.intermediate_size
    gate = frozenset({"layers.1.gate"})

    assert Candidate(gate, 2.0, 1).parameters(deltas) == hidden + inner
    assert Candidate(gate).parameters(deltas) == 2 * (hidden + inner)
    assert Candidate(gate, kind="swap").parameters(deltas) == hidden * inner
    assert Candidate(frozenset()).parameters(deltas) == 0
    share = Candidate(gate).share(deltas)
    assert share == 2 * (hidden + inner) / deltas.recipient.parameters
    assert Candidate(gate).lowest(deltas) == 1
    assert Candidate(frozenset()).lowest(deltas) == len(deltas.anatomy.layers)


def test_candidates_are_known_by_content() -> None:
    one = Candidate(frozenset({"layers.1.gate", "layers.2.up"}), 2.0, 4)

    assert Candidate(frozenset({"layers.2.up", "layers.1.gate"}), 2.0, 4).key == one.key
    assert Candidate(one.modules, 2.0).key != one.key
    assert Candidate.from_json(one.to_json()) == one


@pytest.mark.parametrize(
    "choices", [{"scale": 0.0}, {"scale": -1.0}, {"scale": float("nan")}, {"rank": 0}]
)
def test_a_graft_only_ever_adds(choices: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Candidate(frozenset(), **choices)


def test_a_module_that_is_not_there_is_named(setting: Setting) -> None:
    _, chat, deltas = setting
    unknown = Candidate(frozenset({"layers.99.gate"}))

    with pytest.raises(ConfigError, match=r"layers\.99\.gate"):
        unknown.changes(deltas)
    with Workbench(chat.model, deltas) as bench, pytest.raises(ConfigError):
        bench.move(unknown)


def test_a_change_beyond_all_numbers_is_refused_and_undone(setting: Setting) -> None:
    from demur.errors import ModelError

    _, chat, deltas = setting
    before = state(chat.model)
    with Workbench(chat.model, deltas) as bench:
        with pytest.raises(ModelError, match="smaller scale"):
            bench.move(Candidate(some(deltas), 1e39))
        assert same(state(chat.model), before)
