"""A document so far, with one `teach` for every loop, and the memory that it lives in.

Owns: tokens, position, windows, the phases of memory. Does not know: the order of a loop, files, printing.
"""
