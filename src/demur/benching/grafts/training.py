"""The row that trains: plain LoRA refusal fine-tuning, for about as long as the graft's search.

The recipient imitates a refusal for harmful requests and its own answers for harmless ones, word by
word, from a random start and without any anchor: what one would do who has no donor. How many pairs
fit into the time is foretold from what a pair takes on two cores (`PAIRS_A_MINUTE`); what it did
take stands in the table beside the graft's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from demur.benching.grafts.recipient import Recipient
from demur.benching.grafts.spending import spending, spent
from demur.benching.rows import RANDOM_START, as_words
from demur.distill.choose import as_adapted
from demur.distilling.config import DistillConfig
from demur.distilling.treatment import teach
from demur.models.chat_model import ChatModel
from demur.treating.config import TreatmentConfig

# SmolLM2-135M, two cores: 1,150 pairs in 520 s of making lessons and training.
PAIRS_A_MINUTE = 130
LEAST = 32  # a batch of lessons


@dataclass(frozen=True)
class Trained:
    """A recipient that was trained, as `rows.Made` has it."""

    chat: ChatModel
    note: str
    share: float
    touched: float
    seconds: float


def trained(recipient: Recipient) -> Trained:
    """Train a copy of the recipient, unless an earlier try of this run did.

    Raises:
        TrainingError: there is too little to train on.
    """
    minutes = recipient.chosen("open").spent.seconds / 60
    pairs = max(LEAST, round(minutes * PAIRS_A_MINUTE))
    shared = {one.name: getattr(recipient.config, one.name) for one in fields(TreatmentConfig)}
    config = DistillConfig(
        **shared, train_pairs=pairs, train_ordinary=max(1, pairs // 4), **RANDOM_START
    )
    context = recipient.context
    chat = context.load(context.resolved.folder, context.base_hash)
    key = recipient.key("making", "sft")
    with spending(chat.model, recipient.journal, key):
        taught = teach(
            config,
            context,
            chat,
            recipient.splits,
            context.folder.path / "rows" / f"sft-{context.base_hash[:12]}",
            prepare=as_words,
            phases=f": {recipient.name}, sft",
        )
    layers = [one for one in chat.model.modules() if hasattr(one, "lora_A")]
    numbers = sum(
        parameter.numel()
        for layer in layers
        for factor in (layer.lora_A, layer.lora_B)
        for parameter in factor.parameters()
    )
    touched = sum(layer.get_base_layer().weight.numel() for layer in layers)
    chosen = taught.chosen
    return Trained(
        as_adapted(chat, chosen.checkpoint, chosen.strength),
        f"{pairs} pairs, {chosen.label}",
        numbers / context.resolved.parameters,
        touched / context.resolved.parameters,
        spent(recipient.journal, key).seconds,
    )
