"""The command ``chartae``, one file for each subcommand.

Torch is imported only when a subcommand runs, so that ``chartae --help`` is instant.
"""

__all__ = ["main", "run"]

from chartae.cli.app import main, run
