"""Warnings of the library, under the name of what they are about."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident

__all__ = ["warnings_about"]

logger = logging.getLogger(__name__)


@contextmanager
def warnings_about(subject: str) -> Iterator[list[str]]:
    """Log what the library warns of in the block after it, and as being about ``subject``.

    Only what this thread warns of. The list that the block gets has the messages once it is over.
    """
    messages: list[str] = []
    thread = get_ident()

    def passes(record: logging.LogRecord) -> bool:
        if record.thread != thread or record.levelno < logging.WARNING:
            return True
        if (message := record.getMessage()) not in messages:
            messages.append(message)
        return False

    # A filter sees what is logged to its own logger only, not what comes from those below it.
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
