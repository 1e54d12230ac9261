"""What a place for a gallery does: it keeps sealed rows and the log of what was done to them, and loses neither.

A storage knows no keys, names or vectors: rows come sealed, and it compares nothing but what stands here. Each package
below implements `Storage` for one database. What is promised to everybody, for a storage to keep:

- A transaction is there as a whole once `writing` returns, whatever befalls process or machine, or it has no effect.
- `reading` sees one state throughout and waits for no writer; `writing` waits for other writers.
- Numbers of people and of templates only grow, and none is used again.
- What cannot be done raises `SteadfaceError`: `Unavailable` where it is locked, full or unreachable, `InvalidInput`
  where it is damaged or something else, `NotFound` and `Conflict` where nothing is there or something is already.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from steadface.arguments import Shard
from steadface.errors import Conflict, InvalidInput, quoted, short

DIMENSIONS = 2**16
"""Numbers of a template, at most: a hundred times what models make, of which an empty index takes little memory yet."""
FINGERPRINT = 200
"""Characters."""
TIMEOUT = 10.0
"""Seconds to wait for others who write."""
LONGEST = 2**25
"""Bytes of one value: far more than a template, a note or an entry of the log takes."""
MODEL = 2**16
"""Characters of what a header tells of its model: the longest name of a contract takes 49,152 as JSON."""
ASKED = 500
"""Tags of people that are asked for at once: SQLite takes each by itself, and a thousand of them at most."""
NUMBERS = 2**53
"""What numbers of rows stay below."""
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


def written_model(model: ModelIdentity) -> str:
    """As a header has it, in ASCII. Raises `InvalidInput` where that is too long."""
    text = json.dumps(asdict(model))
    if len(text) > MODEL:
        raise InvalidInput(f"the name of the model, {quoted(model.name)}, is too long; give a shorter one")
    return text


def read_model(text: str, gallery: str) -> ModelIdentity:
    """What `written_model` wrote. Raises as `damaged` says for anything else."""
    try:
        if len(text) > MODEL:
            raise ValueError("it is too long")
        return model_identity(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise damaged(gallery, f"its header tells of no model, {short(str(error))}") from None


def damaged(gallery: str, what: str) -> InvalidInput:
    """What is raised where the gallery of that name holds what none has written."""
    return InvalidInput(f"the gallery {gallery} is damaged or was changed by other means ({what}): {RESTORE}")


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

    @classmethod
    def of(cls, columns: Iterable[Any]) -> "Entry":
        """From the columns of a row, in this order."""
        return cls(**dict(zip(cls.__dataclass_fields__, columns, strict=True)))


class Numbers(NamedTuple):
    """The highest that people and templates ever had, whether they are there or gone."""

    people: int
    templates: int


NONE = Numbers(0, 0)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a storage keeps: of a new gallery, or of one that is copied, whose rows and `numbers` stay as they were.

    Rows and entries may come one by one, ascending.
    """

    header: Header
    entries: Iterable[Entry]
    people: Iterable[PersonRow] = ()
    templates: Iterable[TemplateRow] = ()
    numbers: Numbers = NONE


class Snapshot(Protocol):
    """One state of a storage."""

    def header(self) -> Header: ...

    def people(
        self,
        *,
        after: int = 0,
        tags: Collection[bytes] | None = None,
        ids: Collection[str] | None = None,
        numbers: Collection[int] | None = None,
        expired_by: str | None = None,
    ) -> Iterator[PersonRow]:
        """Those of whom all is true that is asked, by ascending number; who has no expiry never expires. No more `tags`
        than `ASKED`.
        """
        ...

    def count_people(self, *, expired_by: str | None = None) -> int: ...

    def next_expiry(self, after: str) -> str | None:
        """The first expiry that is later."""
        ...

    def templates(
        self,
        *,
        after: int = 0,
        person: int | None = None,
        numbers: Collection[int] | None = None,
        shard: Shard | None = None,
    ) -> Iterator[TemplateRow]:
        """Those of whom all is true that is asked, by ascending number: above `after`, of the person of that number, of
        these numbers, and of the people of a shard (those whose numbers leave the shard's when they are divided by the
        number of shards).
        """
        ...

    def count_templates(self) -> int: ...

    def numbers(self) -> Numbers:
        """Raises `InvalidInput` where what keeps count is damaged."""
        ...

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


def check_unused(rows: Snapshot, head: str, gallery: str) -> None:
    """Raises `Conflict` where the log does not end with the entry of that hash (hex)."""
    if (last := rows.last_entry()) is None or last.hash.hex() != head:
        raise Conflict(f"the gallery {gallery} was used by somebody else meanwhile, and stays")


def contents_of(rows: Snapshot) -> Contents:
    """All that there is in one state, to be read while that lasts."""
    return Contents(
        header=rows.header(),
        entries=rows.entries(),
        people=rows.people(),
        templates=rows.templates(),
        numbers=rows.numbers(),
    )


class Transaction(Snapshot, Protocol):
    """Changes, which are seen by the reading methods at once and by others when it ends. What cannot be done is told at
    once, by the next reading method, or when it ends, and then nothing of it is done.
    """

    def write_header(self, header: Header) -> None: ...

    def put_person(self, row: PersonRow) -> int:
        """Adds somebody (number 0), or replaces the row of that number; the number. It cannot be done where `id` or
        `tag` is somebody else's.
        """
        ...

    def reseal_people(self, rows: Iterable[PersonRow]) -> None:
        """Replaces what is sealed of the people of these numbers."""
        ...

    def delete_person(self, number: int) -> None:
        """Their templates have to be gone before."""
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

    It is made closed, and may be opened anew after `close`; while it is closed only what is asked or done about a place
    (`exists`, `check_free`, `create`, `destroy`, `open` and `close`) does anything, and all else raises `Unavailable`.
    """

    @property
    def name(self) -> str:
        """What messages call it: a path or an address, without passwords."""
        ...

    @property
    def remains(self) -> str:
        """What may be left of what was deleted, where and for how long, as a sentence for those who deleted it; empty
        where nothing is once `scrub` has returned.
        """
        ...

    def exists(self) -> bool:
        """Whether there is something to be opened; it may still be no gallery."""
        ...

    def check_free(self) -> None:
        """Raises `Conflict` where something is there already."""
        ...

    def create(self, contents: Contents) -> None:
        """A gallery that holds these, or nothing at all. Raises as `check_free` does."""
        ...

    def destroy(self, head: str) -> None:
        """Takes all of it away, the gallery being closed here. Raises `Conflict`, and does nothing, where its log does
        not end with the entry of that hash (hex): somebody else uses it.
        """
        ...

    def open(self) -> None:
        """Raises `NotFound` where there is none, and `Conflict` where this is open already."""
        ...

    def check_open(self) -> None: ...

    def reading(self) -> AbstractContextManager[Snapshot]: ...

    def writing(self) -> AbstractContextManager[Transaction]: ...

    def wait(self, seconds: float) -> None:
        """Returns when something may have been written since this was last called, at the latest after so many seconds.
        For one thread; it may hear of nothing.
        """
        ...

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
