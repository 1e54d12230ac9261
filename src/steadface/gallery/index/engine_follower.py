"""A gallery searched through an engine that several processes share (`steadface.gallery.index.engine`).

Before a search the last entry of the gallery's log is compared with the mark that the engine holds. What came and what
went since is pushed, and the mark moves when all of that is acknowledged. Every push can be repeated, so that several
processes may do the same at once, and one that was interrupted is done again. A process that pushed what another one
has taken out meanwhile takes it out again with its next change; one that was killed just then leaves it, unfindable,
for `steadface gallery check-index`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from threading import Lock
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from steadface.errors import Conflict
from steadface.gallery.index import Keys, Vectors
from steadface.gallery.index.engine import Engine, Mark
from steadface.gallery.index.follower import REMOVING, Ranked
from steadface.gallery.sealing import log
from steadface.gallery.sealing.transaction import Reader, Templates

EACH, LEAST = 4, 16
"""Templates asked for, for each person wanted, and at least."""
AT_ONCE = 2**13
"""Templates proposed at a time."""
LOOKED = 1.0
"""Seconds after which the mark is read again though nothing was written: somebody may have put back an older engine."""
MANY = 4096
"""Templates pushed in one go, behind which the engine may arrange them."""
FAR = 1000
"""Entries of a log, none of them of templates, after which the mark moves."""

Progress = Callable[[int, int], None]
"""Up to which number templates are in, and the highest."""
Reading = Callable[[], AbstractContextManager[Reader]]


class EngineFollower:
    """The engine that `make` opens when it is first needed, and the gallery's states as `reading` gives them."""

    def __init__(self, make: Callable[[], Engine], reading: Reading) -> None:
        self._make, self._reading = make, reading
        self._lock = Lock()
        self._engine: Engine | None = None
        self._sequence: int | None = None
        self._looked = 0.0
        self._pushed: int | None = None
        """The state as of which this process has pushed: whatever went since, it may have put back."""
        self._ahead = 0
        """The entry of the mark that was seen last."""

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._make()
        return self._engine

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()

    def catch_up(self, reader: Reader, *, seen: int = 0, anew: bool = False, progress: Progress | None = None) -> None:
        """Brings the engine to the state that is read, which was begun when a mark of entry `seen` was there.

        Raises `Conflict` where it holds somebody else's vectors, or those of another history of the gallery, unless all
        is to be put in `anew` then.
        """
        sequence = reader.last_sequence()
        with self._lock:
            if sequence == self._sequence and monotonic() - self._looked < LOOKED:
                return
            mark = self._marked(reader) or self._begun(reader)
            if sequence < seen or not _is_of_history(reader, mark):
                if not anew:
                    raise self._other_history(f"entry {mark.sequence} of its log was another")
                mark = self._begun(reader)
            self._ahead = mark.sequence
            self._push(reader, mark, progress)
            self._sequence, self._looked = sequence, monotonic()  # last: what fails above is done again

    def search(self, probes: Vectors, k: int) -> list[Ranked]:
        """For each of the unit `probes` (B, D) the `k` most similar people, each with the best of their templates."""
        best: list[Ranked] = [[] for _ in probes]
        short, most = np.arange(len(probes)), self.engine.most
        fetched = min(most, max(LEAST, EACH * k))
        while len(short):
            left = []
            for part in np.array_split(short, -(-len(short) * fetched // AT_ONCE)):
                for probe, ranked, all_seen in self._ranked(probes, part, fetched):
                    best[probe] = ranked[:k]
                    if len(ranked) < k and not all_seen:
                        left.append(probe)
            if fetched == most:
                break
            # Where several belong to one person, or are gone, more are asked for.
            short, fetched = np.array(left, dtype=np.int64), min(most, 4 * fetched)
        return best

    def _ranked(self, probes: Vectors, part: NDArray[np.int64], fetched: int) -> list[tuple[int, Ranked, bool]]:
        """Of a part of the probes the people among what the engine proposes, and whether it proposed all it has."""
        keys = self.engine.search(probes[part], fetched).keys
        proposed = np.unique(keys[keys > 0])
        with self._reading() as reader:
            if reader.last_sequence() < self._ahead:
                raise self._other_history(f"it was at entry {self._ahead} of its log")
            found = _living(reader, proposed)
        return [
            (int(probe), _distinct(found, own, probes[probe]), bool(own[-1] < 0))
            for probe, own in zip(part, keys, strict=True)
        ]

    def _marked(self, reader: Reader) -> Mark | None:
        """The engine's mark. Raises `Conflict` where it is another gallery's, or vectors are there without any."""
        mark = self.engine.mark()
        if mark is None and len(self.engine):
            mark = self.engine.mark()  # somebody else may just have begun
            if mark is None:
                raise Conflict(
                    f"the index {self.engine.name} holds vectors that no gallery has put there; name another one, or "
                    "empty it"
                )
        if mark is not None and mark.gallery != reader.vault.gallery:
            raise Conflict(
                f"the index {self.engine.name} belongs to the gallery of the id {mark.gallery}, and this one has "
                f"{reader.vault.gallery} (`steadface gallery info`); name another index for it"
            )
        return mark

    def _push(self, reader: Reader, mark: Mark, progress: Progress | None) -> None:
        """What came and what went since the mark; that moves with each block, so that a long push can be taken up."""
        engine, template, brought = self.engine, mark.template, 0
        since = mark.sequence if self._pushed is None else min(mark.sequence, self._pushed)
        entries = reader.entries(after=since, events=REMOVING)
        gone = [number for entry in entries for number in log.named(entry, "removed")]
        if gone:
            engine.remove(gone)
        self._pushed = reader.last_sequence()
        for block in reader.templates(after=template):
            engine.add(block.numbers, block.vectors)
            template = int(block.numbers[-1])
            engine.put_mark(_mark_of(reader, template))
            if progress is not None:
                progress(template, reader.rows.numbers().templates)
            brought += len(block.numbers)
        if brought >= MANY:
            engine.arrange()
        if template == mark.template and (gone or self._pushed > mark.sequence + FAR):
            engine.put_mark(_mark_of(reader, template))

    def _begun(self, reader: Reader) -> Mark:
        """The first mark, before the first vector: one that is found without a mark is somebody else's."""
        self._pushed = reader.last_sequence()
        mark = _mark_of(reader, 0)
        self.engine.put_mark(mark)
        return mark

    def _other_history(self, what: str) -> Conflict:
        return Conflict(
            f"the index {self.engine.name} followed this gallery in another history ({what}), as where an older "
            "copy took the gallery's place: bring it right with `steadface gallery check-index --mend`"
        )


def _mark_of(reader: Reader, template: int) -> Mark:
    last = reader.rows.last_entry()
    assert last is not None  # a log begins when the gallery does
    return Mark(gallery=reader.vault.gallery, sequence=last.sequence, head=last.hash.hex(), template=template)


def _is_of_history(reader: Reader, mark: Mark) -> bool:
    """Whether the log has the entry of the mark. One behind the state that is read may be there by now, which the next
    state tells.
    """
    if mark.sequence > reader.last_sequence():
        return True
    entry = next(reader.entries(after=mark.sequence - 1), None)
    return entry is not None and entry.hash.hex() == mark.head


def _living(reader: Reader, numbers: Keys) -> Templates:
    """Those of the templates that are still there, and whose person has not expired."""
    found = reader.these(numbers.tolist())
    people = reader.people(numbers=set(found.owners.tolist()))
    kept = np.isin(found.owners, [person.number for person in people if not person.expired(reader.now)])
    return Templates(numbers=found.numbers[kept], owners=found.owners[kept], vectors=found.vectors[kept])


def _distinct(found: Templates, proposed: Keys, probe: NDArray[np.float32]) -> Ranked:
    """The owners of those that are proposed, most similar first, each with the best of them."""
    places = np.flatnonzero(np.isin(found.numbers, proposed))
    if not len(places):
        return []
    cosines = found.vectors[places] @ probe
    best: dict[int, tuple[int, float, int]] = {}
    for rank in np.argsort(-cosines, kind="stable").tolist():
        owner, number = int(found.owners[places[rank]]), int(found.numbers[places[rank]])
        best.setdefault(owner, (owner, float(cosines[rank]), number))
    return list(best.values())
