"""What a service answers, as types. `raw` is the JSON as it came, with fields that are newer than this client as well.

Similarities are None where the API key may not see them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Self

Json = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What all of them have."""

    raw: Json = field(repr=False, compare=False)

    @classmethod
    def of(cls, told: Json, **read: Any) -> Self:
        """Of JSON: fields of the same names, and in place of those what was `read` of them already."""
        names = {one.name for one in fields(cls)} - {"raw"}
        return cls(raw=told, **{name: told[name] for name in names & told.keys()} | read)


@dataclass(frozen=True, kw_only=True)
class FaceSeen(Answer):
    """A face in a picture: `box` (left, top, right, bottom) and `landmarks` in its pixels, None of an aligned face."""

    box: tuple[float, ...] | None = None
    landmarks: tuple[tuple[float, ...], ...] | None = None
    score: float | None = None
    quality: Json | None = None
    match: bool = False
    person: str | None = None
    similarity: float | None = None
    candidates: tuple["Candidate", ...] = ()
    guard: Json | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate(Answer):
    """Somebody enrolled who resembles a face; whether they match says the face's `match`."""

    person: str
    similarity: float | None = None


@dataclass(frozen=True, kw_only=True)
class Detection(Answer):
    """All faces of a picture of `width` x `height`, largest first."""

    width: int
    height: int
    faces: tuple[FaceSeen, ...]


@dataclass(frozen=True, kw_only=True)
class Verification(Answer):
    """Whether two pictures show one person: `match` iff `similarity` >= `threshold`, which stands for `fmr`."""

    match: bool
    threshold: float
    fmr: float | None = None
    similarity: float | None = None
    threshold_interval: tuple[float, ...] | None = None
    faces: tuple[FaceSeen, ...] = ()
    guard: Json | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Identification(Answer):
    """Who is in a picture, among `enrolled` people; a face of nobody has no `person`."""

    match: bool
    threshold: float
    faces: tuple[FaceSeen, ...]
    enrolled: int
    fmr: float | None = None
    fpir: float | None = None
    similarity: float | None = None
    threshold_interval: tuple[float, ...] | None = None
    width: int
    height: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Embeddings(Answer):
    """Unit embeddings of the largest face of each picture."""

    embeddings: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Enrolment(Answer):
    """Who was enrolled, with which `template`, of the `templates` that they have now. Where it is `repeated` an earlier
    try of the same call had done so, and less is known of it.
    """

    person: str
    id: str
    template: int
    templates: int
    repeated: bool = False
    images: int | None = None
    added: bool | None = None
    agreement: float | None = None
    similarity: float | None = None
    resembles: tuple[Candidate, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Person(Answer):
    """Somebody enrolled; `template_list` has the numbers of their templates where they were asked for alone."""

    person: str
    id: str
    templates: int
    enrolled: datetime
    expires: datetime | None = None
    expired: bool = False
    consent: str | None = None
    notes: str | None = None
    template_list: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Receipt(Answer):
    """That somebody was removed; `entry` is the hash of the log's entry, which `verify-log --head` confirms."""

    person: str
    event: str
    time: str
    entry: str


@dataclass(frozen=True, kw_only=True)
class Model(Answer):
    """The model of a collection; `thresholds` say which similarity stands for which rate, None if not calibrated."""

    name: str
    space: str | None = None
    calibration: str | None = None
    thresholds: Json | None = None


@dataclass(frozen=True, kw_only=True)
class Collection(Answer):
    """One that the key may use; `days` is how long people stay in it, `people` and `templates` count them."""

    name: str
    model: str
    calibration: str | None = None
    people: int | None = None
    templates: int | None = None
    days: float | None = None


@dataclass(frozen=True, kw_only=True)
class LogEntry(Answer):
    """What was done, to whose random id."""

    entry: int
    time: str
    event: str
    person: str | None = None
    details: Json
    hash: str


@dataclass(frozen=True, kw_only=True)
class Log(Answer):
    """A page of the log; `next` is what the page behind it is `after`, `last` and `head` number and hash of the log's
    last entry.
    """

    entries: tuple[LogEntry, ...]
    next: int | None = None
    last: int
    head: str


@dataclass(frozen=True, kw_only=True)
class ApiKey(Answer):
    """A key without what opens anything; `key` is that, where it was just made or rotated, and is in no `repr`."""

    id: str
    name: str
    scopes: tuple[str, ...]
    collections: tuple[str, ...]
    shows: str
    rate: int
    probes: int
    created: datetime
    expires: datetime | None = None
    expired: bool = False
    key: str | None = field(default=None, repr=False)


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
