"""The rows: grafts, rivals and controls, each a way to a recipient that is to be measured.

    with ROWS["open"].treat(recipient) as made:
        ...  # made.chat is asked; nothing is written, and the recipient is put back to the bit

Grafts are searched for on search prompts and confirmed on validation prompts. Rivals are as their
papers have them, at their own strength; `vector-tuned` alone has its scale chosen on validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace

from demur.benching.grafts.recipient import Recipient
from demur.benching.grafts.spending import Spent, spending, spent
from demur.distill.baselines.choose_scale import choose_scale
from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas
from demur.graft.rivals.controls import random_modules
from demur.graft.rivals.table import RIVALS
from demur.grafting.config import MODE
from demur.models.changes.noise import noise
from demur.models.chat_model import ChatModel
from demur.models.edits import edited
from demur.run.journal import content_key
from demur.treating.stages import choosing_probes

NOTHING = Spent()
SCALES = (0.5, 1.0, 1.5, 2.0)  # of the chat vector, where validation chooses


@dataclass(frozen=True)
class Made:
    """A recipient as a row leaves it, as long as its context is open.

    Attributes:
        chat: what is to be measured.
        note: what it is made of.
        share, touched: as in `Result`.
        spent: what making it took, without what other rows need too.
        candidate: of a graft.
        counted: whether forward passes were counted.
    """

    chat: ChatModel
    note: str = ""
    share: float = 0.0
    touched: float = 0.0
    spent: Spent = NOTHING
    candidate: Candidate | None = None
    counted: bool = True


Treat = Callable[[Recipient], AbstractContextManager[Made]]


@dataclass(frozen=True)
class Row:
    """One way to a model: its title, how it is made, and its kind as in `Result`."""

    title: str
    treat: Treat
    kind: str


@contextmanager
def _untouched(recipient: Recipient) -> Iterator[Made]:
    yield Made(recipient.chat)


def _graft(mode: MODE) -> Treat:
    @contextmanager
    def treat(recipient: Recipient) -> Iterator[Made]:
        chosen = recipient.chosen(mode)
        with _grafted(recipient, chosen.candidate) as made:
            yield replace(made, spent=chosen.spent)

    return treat


@contextmanager
def _grafted(recipient: Recipient, candidate: Candidate, note: str = "") -> Iterator[Made]:
    oracle, deltas = recipient.oracle, recipient.deltas
    try:
        yield Made(
            oracle.grafted(candidate),
            note or candidate.label,
            candidate.share(deltas),
            _touched(candidate, deltas),
            candidate=candidate,
        )
    finally:
        oracle.close()


def _touched(candidate: Candidate, deltas: Deltas) -> float:
    """Return the weights that a graft may change, as a share of the recipient's."""
    pieces = [piece for name in candidate.changed(deltas) for piece in deltas[name].pieces]
    touched = sum(piece.elements for piece in pieces if piece.changed)
    return touched / deltas.recipient.parameters


def _rival(name: str) -> Treat:
    @contextmanager
    def treat(recipient: Recipient) -> Iterator[Made]:
        key, seed = recipient.key("making", name), recipient.config.seed
        with ExitStack() as stack:
            with spending(recipient.chat.model, recipient.journal, key):
                changes = RIVALS[name].make(*recipient.folders, seed=seed)
                stack.enter_context(edited(recipient.chat.model, changes))
            # nothing is left of the recipient in the whole donor: all come out the same
            weights = (
                recipient.donor_hash
                if name == "donor"
                else content_key(recipient.chat.weights, recipient.donor_hash, name, seed)
            )
            touched = _held(recipient.deltas, changes)
            yield Made(
                replace(recipient.chat, weights=weights),
                RIVALS[name].paper,
                _vector_share(recipient.deltas, changes) if name == "vector" else touched,
                touched,
                spent(recipient.journal, key),
            )

    return treat


@contextmanager
def _tuned(recipient: Recipient) -> Iterator[Made]:
    context, chat = recipient.context, recipient.chat
    key = recipient.key("making", "vector-tuned")
    with spending(chat.model, recipient.journal, key):
        changes = RIVALS["vector"].make(*recipient.folders, seed=recipient.config.seed)
        with context.phase(f"Choosing the chat vector's scale: {recipient.name}"):
            chosen, _ = choose_scale(
                chat,
                {"vector": changes},
                SCALES,
                choosing_probes(recipient.config, recipient.splits),
                recipient.journal,
                context.judge,
                context.narrator,
            )
    share = _vector_share(recipient.deltas, changes) if chosen.scale else 0.0
    weights = content_key(chat.weights, recipient.donor_hash, "vector-tuned", chosen.scale)
    with edited(chat.model, changes if chosen.scale else {}, chosen.scale):
        yield Made(
            replace(chat, weights=weights),
            chosen.label,
            share,
            _held(recipient.deltas, changes) if chosen.scale else 0.0,
            spent(recipient.journal, key),
        )


def _held(deltas: Deltas, changes: Collection[str]) -> float:
    """Return the weights of the tensors that are changed, as a share of the recipient's."""
    held = sum(math.prod(deltas.recipient.tensor(name).shape) for name in changes)
    return held / deltas.recipient.parameters


def _vector_share(deltas: Deltas, changes: Collection[str]) -> float:
    """Return what a patch of the whole vector holds: its factors, where the modules are all."""
    whole = Candidate(frozenset(deltas.changed))
    if set(changes) <= set(whole.changes(deltas)):
        return whole.share(deltas)
    return _held(deltas, changes)


@contextmanager
def _random(recipient: Recipient) -> Iterator[Made]:
    chosen, deltas = recipient.chosen("open").candidate, recipient.deltas
    # Of more than half of what the donor changed, any other draw would be mostly the same.
    few = 2 * len(chosen.changed(deltas)) <= len(deltas.changed)
    among = deltas.changed if few else tuple(deltas)
    drawn = random_modules(deltas.anatomy, chosen.modules, recipient.config.seed, among)
    drawn_from = "those that the donor changed" if few else "all"
    note = (
        f"{len(drawn)} modules of {drawn_from}, {len(drawn & chosen.modules)} of them the graft's"
    )
    with _grafted(recipient, replace(chosen, modules=drawn), note) as made:
        yield made


@contextmanager
def _noise(recipient: Recipient) -> Iterator[Made]:
    chosen, deltas, chat = recipient.chosen("open").candidate, recipient.deltas, recipient.chat
    seed = recipient.config.seed
    changes = noise(recipient.folders[0], chosen.changes(deltas), seed)
    weights = content_key(chat.weights, deltas.key, chosen.key, "noise", seed)
    with edited(chat.model, changes):
        yield Made(
            replace(chat, weights=weights),
            "the norm of the graft in every tensor",
            chosen.share(deltas),
            _touched(chosen, deltas),
        )


@contextmanager
def _trained(recipient: Recipient) -> Iterator[Made]:
    from demur.benching.grafts.training import trained

    one = trained(recipient)
    # Passes of a model that is being trained are not counted: each is worth several.
    yield Made(one.chat, one.note, one.share, one.touched, Spent(0, one.seconds), counted=False)


ROWS: Mapping[str, Row] = {
    "untouched": Row("untouched", _untouched, "baseline"),
    "donor": Row("the whole donor", _rival("donor"), "control"),
    "open": Row("graft, open", _graft("open"), "graft"),
    "paper": Row("graft, as in the paper", _graft("paper"), "graft"),
    "released": Row("graft, as in the released code", _graft("released"), "graft"),
    "random": Row("random modules of equal size", _random, "control"),
    "noise": Row("noise of equal norm", _noise, "control"),
    "vector": Row(RIVALS["vector"].title, _rival("vector"), "rival"),
    "vector-tuned": Row("chat vector, scale chosen on validation", _tuned, "rival"),
    **{
        name: Row(RIVALS[name].title, _rival(name), "rival")
        for name in ("resta", "safe-lora", "safe-merge", "lox")
    },
    "sft": Row("plain LoRA refusal SFT, for about as long as the graft", _trained, "rival"),
}
ASIDE = ("sft",)  # trains: the longest of all
DEFAULT_ROWS = tuple(name for name in ROWS if name not in ASIDE)
