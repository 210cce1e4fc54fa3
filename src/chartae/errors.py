"""The errors that chartae raises. Each is also a subclass of a matching standard exception."""

__all__ = [
    "ChartaeError",
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "DivergenceError",
    "ProcessError",
]


class ChartaeError(Exception):
    """Base of all errors raised by chartae, so that one ``except`` catches them."""


class DataError(ChartaeError, ValueError):
    """The data cannot be used: wrong shape, dtype or range, NaN, empty, unreadable."""


class ConfigurationError(ChartaeError, ValueError):
    """An argument or an option has a value that is not allowed."""


class CheckpointError(ChartaeError, RuntimeError):
    """A saved model, sampler or checkpoint is missing, damaged or cannot be rebuilt."""


class DivergenceError(ChartaeError, RuntimeError):
    """A computation (a loss, a chain) gave values that are not finite."""


class ProcessError(ChartaeError, RuntimeError):
    """Another process of a training on several devices has ended before this one."""
