"""Distilling refusals: a model learns to refuse, and to leave everything else as it was."""
