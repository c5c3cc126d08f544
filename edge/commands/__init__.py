"""One file per verb of the `templora` command.

Owns: each verb's arguments, what it prints, its exit code. Does not know: how anything is computed.

A verb is a module with `add(verbs)`, which registers its parser, and `run(args)`, which returns the exit code.
Standard output holds the result (table, text, and with --json one JSON line last); progress and errors go to
standard error. Packages beside this one add verbs through the entry-point group `templora.commands`.
"""
