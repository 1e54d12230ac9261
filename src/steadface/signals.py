"""Ctrl-C at any moment: before a command has begun, and as a request that a training answers between two steps."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""The exit code, as shells have it."""


def leave_on_ctrl_c() -> None:
    """Ctrl-C ends the process there and then, with one line: while modules are imported nothing has been begun.

    An exception could come up anywhere in an import, and get lost or become another one there. Where Ctrl-C is ignored,
    or somebody else's to answer, it stays so.
    """
    if _answers(signal.default_int_handler):
        signal.signal(signal.SIGINT, _leave)


def raise_on_ctrl_c() -> None:
    """Ctrl-C raises KeyboardInterrupt from here on, where it would have ended the process."""
    if _answers(_leave):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def ignore_ctrl_c() -> None:
    """Ctrl-C does nothing from here on: all is said and done, and Python's own end would show a traceback."""
    if _answers(_leave) or _answers(signal.default_int_handler):
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _answers(handler: object) -> bool:
    return threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is handler


def _leave(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


class StopRequest:
    """False until a signal asks to stop."""

    asked = False

    def __bool__(self) -> bool:
        return self.asked


@contextmanager
def stop_on_signal(*, echoes: int = 0) -> Iterator[StopRequest]:
    """Turns the first signal into a request; the second one interrupts at once, and the third one ends the process.

    So many `echoes` of the first are not counted: under torchrun a Ctrl-C comes from the terminal, and again from
    torchrun, which has heard it too. Does nothing off the main thread.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    left = echoes

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal left
        if request.asked and left:
            left -= 1
            return
        if request.asked:
            signal.signal(number, signal.SIG_DFL)  # whatever is still cleaned up shall not be interrupted halfway twice
            raise KeyboardInterrupt
        request.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
