"""What trains the adapter: one chunk at a time, guarded; and the starting adapter that takes back quantisation.

Owns: the lesson, the optimiser, the guards. Does not know: documents as files, printing, runs.
Units: tokens, nats.
"""
