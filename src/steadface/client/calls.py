"""Every request that a service answers, described once, however it is sent."""

import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, BinaryIO, Generic, Literal, TypeVar
from urllib.parse import quote

from steadface.client import answers, reading
from steadface.errors import InvalidInput, unreadable
from steadface.files import open_file

Answered = TypeVar("Answered", covariant=True)
Picture = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of a file, or a file opened with `"rb"`."""
Repeat = Literal["safe", "refused"]
"""Whether a request may be made again whatever became of it, or only where it is known that nothing was done."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[Answered]):
    """One request. `words` go into the body, beside the `pictures` or as JSON; `request` is its `Idempotency-Key`."""

    method: str
    path: str
    read: Callable[[Any], Answered]
    query: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[tuple[str, bytes]] = ()
    request: str | None = None
    repeat: Repeat = "safe"


def detect(image: Picture, *, aligned: bool = False, collection: str | None = None) -> Call[answers.Detection]:
    """Finds all faces in a picture."""
    return _recognition("detect", reading.detection, _parts(image=[image]), collection, aligned=aligned)


def verify(
    first: Picture,
    second: Picture,
    *,
    fmr: float | None = None,
    aligned: bool = False,
    collection: str | None = None,
) -> Call[answers.Verification]:
    """Do two pictures show one person, at the threshold of `fmr` (1e-3 if nothing is said)?"""
    pictures = _parts(first=[first], second=[second])
    return _recognition("verify", reading.verification, pictures, collection, fmr=fmr, aligned=aligned)


def identify(
    image: Picture,
    *,
    fmr: float | None = None,
    fpir: float | None = None,
    top: int | None = None,
    aligned: bool = False,
    collection: str | None = None,
) -> Call[answers.Identification]:
    """Who of the enrolled is in a picture? Give `fmr`, or `fpir`, the chance that a stranger is taken for anybody."""
    words = {"fmr": fmr, "fpir": fpir, "top": top, "aligned": aligned}
    return _recognition("identify", reading.identification, _parts(image=[image]), collection, **words)


def embed(
    images: Iterable[Picture], *, aligned: bool = False, collection: str | None = None
) -> Call[answers.Embeddings]:
    """Unit embeddings of the largest face of each picture, for keys with that right."""
    return _recognition("embed", reading.embeddings, _parts(images=images), collection, aligned=aligned)


def enroll(
    name: str,
    images: Iterable[Picture],
    *,
    consent: str | None = None,
    expires: date | str | None = None,
    check: bool = True,
    aligned: bool = False,
    collection: str | None = None,
    request: str | None = None,
) -> Call[answers.Enrolment]:
    """Adds a template of one or more pictures of a person, new or enrolled already: all of them, or nothing.

    `request` is the `Idempotency-Key`, a random one of each call if left out: however often the call is sent, it is
    done once. Give one of your own to go on with a call after a restart, within a day.
    """
    words = {"name": name, "consent": consent, "expires": _day(expires), "check": check, "aligned": aligned}
    return _enrolment("/v1/people", images, words, collection, request)


def add_template(
    person: str,
    images: Iterable[Picture],
    *,
    check: bool = True,
    aligned: bool = False,
    collection: str | None = None,
    request: str | None = None,
) -> Call[answers.Enrolment]:
    """Adds one more template to somebody enrolled, by their id. `request` as in `enroll`."""
    path = f"/v1/people/{_part(person)}/templates"
    return _enrolment(path, images, {"check": check, "aligned": aligned}, collection, request)


def people_page(
    *, after: int = 0, limit: int = 100, search: str = "", collection: str | None = None
) -> Call[tuple[list[answers.Person], int | None]]:
    """At most so many of those enrolled behind that number, and the number that the next page is after."""
    query = _given(collection=collection, after=after or None, limit=limit, search=search or None)
    return Call(method="GET", path="/v1/people", read=reading.page, query=query)


def person(person: str, *, collection: str | None = None) -> Call[answers.Person]:
    """Somebody enrolled, by their id, with the numbers of their templates."""
    return _of_person("GET", person, reading.person, collection)


def rename(person: str, name: str, *, collection: str | None = None) -> Call[answers.Person]:
    """Gives somebody another name, by their id."""
    return _of_person("PATCH", person, reading.person, collection, words={"name": name})


def remove(person: str, *, collection: str | None = None) -> Call[answers.Receipt]:
    """Removes somebody, by their id. Where the connection breaks nobody knows whether it was done: ask for them."""
    return _of_person("DELETE", person, reading.receipt, collection, repeat="refused")


def remove_template(person: str, template: int, *, collection: str | None = None) -> Call[answers.Person]:
    """Removes one template of somebody who has others; the person without it. Of broken connections as `remove`."""
    path = f"/v1/people/{_part(person)}/templates/{template:d}"
    return Call(method="DELETE", path=path, read=reading.person, query=_given(collection=collection), repeat="refused")


def model(*, collection: str | None = None) -> Call[answers.Model]:
    """The model of a collection, and which similarity stands for which rate."""
    return Call(method="GET", path="/v1/model", read=reading.model, query=_given(collection=collection))


def collections() -> Call[tuple[answers.Collection, ...]]:
    """Those that the key may use."""
    return Call(method="GET", path="/v1/collections", read=reading.collections)


def log(*, after: int = 0, limit: int = 100, collection: str | None = None) -> Call[answers.Log]:
    """A page of what was done to a gallery, oldest first, behind the entry of that number."""
    query = _given(collection=collection, after=after or None, limit=limit)
    return Call(method="GET", path="/v1/log", read=reading.log, query=query)


def expire(*, collection: str | None = None) -> Call[tuple[answers.Receipt, ...]]:
    """Removes everybody whose consent has expired, or whom nobody met for too long."""
    return Call(
        method="POST",
        path="/v1/expire",
        read=reading.receipts,
        query=_given(collection=collection),
        repeat="refused",
    )


def keys() -> Call[tuple[answers.ApiKey, ...]]:
    """All API keys, without what opens anything."""
    return Call(method="GET", path="/v1/keys", read=reading.api_keys)


def make_key(
    name: str,
    scopes: Iterable[str],
    *,
    collections: Iterable[str] | None = None,
    shows: Literal["decision", "rounded", "full"] | None = None,
    rate: int | None = None,
    probes: int | None = None,
    expires: date | str | None = None,
) -> Call[answers.ApiKey]:
    """A new key; its `key` is in this answer and never again."""
    named = None if collections is None else list(collections)
    limits = {"shows": shows, "rate": rate, "probes": probes, "expires": _day(expires)}
    words = _given(name=name, scopes=list(scopes), collections=named, **limits)
    return Call(method="POST", path="/v1/keys", read=reading.api_key, words=words, repeat="refused")


def rotate_key(identity: str) -> Call[answers.ApiKey]:
    """Another secret for a key, by its id; the old one opens nothing any more."""
    path = f"/v1/keys/{_part(identity)}/rotate"
    return Call(method="POST", path=path, read=reading.api_key, repeat="refused")


def revoke_key(identity: str) -> Call[answers.ApiKey]:
    """Takes a key away, by its id, at once."""
    path = f"/v1/keys/{_part(identity)}"
    return Call(method="DELETE", path=path, read=reading.api_key, repeat="refused")


def live() -> Call[bool]:
    """Whether the process answers; raises Unavailable where it does not."""
    return Call(method="GET", path="/v1/health/live", read=lambda told: bool(told["status"] == "live"))


def ready() -> Call[bool]:
    """Whether all collections are open and there is room for a request; raises Unavailable where not."""
    return Call(method="GET", path="/v1/health/ready", read=lambda told: bool(told["status"] == "ready"))


def picture_bytes(picture: Picture) -> bytes:
    """Raises SteadfaceError for what cannot be read, and for what is no picture in any of these forms."""
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture)
    if isinstance(picture, str | os.PathLike):
        try:
            with open_file(picture) as file:
                return file.read()
        except OSError as error:
            raise unreadable(error, f"{os.fspath(picture)} cannot be read: {error.strerror}; check the path") from None
    data = picture.read() if hasattr(picture, "read") else None
    if not isinstance(data, bytes):
        raise InvalidInput(
            f"a picture is a {type(picture).__name__}; give a path, the bytes of a file, or a file opened with 'rb'"
        )
    return data


def _recognition(
    what: str,
    read: Callable[[Any], Answered],
    pictures: Sequence[tuple[str, bytes]],
    collection: str | None,
    **words: Any,
) -> Call[Answered]:
    query = _given(collection=collection)
    return Call(method="POST", path=f"/v1/{what}", read=read, query=query, words=_given(**words), pictures=pictures)


def _enrolment(
    path: str, images: Iterable[Picture], words: Mapping[str, Any], collection: str | None, request: str | None
) -> Call[answers.Enrolment]:
    return Call(
        method="POST",
        path=path,
        read=reading.enrolment,
        query=_given(collection=collection),
        words=_given(**words),
        pictures=_parts(images=images),
        request=request or str(uuid.uuid4()),
    )


def _of_person(
    method: str, person: str, read: Callable[[Any], Answered], collection: str | None, **more: Any
) -> Call[Answered]:
    path = f"/v1/people/{_part(person)}"
    return Call(method=method, path=path, read=read, query=_given(collection=collection), **more)


def _parts(**pictures: Iterable[Picture]) -> Sequence[tuple[str, bytes]]:
    return [(name, picture_bytes(one)) for name, several in pictures.items() for one in _several(several)]


def _several(pictures: Iterable[Picture]) -> Iterable[Picture]:
    """One that could be gone through, a path or bytes, is one."""
    one = isinstance(pictures, str | os.PathLike | bytes | bytearray | memoryview) or hasattr(pictures, "read")
    return [pictures] if one else pictures  # type: ignore[list-item]


def _given(**words: Any) -> dict[str, Any]:
    return {name: value for name, value in words.items() if value is not None}


def _part(text: str) -> str:
    """Of a path. Raises InvalidInput for what would be another path."""
    if text in ("", ".", ".."):
        raise InvalidInput(f"{text!r} is no id; give that of a person or key, as the service tells it")
    return quote(text, safe="")


def _day(expires: date | str | None) -> str | None:
    """Raises InvalidInput for a time without its zone, which means another one elsewhere."""
    if isinstance(expires, datetime) and expires.tzinfo is None:
        raise InvalidInput(f"the expiry {expires} names no time zone; give one, e.g. tzinfo=UTC")
    return expires.isoformat() if isinstance(expires, date) else expires
