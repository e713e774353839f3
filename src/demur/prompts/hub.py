"""Data sets of the Hugging Face hub, read into rows.

Written `org/name`, `org/name:split`, `org/name@config:split`, each with or without `hf://`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from demur.errors import PromptError
from demur.prompts.tables import ENDINGS, Table, make_table

_PART = r"[A-Za-z0-9][\w.-]*"
_ADDRESS = re.compile(rf"(hf://)?({_PART}/{_PART})(?:@([\w.-]+))?(?::([^:/]+))?")


class HubAddress(NamedTuple):
    """A data set on the hub: `org/name`, its configuration and split, None where not named."""

    name: str
    config: str | None
    split: str | None


def hub_address(source: str) -> HubAddress | None:
    """Return the address that a text names, or None if it does not look like one.

    A text with the ending of a file of prompts, or that is the path of a file or folder, names
    no data set unless it begins with `hf://`.
    """
    match = _ADDRESS.fullmatch(source.strip())
    if not match:
        return None
    scheme, name, config, split = match.groups()
    if not scheme and (source.lower().endswith(ENDINGS) or Path(source).exists()):
        return None
    return HubAddress(name, config, split)


def read_hub(address: HubAddress) -> Table:
    """Load a data set from the hub.

    Raises:
        PromptError: it does not exist, cannot be reached, has no such configuration or split, or
            has several and none was named.
    """
    from datasets import load_dataset
    from huggingface_hub.errors import HTTPError

    name, config, split = address
    try:
        loaded = load_dataset(name, config)
    except FileNotFoundError as error:  # the library's DatasetNotFoundError is one
        cause = f"The hub has no data set '{name}' that you may read, and there is no such file."
        remedy = "Check the name; if access to it is restricted, log in with: hf auth login."
        raise PromptError(cause, remedy) from error
    except (OSError, HTTPError) as error:
        cause = f"There is no file '{name}', and the hub cannot be reached to look for a data set."
        remedy = "Check the network and HF_ENDPOINT, or give a file instead."
        raise PromptError(cause, remedy) from error
    except (ValueError, RuntimeError) as error:
        configs = _configs(name)
        if configs and config not in configs:
            named = f"no configuration '{config}'" if config else "several configurations"
            cause = f"The data set '{name}' has {named}: {', '.join(configs)}."
            raise PromptError(cause, f"Name one of them: {name}@{configs[0]}.") from error
        cause = f"The data set '{name}' cannot be loaded: {_first_line(error)}."
        raise PromptError(cause, "Give its file of prompts instead.") from error
    splits: Mapping[str, object] = loaded
    names = list(splits)
    if split is None and len(names) == 1:
        split = names[0]
    if split not in names:
        base = f"{name}@{config}" if config else name
        what = f"no split '{split}'" if split else "several splits"
        cause = f"The data set '{base}' has {what}: {', '.join(names)}."
        raise PromptError(cause, f"Name one of them: {base}:{names[0]}.")
    rows = loaded[split]
    return make_table(name, ((f"row {i}", dict(row)) for i, row in enumerate(rows, start=1)))


def _configs(name: str) -> list[str]:
    """Return the configurations of a data set; none if the hub does not say."""
    from datasets import get_dataset_config_names
    from huggingface_hub.errors import HTTPError

    try:
        return list(get_dataset_config_names(name))
    except (OSError, ValueError, RuntimeError, HTTPError):
        return []


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
