"""Who gets in, how often, and how many at once."""

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from steadface.errors import Unavailable
from steadface.service.keys import EVERYBODY, ApiKey
from steadface.service.problems import TooOften

Result = TypeVar("Result")


class Doors:
    """A bounded number of requests at work, and a bounded number that wait; more are told to come back."""

    def __init__(self, *, workers: int, waiting: int) -> None:
        self._most = workers + waiting
        self._workers = anyio.CapacityLimiter(workers)
        self.inside = 0

    @asynccontextmanager
    async def through(self) -> AsyncIterator[None]:
        """Raises `Unavailable` where as many as may wait do so already."""
        if self.inside >= self._most:
            raise Unavailable(f"{self.inside} requests are at work or wait already; come back in a moment")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def work(self, job: Callable[[], Result]) -> Result:
        """What the job returns, in a thread, since it decodes, computes and writes."""
        return await anyio.to_thread.run_sync(job, limiter=self._workers)


class Limits:
    """How many requests a minute a key makes, and how often an hour it asks for one person; kept in memory."""

    def __init__(self) -> None:
        # Two numbers for each key, and for each key and person, whatever comes; gone when their time is over.
        self._counts = SlidingWindowCounterRateLimiter(MemoryStorage())

    def request(self, key: ApiKey) -> dict[str, str]:
        """Counts a request; headers that say what is left. Raises `TooOften`. Nothing is counted without keys, nor of
        another node, which has counted it already.
        """
        if key is EVERYBODY or key.scopes == ("shard",):
            return {}
        item = RateLimitItemPerMinute(key.rate)
        allowed = self._counts.hit(item, "requests", key.id)
        reset, left = self._counts.get_window_stats(item, "requests", key.id)
        after = max(1, math.ceil(reset - time.time()))
        if not allowed:
            raise TooOften(f"this key may ask {key.rate} times a minute; come back in {after} s", after)
        return {"RateLimit-Policy": f'"minute";q={key.rate};w=60', "RateLimit": f'"minute";r={max(0, left)};t={after}'}

    def probe(self, key: ApiKey, collection: str, person: str) -> None:
        """Counts that somebody enrolled was the most similar one to a probe. Raises `TooOften`."""
        if key is EVERYBODY:
            return
        item = RateLimitItemPerHour(key.probes)
        if not self._counts.hit(item, "probes", key.id, collection, person):
            reset, _ = self._counts.get_window_stats(item, "probes", key.id, collection, person)
            after = max(1, math.ceil(reset - time.time()))
            raise TooOften(
                f"this key may compare faces with one person {key.probes} times an hour; come back in {after} s", after
            )
