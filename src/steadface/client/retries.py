"""When a request is made again, and after how long."""

import random
from dataclasses import dataclass

from steadface.client.calls import Repeat
from steadface.errors import InvalidInput

NOTHING_DONE = (429, 503)
"""The service did nothing of what was asked; whoever stands before it may not say so as surely with the others."""
PASSING = (*NOTHING_DONE, 408, 502, 504)


@dataclass(frozen=True, kw_only=True)
class Retries:
    """A request that may be is made up to `times` times more.

    The wait before the n-th of them is drawn from 0 to min(`most`, `first` * 2^(n - 1)) seconds (full jitter, as in
    Brooker, "Exponential backoff and jitter", 2015), and begins once `Retry-After` is over; where that says more than
    `most` the client gives up at once.
    """

    times: int = 4
    first: float = 0.25
    most: float = 30.0

    def __post_init__(self) -> None:
        if self.times < 0 or not 0 <= self.first <= self.most:
            raise InvalidInput(f"retries are {self}; give times of 0 or more, and 0 <= first <= most")

    def allowed(self, repeat: Repeat, status: int | None, *, unsent: bool = False) -> bool:
        """After an answer of that status, or none (a broken connection), over which the request may have gone out."""
        if status is None:
            return unsent or repeat == "safe"
        return status in (PASSING if repeat == "safe" else NOTHING_DONE)

    def wait(self, tried: int, after: float | None) -> float | None:
        """Seconds before the next try, None where there is none; `tried` counts those that were made."""
        if tried > self.times or (after is not None and after > self.most):
            return None
        drawn = random.uniform(0.0, min(self.most, self.first * 2.0 ** min(tried - 1, 60)))
        return (after or 0.0) + drawn
