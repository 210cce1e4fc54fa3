"""`chartae.load`: what `chartae.persistence` reads, with every class of the library known to it."""

import chartae.models
import chartae.samplers
from chartae.persistence import load

__all__ = ["load"]
