"""Changes of weights tried in memory, and undone to the bit.

    with edited(chat.model, changes, 0.5):
        ...  # the model behaves as changed at half the strength

`changes` are those that `checkpoint.make_patch` writes, by the tensors' names on disk. A change in
memory is rounded once to the dtype that the model was loaded in, from float32; a patch is rounded
from float64 to the dtype on disk, so that the two may differ in a number's last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from demur.errors import ConfigError, ModelError
from demur.models.anatomy.names import DiskNames

if TYPE_CHECKING:
    from demur.checkpoint.changes import Dense, LowRank

OUTPUT_HEAD = "lm_head.weight"


def name_on_disk(model: Any, parameter: str, tensors: Collection[str]) -> str | None:
    """Return the name in the checkpoint of a parameter in memory, or None if it has none there.

    Args:
        tensors: the names in the checkpoint.
    """
    bare = parameter.removeprefix(f"{model.base_model_prefix}.")  # saved without its head
    for name in (parameter, bare):
        if name in tensors:  # also where an adapter's wrapping hides the parameter's own name
            return name
    return DiskNames(model, dict.fromkeys(tensors, ())).tensor(parameter)


def parameter_named(model: Any, tensor: str) -> Any:
    """Return the parameter in memory that holds the checkpoint's `tensor`.

    Raises:
        ModelError: the model has none of that name, or its weights are not in memory.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    found = parameters.get(tensor)
    if found is None:
        renamed = DiskNames(model, {tensor: ()}).parameter(tensor)
        found = None if renamed is None else parameters.get(renamed)
    if found is None:
        raise ModelError(
            f"The model in memory has no parameter {tensor}.",
            "This architecture holds it under another name, so that the change cannot be tried "
            "in memory; write it as a patch instead.",
        )
    if found.device.type == "meta":
        raise ModelError(
            f"The weights of {tensor} are not in memory.", "Use a device that holds the model."
        )
    return found


@contextmanager
def edited(
    model: Any, changes: Mapping[str, LowRank | Dense], scale: float = 1.0
) -> Iterator[None]:
    """Change weights in place for as long as the context is open, then put the old bits back.

    Contexts may be nested: an inner one starts from what the outer one made, and leaves it so.
    Copies of the changed tensors are kept on their device meanwhile. An output head that the
    model shares with its input embedding is changed once, as the embedding.

    Args:
        model: the transformers model, not wrapped.
        changes: by the tensor's name on disk; each is asked for once.
        scale: a factor on the whole change, at least 0: W + scale * (changed W - W).

    Raises:
        ConfigError: the scale is negative or no number.
        ModelError: a tensor is not in the model, a change does not fit it, or what comes out is
            NaN or infinite. The model is then as before.
    """
    import torch

    require_scale(scale)
    targets = {name: parameter_named(model, name) for name in changes}
    names = _once_each(targets)
    kept: list[tuple[Any, Any]] = []
    try:
        with torch.no_grad():
            for name in names:
                parameter = targets[name]
                result = _result(name, parameter, changes[name], scale)
                kept.append((parameter, parameter.detach().clone()))
                parameter.copy_(result)
        yield
    finally:
        with torch.no_grad():
            for parameter, before in reversed(kept):
                parameter.copy_(before)


def _once_each(targets: Mapping[str, Any]) -> list[str]:
    """Return the names to change: of a head and the embedding that it is, the embedding's."""
    names: dict[int, list[str]] = {}
    for name, parameter in targets.items():
        names.setdefault(id(parameter), []).append(name)
    chosen = []
    for same in names.values():
        left = [name for name in same if not name.endswith(OUTPUT_HEAD)] or same
        if len(left) > 1:
            raise ModelError(
                f"{left[0]} and {left[1]} are one and the same tensor in memory.",
                "Change only one of them.",
            )
        chosen.append(left[0])
    return chosen


def require_scale(scale: float) -> None:
    """Check that a scale only ever adds.

    Raises:
        ConfigError: it is negative, infinite or no number.
    """
    if not 0 <= scale < float("inf"):
        raise ConfigError(
            f"The scale {scale:g} is not a number of at least 0.",
            "Give a scale from 0 on: changes are made to add refusals, never to take them away.",
        )


def _result(name: str, parameter: Any, change: LowRank | Dense, scale: float) -> Any:
    """Return the parameter's new values in its dtype."""
    import torch

    from demur.checkpoint.changes import Dense

    before = parameter.detach().float()
    if isinstance(change, Dense):
        new = _values(name, parameter, change)
        if scale == 1:
            result = new.to(parameter.dtype)
        else:
            result = (before + scale * (new.float() - before)).to(parameter.dtype)
    else:
        up, down = (
            torch.from_numpy(factor).to(parameter.device, torch.float32)
            for factor in (change.up, change.down)
        )
        fits = up.dim() == down.dim() == 2 and up.shape[1] == down.shape[0]
        if not fits or (up.shape[0], down.shape[1]) != tuple(parameter.shape):
            raise _unfit(name, parameter, [list(up.shape), list(down.shape)])
        result = (before + scale * (up @ down)).to(parameter.dtype)
    if not bool(torch.isfinite(result).all()):
        raise ModelError(
            f"The change at scale {scale:g} makes {name} NaN or infinite.", "Use a smaller scale."
        )
    return result


def _values(name: str, parameter: Any, change: Dense) -> Any:
    """Return a dense change's values as a tensor on the parameter's device."""
    import torch

    values = change.values
    if values.dtype.kind == "u":  # the tensor's own bits
        if values.dtype.itemsize != parameter.element_size() or values.shape != parameter.shape:
            raise _unfit(name, parameter, [f"raw {values.dtype} {list(values.shape)}"])
        signed = torch.from_numpy(values.view(f"<i{values.dtype.itemsize}").copy())
        return signed.view(parameter.dtype).to(parameter.device)
    if values.shape != tuple(parameter.shape):
        raise _unfit(name, parameter, [list(values.shape)])
    return torch.from_numpy(values.copy()).to(parameter.device)


def _unfit(name: str, parameter: Any, shapes: list[Any]) -> ModelError:
    given = " and ".join(map(str, shapes))
    return ModelError(
        f"A change of {given} does not fit {name}, which is {parameter.dtype} "
        f"{list(parameter.shape)} in memory.",
        "Check that the change was made for this model.",
    )


def changes_hash(changes: Mapping[str, LowRank | Dense]) -> str:
    """Return a SHA-256 of all changes, whatever their order: 64 hexadecimal digits."""
    from demur.checkpoint.changes import Dense

    digest = hashlib.sha256()
    for name in sorted(changes):
        change = changes[name]
        parts = (change.values,) if isinstance(change, Dense) else (change.up, change.down)
        for part in parts:
            digest.update(f"{name} {part.dtype} {part.shape}\n".encode())
            digest.update(part.tobytes())
    return digest.hexdigest()
