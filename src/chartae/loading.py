"""`chartae.load`: what `chartae.persistence` reads, with every class of the library known to it."""

import chartae.models  # registers its classes
import chartae.samplers  # noqa: F401
from chartae.persistence import load

__all__ = ["load"]
