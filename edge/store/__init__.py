"""Model files: what a reference means, which models are embedded, whether a folder still is what was made.

Owns: the cache folder, model references, file lists. Does not know: torch, what the bytes of a weight mean.
Units: bytes.
"""
