"""Training: `fit`, one loop for every model."""

from chartae.training.callbacks import Callback
from chartae.training.defaults import (
    default_options,
    fills_unit_range,
    fit_defaults,
    training_options,
)
from chartae.training.engine import is_first_process
from chartae.training.history import History
from chartae.training.loggers import TRACKERS
from chartae.training.loop import CHECKPOINT_FILE, HISTORY_FILE, fit
from chartae.training.optimizers import OPTIMIZERS, SCHEDULERS

__all__ = [
    "CHECKPOINT_FILE",
    "HISTORY_FILE",
    "OPTIMIZERS",
    "SCHEDULERS",
    "TRACKERS",
    "Callback",
    "History",
    "default_options",
    "fills_unit_range",
    "fit",
    "fit_defaults",
    "is_first_process",
    "training_options",
]
