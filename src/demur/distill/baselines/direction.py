r"""The refusal direction, added into weights: steering towards refusing, without training.

Arditi et al. 2024 (arXiv 2406.11717) find, in many chat models, one direction in the residual
stream along which refusals happen: the difference in means, at the last token of the templated
request, of harmful against harmless requests (their section 2.3). Adding it at one layer, at every
token, makes a model refuse harmless requests too (their equation 3). Only this side is here; it
cannot be taken out. `source` says where the difference is taken from:

* `harmful`: harmful against benign requests, as published. In a model that never refuses this may
  be a direction of harm and not of refusing.
* `instruction`: harmful requests under a safety instruction against the same without it: what the
  instruction makes the model do about them.

Into weights. Let W be the last matrix of a layer's MLP, or of its attention: it writes into the
residual stream, x <- x + W h (+ b). To add r there:

* `constant`, W has a bias: b <- b + r, which is exact for every input.
* `constant`, no bias: W <- W + r m^T / |m|^2, where m is the mean of h at the last token over the
  training requests. What is added for an input h is then r (m . h) / |m|^2: exactly r for h = m,
  and r on average over the training requests, since the mean of m . h is |m|^2. On other tokens
  it is more or less, as far as their inputs are like m. `Direction.spread` says how much it varies.
* `discriminant` (ours, after conditional steering, CAST, arXiv 2409.05907): W <- W + r d^T, where
  d = a f + c m solves d . h = 1 at the mean of harmful requests and 0 at the mean of benign ones,
  and f is Fisher's ridged discriminant of h (`initialise.discriminants`). The direction is added
  where the request looks harmful. Weights are linear: requests that look more harmless than the
  mean benign one get a little less than none.

The changes are for a scale of 1, the published size; `models.edits.edited` tries them at another,
and `scaling.scaled` gives them at it. Which layer and scale, validation prompts say:

    found = find_directions(chat, harmful, benign)
    best, tried = choose_scale(chat, {one.label: one.changes for one in found}, SCALES, ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from demur.distill.initialise import discriminants, last_token_inputs
from demur.errors import ConfigError, ModelError, PromptError
from demur.models.edits import name_on_disk

if TYPE_CHECKING:
    from demur.checkpoint.changes import Dense, LowRank
    from demur.models.chat_model import ChatModel
    from demur.prompts.types import Prompt

Source = Literal["harmful", "instruction"]
Form = Literal["constant", "discriminant"]
Writer = Literal["mlp", "attention"]
WRITERS: dict[Writer, tuple[str, ...]] = {
    "mlp": ("down_proj", "dense_4h_to_h", "fc2", "c_proj", "w2"),
    "attention": ("o_proj", "out_proj", "dense", "c_proj"),
}
NORMED = ("post_feedforward_layernorm", "post_mlp_layernorm", "post_self_attn_layernorm")
DEEPEST = 0.8  # of the depth: directions from later layers act on the output tokens themselves
RIDGE = 1  # which of the discriminants: the middle one
LEAST = 8  # requests a side
NOTHING = 1e-5  # of a state's length: what rounding makes where all requests end alike


@dataclass(frozen=True)
class Direction:
    """The direction at one layer, and the changes that add it.

    Attributes:
        layer: the layer after which it is added, counted from one.
        source, form, writer: as in `find_directions`.
        norm: length of the difference in means, that is of what a scale of 1 adds.
        spread: standard deviation of how much of it is added, over the training requests at their
            last tokens; 0 where it is exact.
        harmful, benign: how much of it is added on average to each side's requests.
        changes: what adds it, by the tensor's name on disk.
    """

    layer: int
    source: Source
    form: Form
    writer: Writer
    norm: float
    spread: float
    harmful: float
    benign: float
    changes: dict[str, LowRank | Dense]

    @property
    def label(self) -> str:
        """The direction in a few words."""
        return f"{self.form} direction of {self.source} after layer {self.layer}"


def find_directions(
    chat: ChatModel,
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    *,
    layers: Sequence[int] | None = None,
    source: Source = "harmful",
    form: Form = "constant",
    writer: Writer = "mlp",
    instruction: str = "",
) -> list[Direction]:
    """Return the direction of each of the layers, ready to be added there.

    Which of them to use is for validation prompts to say: `choose_scale.choose_scale`.

    Args:
        harmful, benign: training prompts.
        layers: after which to add it, counted from one; by default every one that has another
            after it, up to four fifths of the depth, but for those that show no difference.
        source, form: see the module.
        writer: whether the MLP's or the attention's last matrix writes it. After the attention
            it is what the difference after the *layer* is, added a little earlier.
        instruction: for the source `instruction`; a system prompt that the chat has already
            stands after it.

    Raises:
        PromptError: fewer than eight requests on a side.
        ConfigError: a layer is not there or shows no difference; the source `instruction`
            without one.
        ModelError: the architecture has no such matrix that writes straight into the residual
            stream, or no tensor of its own for it on disk.
    """
    if source == "instruction" and not instruction.strip():
        raise ConfigError(
            "The direction of a safety instruction was asked for, but there is no instruction.",
            "Give one, such as one of demur.distill.baselines.context.INSTRUCTIONS.",
        )
    _require(harmful, benign)
    depth = int(chat.model.config.get_text_config().num_hidden_layers)
    every = layers is None
    if layers is None:
        layers = range(1, max(1, min(int(DEEPEST * depth), depth - 1)) + 1)
    wrong = [layer for layer in layers if not 1 <= layer < depth]
    if wrong or not layers:
        raise ConfigError(
            f"A direction cannot be added after layer {wrong[0] if wrong else '(none given)'} of "
            f"a model of {depth}.",
            f"Give layers from 1 to {depth - 1}.",
        )
    writers = {layer: residual_writer(chat.model, layer, writer) for layer in layers}
    following = {f"after {layer}": layers_of(chat.model)[1][layer] for layer in layers}
    requests = [chat.encode(prompt.text) for prompt in (*harmful, *benign)]
    inputs = last_token_inputs(chat.model, {**dict(writers.values()), **following}, requests)
    told = _told(chat, following, harmful, instruction) if source == "instruction" else {}
    found = []
    for layer in layers:
        states = inputs[f"after {layer}"].double()
        bad, good = states[: len(harmful)].mean(0), states[len(harmful) :].mean(0)
        vector = told[f"after {layer}"].double().mean(0) - bad if told else bad - good
        if vector.norm() <= NOTHING * states.norm(dim=1).mean():
            if every:
                continue
            raise _alike(layer)
        settings = (source, form, writer)
        found.append(
            _direction(chat, layer, vector, writers[layer], inputs, len(harmful), settings)
        )
    if not found:
        raise _alike(layers[-1])
    return found


def _told(
    chat: ChatModel, following: dict[str, Any], harmful: Sequence[Prompt], instruction: str
) -> dict[str, Any]:
    """Return what reaches the layers when harmful requests stand under the instruction."""
    from demur.distill.baselines.context import ContextBaseline

    asked = ContextBaseline("instruction", instruction).applied(chat)
    requests = [asked.encode(prompt.text) for prompt in harmful]
    told: dict[str, Any] = last_token_inputs(chat.model, following, requests)
    return told


def _alike(layer: int) -> ConfigError:
    return ConfigError(
        f"All requests end alike after layer {layer}, so that there is no direction.",
        "Give a later layer.",
    )


def residual_writer(model: Any, layer: int, writer: Writer = "mlp") -> tuple[str, Any]:
    """Return the name and the module of the matrix with which a layer writes into the stream.

    Args:
        layer: counted from one.

    Raises:
        ModelError: there is none, or what it writes is normed before it is added.
    """
    name, modules = layers_of(model)
    width = int(model.config.get_text_config().hidden_size)
    block = modules[layer - 1]
    found = [
        (f"{name}.{layer - 1}.{inner}", module)
        for inner, module in block.named_modules()
        if inner.split(".")[-1] in WRITERS[writer]
        and (("attn" in inner or "attention" in inner) == (writer == "attention"))
        and "expert" not in inner
        and getattr(module, "weight", None) is not None
        and module.weight.dim() == 2
        and module.weight.shape[1 if transposed(module) else 0] == width
    ]
    between = [inner for inner, _ in block.named_children() if inner in NORMED]
    if getattr(model.config.get_text_config(), "residual_multiplier", 1) != 1:
        between.append("residual_multiplier")
    if len(found) == 1 and not between:
        return found[0]
    why = f"it passes {between[0]} first" if found and between else "there is none, or several"
    raise ModelError(
        f"A direction cannot be added by the {writer} matrix of a {model.config.model_type} layer, "
        f"since none writes straight into the residual stream ({why}).",
        "Leave this baseline out for this architecture, or try the other writer.",
    )


def layers_of(model: Any) -> tuple[str, Any]:
    """Return the name and the list of the model's layers.

    Raises:
        ModelError: the architecture keeps them in a way that is not known here.
    """
    import torch

    depth = int(model.config.get_text_config().num_hidden_layers)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return name, module
    raise ModelError(
        f"The layers of the architecture {model.config.model_type} were not found.",
        "Open an issue with this line, so that the architecture can be added.",
    )


def transposed(module: Any) -> bool:
    """Return whether a module keeps its weight as (inputs, outputs), as GPT-2 does."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _require(harmful: Sequence[Prompt], benign: Sequence[Prompt]) -> None:
    if min(len(harmful), len(benign)) < LEAST:
        raise PromptError(
            f"A direction needs {LEAST} requests a side, and there are {len(harmful)} harmful and "
            f"{len(benign)} benign ones.",
            "Give more training prompts.",
        )


def _direction(
    chat: ChatModel,
    layer: int,
    vector: Any,
    module: tuple[str, Any],
    inputs: dict[str, Any],
    harmful: int,
    settings: tuple[Source, Form, Writer],
) -> Direction:
    from demur.checkpoint.changes import Dense, LowRank
    from demur.checkpoint.index import open_checkpoint, read_tensor

    source, form, writer = settings
    name, linear = module
    checkpoint = open_checkpoint(chat.folder)
    if form == "constant" and getattr(linear, "bias", None) is not None:
        tensor = _require_name(chat.model, f"{name}.bias", checkpoint.tensors)
        bias = read_tensor(checkpoint, tensor).astype("float64")
        changes: dict[str, LowRank | Dense] = {tensor: Dense(bias + vector.numpy())}
        return Direction(layer, source, form, writer, float(vector.norm()), 0.0, 1.0, 1.0, changes)
    tensor = _require_name(chat.model, f"{name}.weight", checkpoint.tensors)
    if name not in inputs:
        raise ModelError(
            f"The matrix {name} does not see every token, so that nothing can be added by it.",
            "Leave this baseline out for this architecture.",
        )
    samples = inputs[name].double()
    down = _constant(samples) if form == "constant" else _discriminant(samples, harmful)
    amounts = samples @ down
    up, row = vector.numpy()[:, None], down.numpy()[None]
    if transposed(linear):
        up, row = row.T, up.T
    change = LowRank(up.astype("float32"), row.astype("float32"))
    return Direction(
        layer,
        source,
        form,
        writer,
        float(vector.norm()),
        float(amounts.std()),
        float(amounts[:harmful].mean()),
        float(amounts[harmful:].mean()),
        {tensor: change},
    )


def _constant(samples: Any) -> Any:
    mean = samples.mean(0)
    return mean / mean.pow(2).sum()


def _discriminant(samples: Any, harmful: int) -> Any:
    """Return the row that is 1 at the mean harmful input and 0 at the mean benign one."""
    import torch

    bad, good = samples[:harmful], samples[harmful:]
    rows = torch.stack([discriminants(bad, good)[RIDGE], samples.mean(0)])
    rows = rows / rows.norm(dim=1, keepdim=True)
    means = torch.stack([bad.mean(0), good.mean(0)])
    wanted = torch.tensor([1.0, 0.0], dtype=samples.dtype)
    return torch.linalg.pinv(means @ rows.T) @ wanted @ rows


def _require_name(model: Any, parameter: str, tensors: Any) -> str:
    tensor = name_on_disk(model, parameter, tensors)
    if tensor is None:
        raise ModelError(
            f"The checkpoint has no tensor {parameter}, which a direction would be added into.",
            "This architecture stores it under another name; open an issue with this line.",
        )
    return tensor
