"""Verdicts to numbers: refusal, over-refusal, prefill robustness, perplexity, divergence."""
