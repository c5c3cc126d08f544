"""Weights on disk: read alone, checked, quantised, paged, written.

Owns: files of tensors and what loads them. Does not know: what a model computes.
Units: bytes.
"""
