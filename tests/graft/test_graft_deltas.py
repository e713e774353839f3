"""What a donor has to give, read from checkpoints: ranks, energies, and files that are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.relatives import Relatives, make_relatives

from demur.checkpoint import open_checkpoint
from demur.errors import CheckpointError
from demur.graft.deltas import Deltas, find_deltas
from demur.models.anatomy import anatomy_of
from demur.models.anatomy.types import Anatomy


@pytest.fixture(scope="module")
def relatives(tmp_path_factory: pytest.TempPathFactory) -> Relatives:
    return make_relatives(tmp_path_factory.mktemp("relatives"))


@pytest.fixture(scope="module")
def anatomy(relatives: Relatives) -> Anatomy:
    return anatomy_of(relatives.chat().model, open_checkpoint(relatives.recipient))


def find(relatives: Relatives, anatomy: Anatomy, store: Path, **choices: object) -> Deltas:
    return find_deltas(
        anatomy, relatives.recipient, relatives.donor, relatives.base, store=store, **choices
    )


def test_the_rank_of_what_was_added_is_found(
    relatives: Relatives, anatomy: Anatomy, tmp_path: Path
) -> None:
    deltas = find(relatives, anatomy, tmp_path)

    changed = {f"layers.{layer}.{kind}" for layer in range(4) for kind in ("gate", "down", "o")}
    assert set(deltas.changed) == changed
    assert deltas.low_rank == 2
    assert {deltas[name].rank for name in changed} == {2}
    assert deltas["layers.1.up"].rank == 0 and deltas["layers.1.up"].norm == 0
    down = deltas["layers.1.down"]
    added = relatives.added["model.layers.1.mlp.down_proj.weight"]
    assert down.norm == pytest.approx(float(np.linalg.norm(added)), rel=1e-5)
    values = np.linalg.svd(added, compute_uv=False)
    assert down.energy(1) == pytest.approx(values[0] ** 2 / (values**2).sum(), rel=1e-4)
    assert down.energy(2) == pytest.approx(1)


def test_without_a_base_the_recipient_is_compared_with(
    relatives: Relatives, anatomy: Anatomy, tmp_path: Path
) -> None:
    deltas = find_deltas(anatomy, relatives.recipient, relatives.donor, store=tmp_path, most=5)

    assert deltas.low_rank is None  # the recipient's own tuning stands between them
    up = deltas["layers.2.up"]
    assert up.changed and up.rank is None
    assert up.pieces[0].factors is not None and up.pieces[0].factors.rank == 5


def test_what_was_found_is_not_computed_again(
    relatives: Relatives,
    anatomy: Anatomy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = find(relatives, anatomy, tmp_path)
    broken = sorted((tmp_path / first.key).iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:100])
    computed = []
    from demur.graft import deltas as room

    whole = room.factorise
    monkeypatch.setattr(room, "factorise", lambda *a: computed.append(a) or whole(*a))

    again = find(relatives, anatomy, tmp_path)

    assert len(computed) == 7  # those of the layer whose file was damaged
    for name in first:
        for one, other in zip(first[name].pieces, again[name].pieces, strict=True):
            assert one.norm == other.norm and one.memory == other.memory
            if one.factors is not None and other.factors is not None:
                assert np.array_equal(one.factors.up, other.factors.up)
                assert one.factors.exact == other.factors.exact


def test_a_donor_without_anything_to_give_is_refused(
    relatives: Relatives, anatomy: Anatomy, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="same weights"):
        find_deltas(anatomy, relatives.recipient, relatives.base, relatives.base, store=tmp_path)


def test_a_donor_of_another_shape_is_refused(
    relatives: Relatives, anatomy: Anatomy, tmp_path: Path
) -> None:
    wider = make_relatives(tmp_path / "wider", intermediate_size=80)

    with pytest.raises(CheckpointError, match="same family"):
        find_deltas(anatomy, relatives.recipient, wider.donor, store=tmp_path / "store")
    assert not list((tmp_path / "store").glob("*/*"))
