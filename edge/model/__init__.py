"""What computes: the frozen base with its faster parts, the adapter on it, the forward path, kept keys and values.

Owns: every change of a model's code. Does not know: documents, learning, files of runs.
Units: tokens.
"""
