"""Where LoRA begins: directions that already tell harmful requests from benign ones.

LoRA's usual random beginning sees the difference between two requests only through a handful of
random projections, and must find it by gradient. But an untouched model already knows much of it
(a linear probe on its middle layers shows how much), so here each adapter starts from what its own
input shows at the last token of the request, where the answer is decided: the discriminant
directions of harmful against benign (Fisher 1936, ridged at three strengths), the mean, from which
a constant can be made, and random rest. The up-projections begin at zero as always, so that the
model is unchanged until training speaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.models.batch import Batch, plan
from demur.models.forward import accepted, common_prefix, last_positions, shared_cache

RIDGES = (0.1, 0.5, 2.0)
ROWS = 64
QUIET = 3.0
SAME = 1e-9


def discriminants(harmful: Any, benign: Any) -> Any:
    """Return the ridged discriminant directions of two samples.

    Args:
        harmful: (n, width) float64 activations; benign: (m, width).

    Returns:
        (len(RIDGES), width): each scaled so that its projections have unit spread.
    """
    import torch

    difference = harmful.mean(0) - benign.mean(0)
    centred = torch.cat([harmful - harmful.mean(0), benign - benign.mean(0)])
    centred = centred / len(centred) ** 0.5
    everything = torch.cat([harmful, benign])
    # Where each side is the same throughout, as in a first layer, there is nothing to be ridged.
    power = (centred.pow(2).sum() / centred.shape[1]).clamp(min=SAME * everything.pow(2).mean())
    directions = []
    for ridge in RIDGES:
        strength = ridge * power
        # Woodbury: there are fewer samples than widths, so the small side is inverted.
        inner = centred @ centred.T + strength * torch.eye(len(centred)).to(centred)
        correction = centred.T @ torch.linalg.solve(inner, centred @ difference)
        direction = (difference - correction) / strength
        directions.append(direction / (everything @ direction).std())
    return torch.stack(directions)


def last_token_inputs(model: Any, modules: dict[str, Any], requests: Sequence[Any]) -> Any:
    """Return each module's input at the last token, by name: (requests, width) float32, CPU.

    Modules that do not see every token, such as routed experts, are left out.
    """
    import torch

    seen: dict[str, Any] = {}
    shape = [0, 0]
    kept: dict[str, list[Any]] = {name: [None] * len(requests) for name in modules}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            given, (rows, tokens) = inputs[0].detach(), shape
            width = given.shape[-1]
            if given.numel() == rows * tokens * width:  # shared experts see rows end to end
                last = given.reshape(rows, tokens, width)[:, -1]
                # A copy, since a view would keep the whole batch in memory.
                seen[name] = last.to("cpu", torch.float32, copy=True)

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    try:
        shared = common_prefix(requests)
        longest = max(map(len, requests))
        with torch.no_grad():  # weights gathered in inference mode could not be trained with later
            cache = shared_cache(model, requests[0][:shared], longest)
            for indices in plan([len(request) - shared for request in requests], ROWS, alike=True):
                rows = [requests[index] for index in indices]
                batch = Batch(model, rows, shared if cache is not None else 0, cache)
                shape[:] = batch.ids.shape
                told = accepted(model, position_ids=batch.positions)
                told |= last_positions(model, batch.ids.shape[1])
                model(
                    batch.ids,
                    attention_mask=batch.mask,
                    past_key_values=batch.cache,
                    use_cache=True,
                    **told,
                )
                for name, found in seen.items():
                    for index, row in zip(indices, found, strict=True):
                        kept[name][index] = row
                seen.clear()
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: torch.stack(rows)
        for name, rows in kept.items()
        if all(row is not None for row in rows)
    }


def inform(peft: Any, harmful: Sequence[Sequence[int]], benign: Sequence[Sequence[int]]) -> int:
    """Start every LoRA down-projection of `peft` from its own discriminant directions.

    Args:
        harmful, benign: token ids of templated requests, the answers opened.

    Returns:
        How many adapters were informed: none if a side has fewer than eight requests, and not
        those that see the same at the end of every request, as in the first layer.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    if min(len(harmful), len(benign)) < 8:
        return 0
    modules = {
        name: module
        for name, module in peft.base_model.model.named_modules()
        if isinstance(module, LoraLayer) and hasattr(module.get_base_layer(), "weight")
    }
    inputs = last_token_inputs(peft.base_model.model, modules, [*harmful, *benign])
    informed = 0
    for name in list(inputs):
        weight = modules[name].lora_A["default"].weight
        # Apple's GPUs have no float64.
        samples = inputs.pop(name).to("cpu" if weight.device.type == "mps" else weight.device)
        samples = samples.double()
        mean = samples.mean(0)
        if samples.var(0).sum() <= SAME * mean.pow(2).sum():
            continue
        directions = discriminants(samples[: len(harmful)], samples[len(harmful) :])
        rows = torch.cat([directions, (mean / mean.pow(2).sum())[None]])
        with torch.no_grad():
            count = min(len(rows), weight.shape[0])
            weight[:count] = rows[:count].float().to(weight)
            for place in range(count, weight.shape[0]):
                spread = (samples @ weight[place].to(samples)).std()
                weight[place] /= QUIET * max(float(spread), 1e-6)
        informed += 1
    return informed
