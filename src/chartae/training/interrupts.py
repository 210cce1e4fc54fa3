"""Ctrl-C and SIGTERM ask a training to end; a second Ctrl-C stops it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Interrupts", "interrupts"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """What a training was asked.

    Attributes:
        signal: the number of the signal that asked it to end, 0 if none did.
    """

    def __init__(self) -> None:
        self.signal = 0


@contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Record the first Ctrl-C, or the first SIGTERM, which has no other effect.

    A second Ctrl-C acts as usual. A second SIGTERM has no effect, because job schedulers may send
    more than one.

    Outside the main thread, where Python delivers no signals, nothing is recorded, nor is a signal
    that the process ignores, as a job in the background of a script ignores Ctrl-C.
    """
    asked = Interrupts()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    previous = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}
    heard = [number for number in SIGNALS if previous[number] is not signal.SIG_IGN]

    def handle(number: int, frame: FrameType | None) -> None:
        asked.signal = max(asked.signal, number)
        if number == signal.SIGINT:
            signal.signal(number, previous[signal.SIGINT])

    for number in heard:
        signal.signal(number, handle)
    try:
        yield asked
    finally:
        for number in heard:
            signal.signal(number, previous[number])
