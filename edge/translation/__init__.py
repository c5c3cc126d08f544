"""Translating documents: units in, one translation for each out, and an adapter that learns on the way.

Owns: prompts, guards, meaning, glossary, corrections, the loop, what is learned from its output, evaluation, its
report. Does not know: document formats (`documents/`), run folders (`journal/`), how tokens or updates are computed.
Units: a unit is one paragraph, cell or cue of a document; lengths in tokens or characters as named.

torch is imported only by `decoding`, `lessons`, `meaning` and `evaluate`.
"""
