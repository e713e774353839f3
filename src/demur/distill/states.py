"""Hidden states of the untouched student at the end of answers, whatever is trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.console import Advance
from demur.distill.collate import Collator, shared_prefix
from demur.distill.lessons import Lesson
from demur.distill.scores import answer_outputs, without_dropout
from demur.distill.untouched import untouched
from demur.models.batch import plan
from demur.models.chat_model import ChatModel
from demur.run.journal import Journal, content_key

ROWS = 32  # answers that are read at once
Text = tuple[tuple[int, ...], tuple[int, ...]]  # token ids of a request and of an answer


def hidden_states(model: Any, texts: Sequence[Text], layer: int) -> Any:
    """Return (texts, width) float32 hidden states at each answer's last token, on the CPU.

    Args:
        texts: a request's and an answer's token ids each; the answers are not empty.
        layer: after how many layers; the last is taken as the head sees it.
    """
    import torch

    # A collated answer lacks its last token, which nothing is predicted from.
    rows = [Lesson("answer", prompt, (*answer, 0)) for prompt, answer in texts]
    collate = Collator(rows, shared_prefix(model, rows))
    found: list[Any] = [None] * len(rows)
    with torch.no_grad(), untouched(model) as before, without_dropout(before):
        for places in plan([len(prompt) + len(answer) for prompt, answer in texts], ROWS):
            batch = collate([{"lesson": place} for place in places])
            batch = {name: one.to(model.device) for name, one in batch.items()}
            batch["labels"] = batch["labels"][:, -1:]  # the head is not needed
            outputs = answer_outputs(before, batch, output_hidden_states=True)
            last = outputs.hidden_states[layer][:, -1].float().cpu()
            for place, state in zip(places, last, strict=True):
                found[place] = state
    return torch.stack(found)


def kept_states(
    chat: ChatModel, texts: Sequence[Text], layer: int, journal: Journal, advance: Advance
) -> Any:
    """Return what `hidden_states` does, from the journal where it is known.

    Args:
        advance: called with the number of texts whose states have become known.
    """
    import numpy as np
    import torch

    keys = [content_key("state", chat.identity, layer, *text) for text in texts]
    known = journal.arrays(set(keys))
    advance(sum(key in known for key in keys))
    for places in plan([len(prompt) + len(answer) for prompt, answer in texts], 8 * ROWS):
        missing = [place for place in places if keys[place] not in known]
        if not missing:
            continue
        states = hidden_states(chat.model, [texts[place] for place in missing], layer)
        fresh = [
            (keys[place], state.numpy().tobytes())
            for place, state in zip(missing, states, strict=True)
        ]
        journal.add_arrays(fresh)
        known.update(fresh)
        advance(len(fresh))
    return torch.from_numpy(np.stack([np.frombuffer(known[key], np.float32) for key in keys]))
