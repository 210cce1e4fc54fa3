"""Ctrl-C: the first asks a training to end, the second stops it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interrupts"]


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C sets; the second acts as usual.

    Outside the main thread, where Python delivers no signals, the event is never set, nor where
    the process ignores Ctrl-C, as a job in the background of a script does.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    previous = signal.getsignal(signal.SIGINT) or signal.SIG_DFL
    if previous is signal.SIG_IGN:
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
