"""What is given to commands that put a patch onto a model, take it out, or write it as another."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from demur.cli.app import Out, Trust, say
from demur.options import MODEL


@dataclass(frozen=True)
class Patching:
    """A model, its patch, and where to write.

    Attributes:
        model: hub id, folder, GGUF file, PEFT adapter folder, or the alias smollm2-135m.
        patch: the patch file: one that was made for the model, or that it carries.
        out: the folder to write; it must be new or empty.
        revision: branch, tag or commit of a hub model.
        trust_remote_code: let a model bring its own Python code.
    """

    model: Annotated[str, MODEL]
    patch: Annotated[Path, MODEL]
    _: KW_ONLY
    out: Out
    revision: Annotated[str | None, MODEL] = None
    trust_remote_code: Trust = False

    def folder(self) -> Path:
        """Return the model's folder, once what is quick to check is checked.

        Raises:
            DemurError: the patch cannot be read, the output is taken, or there is no such model.
        """
        from demur.checkpoint import read_patch
        from demur.checkpoint.storage import require_empty
        from demur.models.resolve import resolve

        read_patch(self.patch)
        require_empty(self.out)
        trust = self.trust_remote_code
        return resolve(self.model, revision=self.revision, trust_remote_code=trust, say=say).folder
