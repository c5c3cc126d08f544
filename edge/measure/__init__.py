"""Measuring: contenders side by side, the paper's loop written plainly, reports, what this machine can do.

Owns: comparison and its tables. Does not know: how results are printed.
"""
