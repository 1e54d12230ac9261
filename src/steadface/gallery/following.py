"""Searches that do not ask the truth first: the index keeps up with it in the background, and how old it is is known.

A thread looks at the truth when it hears of a change (`Storage.wait`), and in any case a few times within the age that
is allowed. What a look finds is all that was committed before it began, so that the age of a state is counted from
there. Who searches is given a state that is young enough, and waits for it, or is refused: never an older one.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic

from steadface.errors import SteadfaceError, Unavailable, first_line
from steadface.gallery.index.follower import Searcher
from steadface.gallery.person import Person
from steadface.gallery.storage import ModelIdentity

LOOKS = 4
"""At the truth, at least, within the age that is allowed: so that one or two may be late."""
PAUSE = 0.2
"""Seconds from a look that failed to the next."""
PATIENCE = 1.0
"""Seconds that a search waits, at least, for a state that is young enough."""
KEPT = 2**16
"""People who were found in one state, at most."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Freshness:
    """The last entry of the log that a search knows of, and for how many seconds that may no longer be the last."""

    entry: int
    age: float


@dataclass(frozen=True, kw_only=True)
class Known:
    """A state that is in the `follower`, of a gallery of this `model`, up to the entry `sequence`; `findable` people
    are in it (None: they were not counted), and those of `people` were found in it before. It was the newest when the
    clock (`time.monotonic`) was at `seen`.
    """

    follower: Searcher
    model: ModelIdentity
    sequence: int
    findable: int | None
    seen: float
    people: dict[int, Person] = field(default_factory=dict)

    @property
    def freshness(self) -> Freshness:
        return Freshness(entry=self.sequence, age=monotonic() - self.seen)

    def keep(self, found: dict[int, Person]) -> None:
        """What is as it was in this state."""
        if len(self.people) + len(found) <= KEPT:
            self.people.update(found)


class Following:
    """Looks at the gallery of that `name` whenever `wait`, which is given seconds, returns; no state is given out that
    is older than `staleness` seconds. The first look is made at once, and raises what it raises.
    """

    def __init__(
        self, name: str, *, look: Callable[[], Known], wait: Callable[[float], None], staleness: float
    ) -> None:
        self.name, self.staleness = name, staleness
        self._look, self._wait = look, wait
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._known = look()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._follow, name="steadface-following", daemon=True)
        self._thread.start()

    def known(self, least: int = 0) -> Known:
        """A state that is young enough, with the entry `least` of the log. Raises as `fresh` does."""
        with self._changed:
            patience = max(PATIENCE, self.staleness)
            self._changed.wait_for(lambda: self._is_fresh(least) or self._error is not None, timeout=patience)
        known = self.fresh()
        if known.sequence < least:
            raise Unavailable(f"the gallery {self.name} could not be looked at since its entry {least}; try again")
        return known

    def fresh(self) -> Known:
        """What is known now, without waiting. Raises `Unavailable` where that is too old, and what looking raised where
        the gallery can no longer be used.
        """
        with self._changed:
            known, error = self._known, self._error
        if isinstance(error, SteadfaceError) and not isinstance(error, Unavailable):
            raise error
        if known.freshness.age > self.staleness:
            why = "it does not answer" if error is None else first_line(error)
            raise Unavailable(
                f"the gallery {self.name} was last looked at {known.freshness.age:.1f} s ago, and {self.staleness:g} s "
                f"are allowed ({why}): nothing is answered until it can be looked at again"
            ) from error
        return known

    def close(self) -> None:
        """Waits for the thread as long as a look usually takes."""
        self._closed.set()
        self._thread.join(PATIENCE)

    def _is_fresh(self, least: int) -> bool:
        return self._known.sequence >= least and self._known.freshness.age <= self.staleness

    def _follow(self) -> None:
        while not self._closed.is_set():
            try:
                if self._error is None:
                    self._wait(self.staleness / LOOKS)
                else:
                    self._closed.wait(PAUSE)
                self._note(self._look(), None)
            except Exception as error:  # whatever it is, who searches has to hear of it
                self._note(self._known, error)

    def _note(self, known: Known, error: Exception | None) -> None:
        if self._closed.is_set():
            return
        if error is not None and self._error is None:
            log.warning("the gallery %s cannot be followed: %s", self.name, first_line(error))
        elif error is None and self._error is not None:
            log.warning("the gallery %s is followed again", self.name)
        with self._changed:
            if known.sequence == self._known.sequence and known.follower is self._known.follower:
                known = replace(known, people=self._known.people)
            self._known, self._error = known, error
            self._changed.notify_all()
