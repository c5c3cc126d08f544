"""Memory and work on paper: a model's dimensions, what each phase needs, what fits a budget, FLOPs.

Owns: shapes, predictions, plans. Does not know: torch, models in memory, how a choice is carried out.
Units: bytes, tokens, FLOPs.
"""
