"""``python -m chartae.cli`` is the command ``chartae``."""

from chartae.cli import main

main()
