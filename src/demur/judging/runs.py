"""The answers of a finished run, found again in its journal: by probe, before and after.

What was asked is made again from the run's own configuration (its prompts, their split and the
seed), and checked against the fingerprint that the run kept of it; no model is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.console import Narrator
from demur.errors import PromptError, RunError
from demur.judge.recorded import (
    Recording,
    Settings,
    grouped,
    identity_of,
    pick,
    recorded_answers,
)
from demur.measure.result import FILE, read_result


def recordings_of(folder: Path, narrator: Narrator) -> tuple[Recording, ...]:
    """Return the recorded answers of a run.

    Raises:
        RunError: it is no finished run, or its answers cannot be found again.
    """
    answers = recorded_answers(folder)
    if not (folder / FILE).exists() and not _is_aligning(folder):
        narrator.say("  not a run of demur align: its answers are grouped by model")
        return grouped(answers)
    result = read_result(folder)
    configuration = result.get("configuration")
    if not isinstance(configuration, Mapping) or "hashes" not in result:
        return grouped(answers)
    narrator.say("  finding the run's prompts again")
    probes = _probes(folder, configuration)
    template = _template(folder / "model")
    found = []
    for probe in probes:
        settings = Settings(probe.decoding.tokens, probe.decoding.opening)
        prompts = [prompt.text for prompt in probe.prompts]
        for side, weights in (("before", "base"), ("after", "aligned")):
            model = identity_of(result["hashes"][weights], template, configuration, result["dtype"])
            found.append(pick(answers, model, settings, prompts, probe.title, side))
    return tuple(found)


def _is_aligning(folder: Path) -> bool:
    """Return whether `demur align` is at work here and has not finished."""
    try:
        known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and ("verb" in known or "train_pairs" in known)


def _probes(folder: Path, configuration: Mapping[str, Any]) -> Any:
    from demur.prompts.types import SPLITS
    from demur.run.journal import content_key
    from demur.treating.config import TreatmentConfig
    from demur.treating.stages import reported_probes, splits_of

    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    remedy = "Judge the run with the version of demur, and the prompt files, that made it."
    try:
        names = TreatmentConfig.__dataclass_fields__
        chosen = {key: value for key, value in configuration.items() if key in names}
        config = TreatmentConfig(**chosen)
        splits = splits_of(config)
    except (PromptError, TypeError) as error:
        raise RunError(f"The prompts of {folder} are not to be found ({error}).", remedy) from error
    if content_key([[p.text for p in splits.of(part)] for part in SPLITS]) != known.get("prompts"):
        raise RunError(f"The prompts of {folder} are no longer what they were.", remedy)
    return reported_probes(config, splits)


def _template(model: Path) -> str | None:
    """Return the chat template of the aligned model, which is the original's too.

    It is read from where transformers keeps it, which takes no time; only a tokenizer with several
    templates is loaded.
    """
    try:
        alone = model / "chat_template.jinja"
        if alone.exists() and not (model / "additional_chat_templates").exists():
            return alone.read_text(encoding="utf-8")
        known = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
        template = known.get("chat_template")
        if isinstance(template, str):
            return template
        from transformers import AutoTokenizer

        loaded: str | None = AutoTokenizer.from_pretrained(model).chat_template
    except (OSError, ValueError, KeyError) as error:
        raise RunError(
            f"The tokenizer in {model} cannot be read.",
            "Put the run's folder model back, or judge a file of answers with --answers.",
        ) from error
    return loaded
