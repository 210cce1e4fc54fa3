"""`chartae.load`: `chartae.persistence.load`, with all classes of the library registered."""

import chartae.longitudinal  # registers its classes
import chartae.models
import chartae.samplers  # noqa: F401
from chartae.persistence import load

__all__ = ["load"]
