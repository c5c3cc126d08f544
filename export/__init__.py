"""The ONNX forward path: a graph exported once per base, the adapter fed in as inputs.

Imports `edge`, never the other way round: the command line and the session find this package through entry points.
"""
