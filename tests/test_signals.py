import os
import signal
import threading
from contextlib import AbstractContextManager

import pytest

from steadface.signals import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    with stop_on_signal() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop


def test_the_second_signal_interrupts_at_once() -> None:
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_echo_of_the_first_signal_is_not_a_second_one() -> None:
    with stop_on_signal(echoes=1) as stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def fail_under(stop: AbstractContextManager[object]) -> None:
    with stop:
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        raise ZeroDivisionError


def test_the_handlers_that_were_there_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError):
        fail_under(stop_on_signal())
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_off_the_main_thread_signals_are_left_alone() -> None:
    found = []

    def enter() -> None:
        with stop_on_signal() as stop:
            found.append((bool(stop), signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(False, before)]
