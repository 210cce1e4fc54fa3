"""Warnings of the library with the name of their subject, such as a class."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

__all__ = ["warnings_about"]

logger = logging.getLogger(__name__)


@contextmanager
def warnings_about(subject: str) -> Iterator[list[str]]:
    """Hold back the library's warnings in this block; log them at its end, after ``subject``.

    Only warnings of this thread are held back. The list that the block receives contains the
    messages, each once, as soon as they occur.
    """
    messages: list[str] = []
    thread = get_ident()

    def passes(record: logging.LogRecord) -> bool:
        if record.thread != thread or record.levelno < logging.WARNING:
            return True
        if (message := record.getMessage()) not in messages:
            messages.append(message)
        return False

    # A filter applies to its own logger only, not to records from child loggers.
    loggers = [
        logging.getLogger(name)
        for name in [*logging.root.manager.loggerDict]
        if name.split(".")[0] == "chartae"
    ]
    for each in loggers:
        each.addFilter(passes)
    try:
        yield messages
    finally:
        for each in loggers:
            each.removeFilter(passes)
        for message in messages:
            logger.warning("%s: %s", subject, message)
