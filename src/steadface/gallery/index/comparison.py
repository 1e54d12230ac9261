"""An engine compared with the truth, number by number, and brought right.

A range of numbers at a time, each from a state of its own: nothing is held for longer, whatever the size of the
gallery, and what is written meanwhile waits for nobody. What was brought right stays so: a comparison that was stopped
goes on behind any number that it had reached.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from steadface.gallery.index import UNIT
from steadface.gallery.index.engine import Engine
from steadface.gallery.index.engine_follower import EngineFollower, Reading

AT_ONCE = 2**12
"""Numbers looked at in one state."""
CATCHING_UP, COMPARING = "bringing up to date", "comparing"
"""Stages."""

Progress = Callable[[str, int, int], None]
"""What is done, up to which number of a template, and the highest."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How many `templates` of the truth were compared; of how many the engine had none (`missing`) or another vector
    (`other`), and how many vectors it had that belong to nothing (`surplus`). `pending` of its vectors are not in its
    approximate index yet (`Engine.pending`).
    """

    templates: int = 0
    missing: int = 0
    other: int = 0
    surplus: int = 0
    pending: int = 0

    @property
    def right(self) -> bool:
        """Whether the engine was as it has to be."""
        return not (self.missing or self.other or self.surplus)

    def and_of(self, other: "Compared") -> "Compared":
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__}
        return Compared(**sums)


def compare(
    follower: EngineFollower, reading: Reading, *, mend: bool = False, after: int = 0, progress: Progress | None = None
) -> Compared:
    """The templates behind the number `after`, once the engine has caught up as it does for a search; with `mend` also
    where it followed another history. Raises as `EngineFollower.catch_up` does.
    """
    mark = follower.engine.mark()
    with reading() as reader:
        highest = reader.rows.numbers().templates
        follower.catch_up(
            reader,
            seen=0 if mark is None else mark.sequence,
            anew=mend,
            progress=progress and partial(progress, CATCHING_UP),
        )
    found = Compared()
    for start in range(after, highest, AT_ONCE):
        last = min(highest, start + AT_ONCE)
        found = found.and_of(_of_range(follower.engine, reading, start + 1, last, mend))
        if progress is not None:
            progress(COMPARING, last, highest)
    found = found.and_of(_beyond(follower.engine, reading, highest, mend))
    with reading() as reader:
        follower.catch_up(reader)  # takes out again what went while it was put in
    return replace(found, pending=follower.engine.pending())


def _of_range(engine: Engine, reading: Reading, first: int, last: int, mend: bool) -> Compared:
    keys, vectors = engine.within(first, last)  # before the truth: what went meanwhile is surplus, and never missing
    with reading() as reader:
        right = reader.these(range(first, last + 1))
    surplus, missing = np.setdiff1d(keys, right.numbers), ~np.isin(right.numbers, keys)
    other = np.zeros(len(missing), dtype=np.bool_)
    if not missing.all():
        apart = np.abs(vectors[np.isin(keys, right.numbers)] - right.vectors[~missing])
        other[~missing] = ~(apart.max(axis=1) <= UNIT)  # not >: NaN is other
    if mend and len(surplus):
        engine.remove(surplus)
    if mend and (wrong := missing | other).any():
        engine.add(right.numbers[wrong], right.vectors[wrong])
    return Compared(
        templates=len(right.numbers), missing=int(missing.sum()), other=int(other.sum()), surplus=len(surplus)
    )


def _beyond(engine: Engine, reading: Reading, highest: int, mend: bool) -> Compared:
    """What has a number that no template had, until it is gone; without `mend` no more than are read at once."""
    surplus = 0
    while len(keys := engine.outside(highest, AT_ONCE)):
        with reading() as reader:
            known = reader.rows.numbers().templates  # others may have enrolled and pushed meanwhile
        keys = keys[(keys > known) | (keys < 1)]
        surplus += len(keys)
        if not mend or not len(keys):
            break
        engine.remove(keys)
    return Compared(surplus=surplus)
