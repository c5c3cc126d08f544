"""Plain values, as people write them: amounts, YAML from anyone, dataclasses read strictly.

Owns: reading and refusing them. Does not know: which settings there are, torch.
"""
