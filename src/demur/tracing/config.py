"""Every choice of `demur trace`, with its default."""

from dataclasses import KW_ONLY, dataclass, replace
from typing import Annotated, Any, Self, get_args

from cyclopts import Group, Parameter

from demur.graft.tracing.names import DEFAULT, TRACED, Corruption, Positions, Traced
from demur.options import MODEL, PROMPTS, as_json, require

TRACE = Parameter(group=Group.create_ordered("Trace"))
MODULES = ("mlp", "attention")


@dataclass(frozen=True)
class TraceConfig:
    """The choices of a trace; each has a flag of the same name.

    Raises:
        ConfigError: a value makes no sense.

    Attributes:
        model: hub id, folder, GGUF file, PEFT adapter folder, or the alias smollm2-135m.
        donor: an aligned relative; it is the one that is traced then, and each of its modules is
            tried in the model, and back.
        corruption: resampled (the benign twin's run) or noise (on the request's embeddings).
        kinds: what is restored: state, mlp, attention, gate, up, down, q, k, v, o.
        modules: what is put over from the donor, one layer at a time: mlp, attention, or a kind.
        positions: groups of tokens, or single tokens counted from the end.
        window: layers around one that are restored, or put over, together; states never.
        prompts: harmful requests that are traced, each with its benign twin.
        draws: of noise, for each request.
        fast: attribution patching alone, without a restored run for each cell.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: let a model bring its own Python code.
        device: auto, cuda, mps or cpu.
        dtype: auto, float32, bfloat16 or float16.
        system: a system prompt; by default what the chat template itself has.
        thinking: leave the thinking block of the template open.
        chat_template: chatml, plain or a Jinja file, for a model without one.
        pairs: file or hub data set with the columns harmful and benign, in place of the built-in.
        harmful: file or hub data set of harmful requests, in place of the built-in pairs.
        harmful_column: its column of prompts, where it cannot be found.
        benign: file or hub data set of benign requests that sound alarming.
        benign_column: its column of prompts.
        seed: of everything that is drawn.
    """

    model: Annotated[str, MODEL]
    _: KW_ONLY
    donor: Annotated[str | None, TRACE] = None
    corruption: Annotated[Corruption, TRACE] = "resampled"
    kinds: Annotated[tuple[Traced, ...], TRACE, Parameter(consume_multiple=True)] = DEFAULT
    modules: Annotated[tuple[str, ...], TRACE, Parameter(consume_multiple=True)] = MODULES
    positions: Annotated[Positions, TRACE] = "groups"
    window: Annotated[int, TRACE] = 1
    prompts: Annotated[int, TRACE] = 16
    draws: Annotated[int, TRACE] = 3
    fast: Annotated[bool, TRACE] = False
    revision: Annotated[str | None, MODEL] = None
    trust_remote_code: Annotated[bool, MODEL] = False
    device: Annotated[str, MODEL] = "auto"
    dtype: Annotated[str, MODEL] = "auto"
    system: Annotated[str | None, MODEL] = None
    thinking: Annotated[bool, MODEL] = False
    chat_template: Annotated[str | None, MODEL] = None
    pairs: Annotated[str | None, PROMPTS] = None
    harmful: Annotated[str | None, PROMPTS] = None
    harmful_column: Annotated[str | None, PROMPTS] = None
    benign: Annotated[str | None, PROMPTS] = None
    benign_column: Annotated[str | None, PROMPTS] = None
    seed: Annotated[int, MODEL] = 0

    def __post_init__(self) -> None:
        from demur.models.anatomy.types import KINDS

        for name in ("kinds", "modules"):
            given = getattr(self, name)
            once = dict.fromkeys((given,) if isinstance(given, str) else given)
            object.__setattr__(self, name, tuple(once))
        for name in ("window", "draws"):
            self._require(name, "at least 1", getattr(self, name) >= 1)
        self._require("prompts", "at least 2", self.prompts >= 2)
        self._require("kinds", f"among {', '.join(TRACED)}", set(self.kinds) <= set(TRACED))
        self._require("kinds", "given", bool(self.kinds))
        known = (*MODULES, *KINDS)
        self._require("modules", f"among {', '.join(known)}", set(self.modules) <= set(known))
        for name, kind in (("corruption", Corruption), ("positions", Positions)):
            names = get_args(kind)
            self._require(name, f"one of {', '.join(names)}", getattr(self, name) in names)

    def _require(self, name: str, wanted: str, met: bool) -> None:
        require(self, name, wanted, met)

    @classmethod
    def of(cls, model: str | Self, **choices: Any) -> Self:
        """Return the configuration of a model's name, or a whole one, with other choices."""
        return cls(model, **choices) if isinstance(model, str) else replace(model, **choices)

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON can hold it."""
        return as_json(self)
