"""This machine: its device, compute dtype and matmul units, what memory it has, where freed memory goes.

Owns: capabilities and measurement. Does not know: models, settings, plans.
Units: bytes.
"""
