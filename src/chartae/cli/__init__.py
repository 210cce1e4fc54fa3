"""The command ``chartae``, one file for each subcommand.

Nothing here imports torch before a subcommand runs, so that ``chartae --help`` is instant.
"""

__all__ = ["main", "run"]

from chartae.cli.app import main, run
