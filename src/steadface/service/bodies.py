"""What a request carries: pictures and words, multipart, raw or JSON, bounded before it is looked at.

Pictures stay in memory: nothing of a body is ever written to a disk. A URL or a path of the server is no picture.
"""

import asyncio
import base64
import binascii
import io
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import PIL.Image
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from steadface.errors import InvalidInput, short
from steadface.faces.photograph import Photograph, read_photograph
from steadface.service.problems import TooLarge, TooSlow, WrongMedia

MOST_WORDS = 100
MOST_LISTED = 1000
"""Entries of a body that is a list."""
LONGEST_WORD = 2**16
"""Bytes of one field that is no picture."""
RAW = re.compile(r"image/[\w.+-]+|application/octet-stream")


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of one request: `body` in bytes, the `pictures` in it, the `pixels` of each, `faces` looked at, and `seconds` in
    which the body has to arrive.
    """

    body: int = 16 * 2**20
    pictures: int = 20
    pixels: int = 24_000_000
    faces: int = 32
    seconds: float = 30.0


@dataclass(frozen=True, kw_only=True)
class Body:
    """Encoded pictures by the name of their field, and all other fields."""

    pictures: Mapping[str, Sequence[bytes]]
    words: Mapping[str, Any]


class Options(BaseModel):
    """What a request says besides its pictures; texts of forms and queries are read as what they stand for."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Asked = TypeVar("Asked", bound=Options)


async def read_body(request: Request, fields: Sequence[str], bounds: Bounds) -> Body:
    """Pictures in the `fields`; a raw body is that of the first. Words may also stand in the query, where no picture
    may. Raises SteadfaceError for a body that is too large, slow, of another kind or damaged.
    """
    kind, _, _ = request.headers.get("content-type", "").lower().partition(";")
    async with _in_time(bounds):
        if kind == "multipart/form-data":
            found = await _form(request, fields, bounds)
        else:
            found = _plain(kind, await _whole(request, bounds), fields)
    if sum(map(len, found.pictures.values())) > bounds.pictures:
        raise TooLarge(f"more than {bounds.pictures} pictures; send fewer at once")
    return Body(pictures=found.pictures, words={**request.query_params, **found.words})


async def read_list(request: Request, bounds: Bounds) -> list[Any]:
    """A body that is a list in JSON, of at most `MOST_LISTED`. Raises SteadfaceError as `read_body` does."""
    async with _in_time(bounds):
        data = await _whole(request, bounds)
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, list):
        raise InvalidInput("the body is no list of JSON; send one")
    if len(told) > MOST_LISTED:
        raise TooLarge(f"the list has {len(told):,} entries; send at most {MOST_LISTED:,} at once")
    return told


def options(kind: type[Asked], words: Mapping[str, Any]) -> Asked:
    """Raises InvalidInput, which names the first that cannot be."""
    try:
        return kind.model_validate(dict(words))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        known = ", ".join(kind.model_fields) or "none"
        what = "is not known here" if first["type"] == "extra_forbidden" else short(first["msg"], 200)
        raise InvalidInput(f"{short(place)}: {what} (options: {known})") from None


def one_picture(body: Body, field: str, bounds: Bounds) -> Photograph:
    """Raises SteadfaceError where there is none, or more than one."""
    several = body.pictures.get(field, ())
    if len(several) != 1:
        raise InvalidInput(f"{field}: there are {len(several)} pictures; send exactly one")
    return photograph(several[0], field, bounds)


def all_pictures(body: Body, field: str, bounds: Bounds) -> list[Photograph]:
    """Raises SteadfaceError where there is none."""
    several = body.pictures.get(field, ())
    if not several:
        raise InvalidInput(f"{field}: there is no picture; send one or more")
    return [photograph(data, f"{field}[{place}]", bounds) for place, data in enumerate(several)]


def photograph(data: bytes, name: str, bounds: Bounds) -> Photograph:
    """Decoded, once its header says that it is not too large. Raises SteadfaceError."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as picture:
            width, height = picture.size
    except Exception:  # the decoder of all formats says what it is
        width = height = 0
    if width * height > bounds.pixels:
        raise TooLarge(
            f"{name} has {width} x {height} pixels; this service takes {bounds.pixels / 1e6:g} million: send it smaller"
        )
    return read_photograph(data, name=name)


@asynccontextmanager
async def _in_time(bounds: Bounds) -> AsyncIterator[None]:
    """Raises TooSlow."""
    try:
        async with asyncio.timeout(bounds.seconds):
            yield
    except TimeoutError:
        raise TooSlow(f"the body did not arrive within {bounds.seconds:g} s; send it faster, or less of it") from None


async def _whole(request: Request, bounds: Bounds) -> bytes:
    return b"".join([part async for part in _bounded(request, bounds)])


async def _bounded(request: Request, bounds: Bounds) -> AsyncGenerator[bytes, None]:
    """The body as it comes. Raises TooLarge as soon as that is known."""
    said = request.headers.get("content-length", "0")
    left = bounds.body - (int(said) if said.isdecimal() and len(said) < 20 else 0)
    if left < 0:
        raise TooLarge(f"the body has {said} bytes; this service takes {bounds.body}: send smaller or fewer pictures")
    left = bounds.body
    async for part in request.stream():
        left -= len(part)
        if left < 0:
            raise TooLarge(f"the body has more than {bounds.body} bytes: send smaller or fewer pictures")
        yield part


class _InMemory(MultiPartParser):
    spool_max_size = 2**31


async def _form(request: Request, fields: Sequence[str], bounds: Bounds) -> Body:
    parser = _InMemory(
        request.headers,
        _bounded(request, bounds),
        max_files=bounds.pictures,
        max_fields=MOST_WORDS,
        max_part_size=LONGEST_WORD,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        kind = TooLarge if "Too many" in error.message or "exceeded" in error.message else InvalidInput
        raise kind(f"the form cannot be read: {error.message}") from None
    try:
        return await _sorted(form, fields)
    finally:
        await form.close()


async def _sorted(form: FormData, fields: Sequence[str]) -> Body:
    pictures: dict[str, list[bytes]] = {}
    words: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            if name not in fields:
                raise InvalidInput(f"{short(name)}: no picture is taken under this name; send {' or '.join(fields)}")
            pictures.setdefault(name, []).append(await value.read())
        elif name in fields:
            pictures.setdefault(name, []).append(_from_base64(value, name))
        else:
            words[name] = value
    return Body(pictures=pictures, words=words)


def _plain(kind: str, data: bytes, fields: Sequence[str]) -> Body:
    if kind == "application/json":
        return _json(data, fields)
    if RAW.fullmatch(kind):
        return Body(pictures={fields[0]: [data]} if fields else {}, words={})
    if not data:
        return Body(pictures={}, words={})
    raise WrongMedia(
        f"a body of the type {short(kind) or 'that is not said'} is not read here; send multipart/form-data, an image, "
        "or JSON with pictures in base64"
    )


def _json(data: bytes, fields: Sequence[str]) -> Body:
    try:
        told = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        raise InvalidInput("the body is no JSON; send an object") from None
    if not isinstance(told, dict):
        raise InvalidInput("the body is no object of JSON; send one with a picture in base64 under each name")
    pictures = {}
    for name in fields:
        if name in told:
            several = told.pop(name)
            several = several if isinstance(several, list) else [several]
            pictures[name] = [_from_base64(one, name) for one in several]
    return Body(pictures=pictures, words=told)


def _from_base64(text: Any, name: str) -> bytes:
    if isinstance(text, str):
        _, _, data = text.partition(",") if text.startswith("data:") else ("", "", text)
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise InvalidInput(
        f"{name} is no picture: send its bytes as a part of the form, or in base64; addresses and paths are not opened"
    )
