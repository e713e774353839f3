"""One recipient of the bench: loaded when something is to be made of it, grafted in memory only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from demur.benching.grafts.config import GraftBenchConfig
from demur.benching.grafts.spending import Spent, spending, spent
from demur.checkpoint import checkpoint_hash, open_checkpoint
from demur.graft.candidate import Candidate
from demur.graft.deltas import Deltas
from demur.graft.oracle import Oracle
from demur.grafting.config import MODE, GraftConfig
from demur.grafting.modes import MODES, open_mode
from demur.grafting.relatives import Relatives, find_relatives
from demur.grafting.starts import first_of
from demur.grafting.treatment import confirm, deltas_of, make_oracle
from demur.models.chat_model import ChatModel
from demur.models.config import check_weights
from demur.models.resolve import resolve
from demur.prompts.types import Splits
from demur.run.journal import Journal
from demur.treating.stages import Context

STARTS = "graft-bench/starts"
UNSEARCHED = ("released",)
PREPARING = "preparing"  # what open and paper modes share: what recipient and donor answer


@dataclass(frozen=True)
class Chosen:
    """What one mode's search came to: the graft that validation kept, and what that took."""

    candidate: Candidate
    note: str
    spent: Spent


class Recipient:
    """A recipient with its relatives.

    Attributes:
        name: for tables and the journal's labels.
        config, context: of its own graft, in the bench's run folder.
        splits: the bench's prompts, which all recipients share.
    """

    def __init__(self, name: str, config: GraftConfig, context: Context, splits: Splits) -> None:
        self.name, self.config, self.context, self.splits = name, config, context, splits

    def release(self) -> None:
        """Let go of the model and of all that was found of it; what is needed is made again."""
        for name in ("chat", "relatives", "donor_hash", "deltas", "oracle"):
            self.__dict__.pop(name, None)

    @property
    def journal(self) -> Journal:
        """The bench's."""
        return self.context.folder.journal

    def key(self, *parts: str) -> str:
        """Return the journal's key of something that belongs to this recipient's weights."""
        return "/".join(("graft-bench", self.context.base_hash, *parts))

    @cached_property
    def chat(self) -> ChatModel:
        """The untouched recipient; whoever changes it puts it back."""
        return self.context.load(self.context.resolved.folder, self.context.base_hash)

    @cached_property
    def relatives(self) -> Relatives:
        """Donor and base."""
        with self.context.phase(f"Comparing {self.name} with its relatives"):
            return find_relatives(self.config, self.context)

    @property
    def folders(self) -> tuple[Path, Path, Path]:
        """Where recipient, donor and base lie."""
        relatives = self.relatives
        assert relatives.base is not None  # the bench's own model
        return self.context.resolved.folder, relatives.donor, relatives.base

    @cached_property
    def donor_hash(self) -> str:
        """Hash of the donor's weights."""
        return checkpoint_hash(open_checkpoint(self.relatives.donor))

    @cached_property
    def deltas(self) -> Deltas:
        """What the donor has to give."""
        return deltas_of(self.context, self.chat, self.relatives)

    @cached_property
    def oracle(self) -> Oracle:
        """Judges grafts on search prompts."""
        return make_oracle(self.config, self.context, self.chat, self.splits, self.deltas)

    @contextmanager
    def ready(self, mode: MODE) -> Iterator[Oracle]:
        """Have the oracle know what the search of a mode needs; close it afterwards."""
        oracle = self.oracle
        try:
            if mode not in UNSEARCHED:
                with spending(self.chat.model, self.journal, self.key(PREPARING)):
                    _ = oracle.before, oracle.donor
                    oracle.prepare()
            yield oracle
        finally:
            oracle.close()

    def chosen(self, mode: MODE) -> Chosen:
        """Return the graft of a mode, searched for unless the journal has it.

        Raises:
            DemurError: there is no graft in that mode.
        """
        key = self.key("chosen", mode)
        known = self.journal.fact(key)
        if known is None:
            known = self._search(mode)
            self.journal.keep_fact(key, known)
        paid = spent(self.journal, self.key("searching", mode))
        if mode not in UNSEARCHED:
            paid += spent(self.journal, self.key(PREPARING))
        return Chosen(Candidate.from_json(known["candidate"]), known["note"], paid)

    def _search(self, mode: MODE) -> dict[str, object]:
        config = replace(self.config, mode=mode)
        searching = self.key("searching", mode)
        with (
            self.context.phase(f"Searching ({mode} mode): {self.name}"),
            self.ready(mode) as oracle,
            spending(self.chat.model, self.journal, searching),
        ):
            if mode == "open":
                found = open_mode(config, self.context, oracle, self._starts())
            else:
                found = MODES[mode](config, self.context, oracle)
            finalists = list(found.finalists)
            if len(finalists) > 1:
                tried = confirm(config, self.context, oracle, self.splits, finalists)
                tried.sort(key=lambda one: (-one.score, one.share))
                finalists = [one.candidate for one in tried]
        if mode == "open" and self.journal.fact(STARTS) is None:
            self.journal.keep_fact(STARTS, [one.to_json() for one in finalists])
        return {"candidate": finalists[0].to_json(), "note": finalists[0].label}

    def _starts(self) -> tuple[Candidate, ...]:
        """Return the finalists of the first recipient's search, the best on validation first."""
        return first_of([Candidate.from_json(one) for one in self.journal.fact(STARTS) or ()])


def recipients_of(
    config: GraftBenchConfig, context: Context, splits: Splits
) -> tuple[Recipient, ...]:
    """Return the recipients, each looked at, none loaded.

    Raises:
        ModelError, CheckpointError: one of them cannot be used.
    """
    found = []
    for name, given in zip(_names(config.recipients), config.recipients, strict=True):
        own = config.of_recipient(given)
        resolved = resolve(
            given,
            base=own.adapter_base,
            trust_remote_code=own.trust_remote_code,
            say=lambda text: context.narrator.say(f"  {text}"),
        )
        check_weights(resolved.folder)
        weights = checkpoint_hash(open_checkpoint(resolved.folder))
        here = replace(context, config=own, resolved=resolved, base_hash=weights)
        found.append(Recipient(name, own, here, splits))
    return tuple(found)


def _names(recipients: tuple[str, ...]) -> list[str]:
    """Return the last part of each path, or the whole where that is another's, too."""
    last = [one.rstrip("/").rsplit("/", 1)[-1] for one in recipients]
    return [
        name if last.count(name) == 1 else whole
        for name, whole in zip(last, recipients, strict=True)
    ]
