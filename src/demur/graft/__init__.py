"""Grafting: which parts of an aligned donor carry refusal, found by tracing and by search."""
