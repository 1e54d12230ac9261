"""A gallery copied to another place as it is, sealed: the same rows under the same numbers, the same log and key."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from typing import TypeVar

from steadface.gallery.sealing.transaction import Reader
from steadface.gallery.storage import Contents, contents_of

Row = TypeVar("Row")
Progress = Callable[[int, int], None]
"""Is called with how many rows are done, and of how many."""

EVERY = 1000
"""Rows between two reports."""


def contents(reader: Reader, progress: Progress | None = None) -> Contents:
    """Of the state that is read, to be read while that lasts."""
    whole = contents_of(reader.rows)
    if progress is None:
        return whole
    rows, total = count(1), reader.count_people() + reader.count_templates() + reader.last_sequence()

    def told(some: Iterable[Row]) -> Iterator[Row]:
        for one in some:
            yield one
            if (done := next(rows)) % EVERY == 0 or done == total:
                progress(done, total)

    return replace(whole, entries=told(whole.entries), people=told(whole.people), templates=told(whole.templates))
