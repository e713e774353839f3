"""Choosing what to keep: each stopping point and strength is asked the validation prompts.

A candidate is a checkpoint's LoRA weights, or its own, at a strength (a factor on the whole delta).
The score is the share of harmful requests refused, less the share of twins, less the share of
ordinary instructions: Youden's index with ordinary requests priced in; with a budget see
`measure/allowance.py`. Of learning rates whose scores chance alone can tell apart the lowest is
kept: refusals do not show what a higher one costs. Test prompts play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demur.checkpoint import Dense, LowRank
from demur.checkpoint.index import open_checkpoint
from demur.console import Narrator
from demur.distill import whole
from demur.errors import ModelError
from demur.judge.verdict import Judge
from demur.measure.allowance import Allowance
from demur.measure.protocol import Probe
from demur.measure.validation import Option, refusal_rates
from demur.models.chat_model import ChatModel
from demur.models.edits import name_on_disk
from demur.run.journal import Journal, content_key

Diverging = Callable[[ChatModel], float]
UNLIMITED = Allowance()
SMALLER = (0.7, 0.55, 0.4, 0.25)
ADAPTER = "adapter_model.safetensors"
RATE = "rate-"


@dataclass(frozen=True)
class Candidate(Option):
    """One checkpoint at one strength."""

    checkpoint: Path
    strength: float
    divergence: float | None = None

    @property
    def label(self) -> str:
        """The candidate in a few words."""
        return f"{_where(self.checkpoint)}, strength {self.strength:g}"


def at_rate(folder: Path, rate: float) -> Path:
    """Return where the checkpoints of a learning rate go, where a student is trained at several."""
    return folder / f"{RATE}{rate:g}"


def _where(checkpoint: Path) -> str:
    step = f"step {checkpoint.name.split('-')[1]}"
    name = checkpoint.parent.name
    return f"learning rate {name.removeprefix(RATE)}, {step}" if name.startswith(RATE) else step


def put(model: Any, checkpoint: Path, strength: float) -> None:
    """Have the trained model answer as a candidate does.

    Args:
        model: as `train` returns it.
    """
    if (checkpoint / whole.WEIGHTS).exists():
        whole.put(model, checkpoint, strength)
    else:
        load_adapter(model, checkpoint)
        set_strength(model, strength)


def put_back(model: Any, checkpoint: Path) -> Any:
    """Return the student as it was, free to be trained again.

    Args:
        model: as `train` returns it.
        checkpoint: one of that training.
    """
    if (checkpoint / whole.WEIGHTS).exists():
        whole.put_back(model, checkpoint)
        return model
    return model.unload()


def changes_of(
    model: Any, folder: Path, checkpoint: Path, strength: float
) -> Mapping[str, LowRank | Dense]:
    """Return what a candidate changes, by the tensor's name in the checkpoint at `folder`.

    Args:
        model: the trained one, with the candidate put into it.

    Raises:
        ModelError: what was trained has no tensor of its own on disk.
    """
    if (checkpoint / whole.WEIGHTS).exists():
        return whole.changes(model, folder, checkpoint, strength)
    return low_rank_changes(model, folder, strength)


def load_adapter(peft: Any, checkpoint: Path) -> None:
    """Put a checkpoint's LoRA weights into the wrapped model."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    set_peft_model_state_dict(peft, load_file(checkpoint / ADAPTER))


def set_strength(peft: Any, strength: float) -> None:
    """Scale the whole delta of a wrapped model by `strength`."""
    from peft.tuners.lora import LoraLayer

    for module in peft.modules():
        if isinstance(module, LoraLayer):
            for name in module.scaling:
                module.scaling[name] = strength


def _tensor_on_disk(model: Any, module: str, tensors: Collection[str]) -> str:
    """Return the name in the checkpoint of a module's weight."""
    tensor = name_on_disk(model, f"{module}.weight", tensors)
    if tensor is None:
        raise ModelError(
            f"The module {module} is to be trained, but the checkpoint has no tensor "
            f"{module}.weight.",
            "This architecture stores it under another name; open an issue with this line.",
        )
    return tensor


def require_on_disk(model: Any, folder: Path, targets: Collection[str]) -> None:
    """Check, before hours of training, that what is trained can be written as a patch.

    Args:
        targets: the names of the modules to train, as `target_modules` returns them.

    Raises:
        ModelError: one of them has no tensor of its own on disk.
    """
    tensors = open_checkpoint(folder).tensors
    for name, _ in model.named_modules():
        if name.split(".")[-1] in targets:
            _tensor_on_disk(model, name, tensors)


def low_rank_changes(peft: Any, folder: Path, strength: float) -> dict[str, LowRank]:
    """Return the wrapped model's delta, by the tensor's name in the checkpoint at `folder`.

    Raises:
        ModelError: a trained module has no tensor of its own on disk.
    """
    model = peft.base_model.model
    tensors = open_checkpoint(folder).tensors
    changes: dict[str, LowRank] = {}
    for name, change in lora_changes(peft).items():
        up, down = change.up * strength, change.down
        if getattr(model.get_submodule(name), "fan_in_fan_out", False):
            up, down = down.T.copy(), up.T.copy()
        changes[_tensor_on_disk(model, name, tensors)] = LowRank(up, down)
    return changes


def lora_changes(peft: Any) -> dict[str, LowRank]:
    """Return what LoRA's weights add to what modules give out, by the modules' names in memory."""
    from peft.tuners.lora import LoraLayer

    return {
        name: LowRank(
            module.lora_B["default"].weight.detach().float().cpu().numpy(),
            module.lora_A["default"].weight.detach().float().cpu().numpy(),
        )
        for name, module in peft.base_model.model.named_modules()
        if isinstance(module, LoraLayer)
    }


def validate(
    chat: ChatModel,
    checkpoint: Path,
    strength: float,
    probes: Mapping[str, Probe],
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
    diverging: Diverging | None = None,
) -> Candidate:
    """Ask one candidate the validation prompts; `chat.model` must be the one that was trained.

    Args:
        diverging: measures its divergence from the original; None where that has no limit.
    """
    put(chat.model, checkpoint, strength)
    candidate = as_adapted(chat, checkpoint, strength)
    label = f"{_where(checkpoint)} x{strength:g}"
    rates = refusal_rates(candidate, probes, journal, judge, narrator, label)
    divergence = None if diverging is None else diverging(candidate)
    return Candidate(*rates, checkpoint, strength, divergence)


def as_adapted(chat: ChatModel, checkpoint: Path, strength: float) -> ChatModel:
    """Return the chat under a name of its own: that of the weights and strength that it carries."""
    from demur.models.cache import file_sha256

    files = (checkpoint / whole.WEIGHTS, checkpoint / ADAPTER)
    trained = file_sha256(next(path for path in files if path.exists()))
    return replace(chat, weights=content_key(chat.weights, trained, strength))


def of_lowest_rate(tried: Sequence[Candidate], best: Candidate) -> list[Candidate]:
    """Return the candidates of the lowest learning rate that is as good as the best one's.

    It is where one of its candidates scores within a standard error of the best (the rule of one
    standard error: Breiman et al. 1984, section 3.4.3).

    Args:
        tried: the candidates, those of lower rates first.
        best: the one with the highest score.
    """
    enough = best.score - best.score_error
    kept = next(one.checkpoint.parent for one in tried if one.score >= enough)
    return [one for one in tried if one.checkpoint.parent == kept]


def choose(
    chat: ChatModel,
    checkpoints: Sequence[Path],
    strengths: Sequence[float],
    probes: Mapping[str, Probe],
    journal: Journal,
    judge: Judge,
    narrator: Narrator,
    allowance: Allowance = UNLIMITED,
    diverging: Diverging | None = None,
) -> tuple[Candidate, list[Candidate]]:
    """Try each checkpoint at full strength, then the best of them at the other strengths.

    Where none keeps to a budget, smaller strengths are tried, one after the other, until one does.

    Args:
        checkpoints: those of lower learning rates first, each rate's in a folder of its own.
        allowance: what may be paid for refusals.
        diverging: measures a candidate's divergence from the original, where it has a limit.

    Returns:
        The best candidate (without a budget that with the highest score among those of the lowest
        learning rate that will do; the earlier one if two are equal), and all of them.
    """

    def asked(checkpoint: Path, strength: float) -> Candidate:
        return validate(chat, checkpoint, strength, probes, journal, judge, narrator, diverging)

    tried = [asked(checkpoint, 1.0) for checkpoint in checkpoints]
    best = allowance.best(tried)
    among = tried if allowance.given else of_lowest_rate(tried, best)
    best = allowance.best(among)
    scaled = [asked(best.checkpoint, strength) for strength in strengths if strength != 1.0]
    for strength in SMALLER if allowance.given else ():
        if any(map(allowance.allows, (*tried, *scaled))):
            break
        if strength < min(one.strength for one in (*tried, *scaled)):
            scaled.append(asked(best.checkpoint, strength))
    return allowance.best([*among, *scaled]), [*tried, *scaled]
