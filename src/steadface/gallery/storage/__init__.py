"""What a place for a gallery does: it keeps sealed rows and the log of what was done to them, and loses neither.

A storage knows no keys, names or vectors: rows come sealed, and it compares nothing but what stands here. Each package
below implements `Storage` for one database. What is promised to everybody, for a storage to keep:

- A transaction is there as a whole once `writing` returns, whatever befalls process or machine, or it has no effect.
- `reading` sees one state throughout and waits for no writer; `writing` waits for other writers.
- Numbers of people and of templates only grow, and none is used again.
- What cannot be done raises `SteadfaceError`: `Unavailable` where it is locked, full or unreachable, `InvalidInput`
  where it is damaged or something else, `NotFound` and `Conflict` where nothing is there or something is already.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from steadface.errors import Conflict

DIMENSIONS = 2**16
"""Numbers of a template, at most: a hundred times what models make, of which an empty index takes little memory yet."""
FINGERPRINT = 200
"""Characters."""
RESTORE = "restore a backup (`steadface gallery backup` makes them)"


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """What makes templates comparable: the `fingerprint` (hex SHA-256) of weights and input convention, the `dimension`
    of the unit vectors, and whether image and `mirror` image are summed. `name` is for messages alone.
    """

    fingerprint: str
    dimension: int
    mirror: bool
    name: str = ""


def model_identity(told: object) -> ModelIdentity:
    """What was written down of one. Raises ValueError for anything else."""
    if not isinstance(told, dict) or told.keys() != {"fingerprint", "dimension", "mirror", "name"}:
        raise ValueError("its parts are others")
    fingerprint, dimension, mirror, name = (told[part] for part in ("fingerprint", "dimension", "mirror", "name"))
    if not isinstance(fingerprint, str) or not isinstance(name, str) or not isinstance(mirror, bool):
        raise ValueError("a part of it is of another type")
    if not 0 < len(fingerprint) <= FINGERPRINT or not fingerprint.isprintable():
        raise ValueError("its fingerprint is none")
    if type(dimension) is not int or not 0 < dimension <= DIMENSIONS:
        raise ValueError(f"its templates are not of 1 to {DIMENSIONS} numbers")
    return ModelIdentity(fingerprint=fingerprint, dimension=dimension, mirror=mirror, name=name)


def same_model(one: ModelIdentity, other: ModelIdentity) -> bool:
    """Whatever they are called."""
    return (one.fingerprint, one.dimension, one.mirror) == (other.fingerprint, other.dimension, other.mirror)


def described(model: ModelIdentity) -> str:
    mirrored = "with mirror images" if model.mirror else "without mirror images"
    return (
        f"the model {model.name or 'without a name'} ({model.fingerprint[:12]}, {model.dimension} numbers, {mirrored})"
    )


def check_model(own: ModelIdentity, model: ModelIdentity | None, gallery: str) -> None:
    """Raises `Conflict` where the templates of the gallery of that name come from another model, its `own`."""
    if model is not None and not same_model(own, model):
        raise Conflict(
            f"the gallery {gallery} holds templates of {described(own)}, and this is {described(model)}; vectors "
            "of two models cannot be compared: use the gallery's model, or bring the gallery over with `steadface "
            "gallery re-embed`"
        )


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a gallery says of itself: random `id`, `model`, the `key`'s id, the sealed `secret`; `owed` where something
    was deleted of which traces may be left.
    """

    id: str
    created: str
    model: ModelIdentity
    key: str
    secret: bytes
    owed: bool


class PersonRow(NamedTuple):
    """Times are ISO 8601 in UTC, which sort as text; `tag` is what a name is looked up by; `templates` counts them."""

    number: int
    id: str
    tag: bytes
    created: str
    expires: str | None
    sealed: bytes
    templates: int


class TemplateRow(NamedTuple):
    """`person` is the number of the owner and `owner` their id, None where there is nobody of that number."""

    number: int
    person: int
    owner: str | None
    sealed: bytes


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the log; `details` is JSON as it was written, `person` a random id."""

    sequence: int
    time: str
    event: str
    person: str | None
    details: str
    previous: bytes
    hash: bytes


class Snapshot(Protocol):
    """One state of a storage."""

    def header(self) -> Header: ...

    def people(
        self,
        *,
        after: int = 0,
        tag: bytes | None = None,
        ids: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        expired_by: str | None = None,
    ) -> Iterator[PersonRow]:
        """Those of whom all is true that is asked, by ascending number; who has no expiry never expires."""
        ...

    def count_people(self, *, expired_by: str | None = None) -> int: ...

    def next_expiry(self, after: str) -> str | None:
        """The first expiry that is later."""
        ...

    def templates(self, *, after: int = 0, person: int | None = None) -> Iterator[TemplateRow]:
        """Those of higher numbers than `after`, ascending; of one person where that number is given."""
        ...

    def count_templates(self) -> int: ...

    def entries(
        self, *, after: int = 0, events: Collection[str] | None = None, person: str | None = None
    ) -> Iterator[Entry]:
        """The log behind the entry `after`, in order; only of these events, or of the person of that id."""
        ...

    def last_entry(self) -> Entry | None:
        """None where the log is empty, which it is only where somebody emptied it."""
        ...

    def size(self) -> int:
        """Bytes that all of it takes."""
        ...

    def check(self) -> None:
        """Raises `InvalidInput` where what is kept is damaged; reads all of it."""
        ...


class Transaction(Snapshot, Protocol):
    """Changes, which are seen by the reading methods at once and by others when it ends."""

    def write_header(self, header: Header) -> None: ...

    def put_person(self, row: PersonRow) -> int:
        """Adds somebody (number 0), or replaces the row of that number; the number. Raises where `id` or `tag` is
        somebody else's.
        """
        ...

    def delete_person(self, number: int) -> None:
        """Their templates have to be gone before."""
        ...

    def next_template(self) -> int:
        """The number behind all that there ever were."""
        ...

    def add_templates(self, rows: Iterable[TemplateRow]) -> None: ...

    def reseal_templates(self, rows: Iterable[TemplateRow]) -> None:
        """Replaces what is sealed of the templates of these numbers."""
        ...

    def delete_templates(self, numbers: Collection[int]) -> None: ...

    def append(self, entry: Entry) -> None:
        """Adds to the log."""
        ...


@runtime_checkable
class Storage(Protocol):
    """A place for one gallery, safe for several threads.

    It is made closed, and may be opened anew after `close`; while it is closed only `check_free`, `create`, `open` and
    `close` do anything, and all else raises `Unavailable`.
    """

    @property
    def name(self) -> str:
        """What messages call it: a path or an address, without passwords."""
        ...

    def check_free(self) -> None:
        """Raises `Conflict` where something is there already."""
        ...

    def create(self, header: Header, first: Entry) -> None:
        """An empty gallery whose log begins with `first`, or nothing at all. Raises as `check_free` does."""
        ...

    def open(self) -> None:
        """Raises `NotFound` where there is none, and `Conflict` where this is open already."""
        ...

    def check_open(self) -> None: ...

    def reading(self) -> AbstractContextManager[Snapshot]: ...

    def writing(self) -> AbstractContextManager[Transaction]: ...

    def exclusive(self) -> AbstractContextManager[object]:
        """No other thread of this process reads or writes meanwhile; the one that holds it may do both."""
        ...

    def scrub(self, traces: Sequence[bytes] | None = None) -> None:
        """Leaves no copy of these byte strings (None: of anything that was deleted); then nothing is `owed`.

        Where this fails a warning says why, what was deleted stays so, and it is still owed.
        """
        ...

    def backup(self, target: Path) -> None:
        """Copies all of it into one file that `Gallery.open` takes, while it is in use. Raises `Conflict` where there
        is a file already, and `Unsupported` where the database has means of its own.
        """
        ...

    def close(self) -> None:
        """Does nothing where it is closed already."""
        ...
