"""Prompt sets: the built-in contrast pairs, files and hub data sets; splits; attack wrappers."""

from demur.prompts.attacks import PREFILLS, prefill_for, templated, with_template
from demur.prompts.builtin import CONTRASTS, builtin_set, hazard_titles, validate
from demur.prompts.duplicates import NearDuplicate, near_duplicates
from demur.prompts.files import Loaded, load_pairs, load_prompts, read_pairs, read_prompts
from demur.prompts.split import limit, split
from demur.prompts.types import Kind, Prompt, PromptSet, Split, Splits

__all__ = [
    "CONTRASTS",
    "PREFILLS",
    "Kind",
    "Loaded",
    "NearDuplicate",
    "Prompt",
    "PromptSet",
    "Split",
    "Splits",
    "builtin_set",
    "hazard_titles",
    "limit",
    "load_pairs",
    "load_prompts",
    "near_duplicates",
    "prefill_for",
    "read_pairs",
    "read_prompts",
    "split",
    "templated",
    "validate",
    "with_template",
]
