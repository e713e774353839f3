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

from demur.models.generation import Batch, accepted, common_prefix, plan, shared_cache

RIDGES = (0.1, 0.5, 2.0)
ROWS = 64
QUIET = 3.0


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
    power = centred.pow(2).sum() / centred.shape[1]
    everything = torch.cat([harmful, benign])
    directions = []
    for ridge in RIDGES:
        strength = ridge * power
        # Woodbury: there are fewer samples than widths, so the small side is inverted.
        inner = centred @ centred.T + strength * torch.eye(len(centred), dtype=centred.dtype)
        correction = centred.T @ torch.linalg.solve(inner, centred @ difference)
        direction = (difference - correction) / strength
        directions.append(direction / (everything @ direction).std())
    return torch.stack(directions)


def last_token_inputs(model: Any, modules: dict[str, Any], requests: Sequence[Any]) -> Any:
    """Return each module's input at the last token, by name: (requests, width) float32, CPU."""
    import torch

    seen: dict[str, Any] = {}
    kept: dict[str, list[Any]] = {name: [None] * len(requests) for name in modules}

    def watch(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Any, ...]) -> None:
            seen[name] = inputs[0][:, -1].detach().float().cpu()

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in modules.items()]
    try:
        shared = common_prefix(requests)
        longest = max(map(len, requests))
        with torch.inference_mode():
            cache = shared_cache(model, requests[0][:shared], longest)
            for indices in plan([len(request) for request in requests], ROWS):
                rows = [requests[index] for index in indices]
                batch = Batch(model, rows, shared if cache is not None else 0, cache)
                told = accepted(model, position_ids=batch.positions, logits_to_keep=1)
                model(
                    batch.ids,
                    attention_mask=batch.mask,
                    past_key_values=batch.cache,
                    use_cache=True,
                    **told,
                )
                for name in modules:
                    for place, index in enumerate(indices):
                        kept[name][index] = seen[name][place]
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.stack(rows) for name, rows in kept.items()}


def inform(peft: Any, harmful: Sequence[Sequence[int]], benign: Sequence[Sequence[int]]) -> int:
    """Start every LoRA down-projection of `peft` from its own discriminant directions.

    Args:
        harmful, benign: token ids of templated requests, the answers opened.

    Returns:
        How many adapters were informed; none if a side has fewer than eight requests.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    if min(len(harmful), len(benign)) < 8:
        return 0
    modules = {
        name: module
        for name, module in peft.base_model.model.named_modules()
        if isinstance(module, LoraLayer)
    }
    inputs = last_token_inputs(peft.base_model.model, modules, [*harmful, *benign])
    for name, module in modules.items():
        samples = inputs.pop(name).double()
        directions = discriminants(samples[: len(harmful)], samples[len(harmful) :])
        mean = samples.mean(0)
        rows = torch.cat([directions, (mean / mean.pow(2).sum())[None]])
        weight = module.lora_A["default"].weight
        with torch.no_grad():
            count = min(len(rows), weight.shape[0])
            weight[:count] = rows[:count].to(weight)
            for place in range(count, weight.shape[0]):
                spread = (samples @ weight[place].double().cpu()).std()
                weight[place] /= QUIET * max(float(spread), 1e-6)
    return len(modules)
