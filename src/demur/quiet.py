"""Third-party noise, kept off the user's screen: warnings, progress bars and telemetry.

Call `hush` before torch, transformers and the rest are imported. What demur itself has to say,
and every error, is untouched.
"""

from __future__ import annotations

import logging
import os
import warnings

SETTINGS = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DATASETS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
    "ACCELERATE_LOG_LEVEL": "ERROR",
}
NOISY = (
    "accelerate", "datasets", "filelock", "fsspec", "gguf", "httpx", "huggingface_hub",
    "matplotlib", "peft", "torch", "transformers", "trl",
)  # fmt: skip


def hush() -> None:
    """Quieten the libraries; a setting that the user made in the environment stays."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if os.environ["TRANSFORMERS_VERBOSITY"] == "error":
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.simplefilter("ignore")
