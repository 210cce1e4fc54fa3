"""``python -m chartae`` is the command ``chartae``."""

from chartae.cli import main

main()
