"""`optimum-cli export templora`: the verb `templora export` inside Optimum's own command line.

Owns: the registration, in the way of Optimum's subpackages: a module in the namespace `optimum.commands.register`.
Does not know: what the verb does.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand


class TemploraExport(BaseOptimumCLICommand):  # type: ignore[misc]
    """The subcommand; heavy imports wait until it runs."""

    COMMAND = CommandInfo(name="templora", help="Export an ONNX graph that takes a temporary LoRA as inputs.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Registers the arguments of `templora export`."""
        from export import command

        command.arguments(parser)

    def run(self) -> None:
        """Runs the verb; ends with its exit code."""
        from edge.errors import TemploraError
        from edge.terminal import say
        from export import command

        try:
            sys.exit(command.run(self.args))
        except TemploraError as error:
            say(f"error: {error.line()}")
            sys.exit(error.exit_code)


REGISTER_COMMANDS = [(TemploraExport, ExportCommand)]
