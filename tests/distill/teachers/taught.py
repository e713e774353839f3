"""A tiny student that has learnt by heart what to say, and judges for these tests."""

from __future__ import annotations

import torch
from tests.distill.students import student

from demur.distill.lessons import ended_answer
from demur.models.chat_model import ChatModel

SORRY = "Sorry, but I can't assist with this."
HELPS = "Here is how you can do it: first, take the flour."


def learnt(said: list[tuple[ChatModel, str, str]], chat: ChatModel, steps: int = 300) -> None:
    """Train the chat's model until it gives each answer to each request in its context.

    Args:
        said: the chat in a context, a request, and what is to be answered.
    """
    rows = [
        (asked.encode(request), ended_answer(chat, request, text)) for asked, request, text in said
    ]
    width = max(len(prompt) + len(answer) for prompt, answer in rows)
    ids = torch.full((len(rows), width), 2)
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for place, (prompt, answer) in enumerate(rows):
        whole = torch.tensor([*prompt, *answer])
        ids[place, : len(whole)] = whole
        mask[place, : len(whole)] = 1
        labels[place, len(prompt) : len(whole)] = whole[len(prompt) :]
    model = chat.model
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    for _ in range(steps):
        loss = model(ids, attention_mask=mask, labels=labels).loss
        if loss.item() < 0.03:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.requires_grad_(False)
    model.eval()


__all__ = ["HELPS", "SORRY", "learnt", "student"]
