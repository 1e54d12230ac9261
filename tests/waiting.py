"""Tests wait for states and not for time: a busy machine takes as long as it takes."""

import time
from collections.abc import Callable


def until(true: Callable[[], object]) -> None:
    """Waits for that, as long as it takes."""
    while not true():
        time.sleep(0.01)
