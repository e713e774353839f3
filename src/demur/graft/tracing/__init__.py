"""Causal tracing of refusal: which states, outputs and modules carry it, in a model and across two.

The procedure is that of Meng et al. 2022 (ROME, arXiv 2202.05262, section 2), put to refusal as
DAPA does (arXiv 2406.01514, section 3.2), on the refusal margin (`graft/margin.py`).
"""
