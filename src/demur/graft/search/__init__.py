"""The search for a small set of modules that passes, by ask and tell, and sequential tests."""

from demur.graft.search.sequential import Behaviour, Decision, PairedTest, SequentialTest

__all__ = ["Behaviour", "Decision", "PairedTest", "SequentialTest"]
