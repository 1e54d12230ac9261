"""`/v1/people`: who is enrolled, and how they come and go."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from steadface.errors import InvalidInput
from steadface.gallery.enrollment import Enrolment
from steadface.gallery.maintenance import Template
from steadface.gallery.person import LONGEST, TEXT, Person, PersonId
from steadface.gallery.requests import Request
from steadface.service.application import Caller, content_digest
from steadface.service.bodies import Body, Options, all_pictures, options
from steadface.service.collections import Collection
from steadface.service.disclosure import disclosed
from steadface.service.routes.documented import PIXEL, body, problems
from steadface.service.routes.recognition import Asking, Seen, meaning, read

router = APIRouter(prefix="/v1", tags=["people"])

Repeated = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Any text of your own, new for each request: the same request with the same key is done once.",
    ),
]
Collected = Annotated[str | None, Query(max_length=60, description="Which collection; the first by default.")]
SAYABLE = re.compile(r"[\x21-\x7e]{1,255}")

Result = TypeVar("Result")


class TemplateOptions(Seen):
    check: Annotated[bool, Field(description="Refuse pictures that are not of one person, or not of that one.")] = True


class EnrollOptions(TemplateOptions):
    name: Annotated[str, Field(max_length=LONGEST)]
    consent: Annotated[str | None, Field(max_length=TEXT, description="A note on it, kept with the person.")] = None
    expires: Annotated[str | None, Field(max_length=40, description="2031-12-31, or a time with its zone.")] = None


class RenameOptions(Options):
    name: Annotated[str, Field(max_length=LONGEST)]
    collection: Annotated[str | None, Field(max_length=60)] = None


def told(person: Person) -> dict[str, Any]:
    return person.to_json(datetime.now(UTC))


@router.post(
    "/people",
    status_code=201,
    responses=problems(409, 413, 415),
    openapi_extra=body([], ["images"], EnrollOptions, {"name": "Ada", "images": [PIXEL], "aligned": True}),
)
async def enroll(asking: Asking, response: Response, repeated: Repeated = None) -> dict[str, Any]:
    """Adds a template of one or more pictures of a person, new or enrolled already: all of them, or nothing."""
    received = await read(asking, "images")
    async with asking.service.doors.through():
        asked = options(EnrollOptions, received.words)
        collection = asking.collection(asked.collection, "enroll")
        request = request_of(asking, repeated, received, "people")
        answer = await asking.service.doors.work(
            lambda: _enrolled(asking, collection, asked.name, received, asked, request)
        )
    return _answered(answer, response)


@router.post(
    "/people/{person}/templates",
    status_code=201,
    responses=problems(409, 413, 415),
    openapi_extra=body([], ["images"], TemplateOptions, {"images": [PIXEL], "aligned": True}),
)
async def add_template(person: str, asking: Asking, response: Response, repeated: Repeated = None) -> dict[str, Any]:
    """Adds one more template to somebody enrolled."""
    received = await read(asking, "images")
    async with asking.service.doors.through():
        asked = options(TemplateOptions, received.words)
        collection = asking.collection(asked.collection, "enroll")
        request = request_of(asking, repeated, received, f"people {person} templates")

        def job() -> dict[str, Any]:
            name = collection.gallery.person(PersonId(person)).name
            return _enrolled(asking, collection, name, received, asked, request)

        answer = await asking.service.doors.work(job)
    return _answered(answer, response)


def _answered(answer: dict[str, Any], response: Response) -> dict[str, Any]:
    if answer["repeated"]:
        response.headers["Idempotent-Replayed"] = "true"
    return answer


def request_of(asking: Caller, given: str | None, received: Body, route: str) -> Request | None:
    """Raises InvalidInput for a key of a request that is none."""
    if given is None:
        return None
    if not SAYABLE.fullmatch(given):
        raise InvalidInput("Idempotency-Key has 1 to 255 visible characters of ASCII; send e.g. a random UUID")
    return Request(key=f"{asking.key.id} {given}", content=content_digest(route, received.pictures, received.words))


def _enrolled(
    asking: Caller, collection: Collection, name: str, received: Body, asked: TemplateOptions, request: Request | None
) -> dict[str, Any]:
    before = None if request is None else collection.gallery.done(request)
    if before is not None:
        return _of_before(before)
    pictures = all_pictures(received, "images", asking.service.bounds)
    new = asked if isinstance(asked, EnrollOptions) else None
    answer = collection.recognizer.enroll(
        name,
        pictures,
        aligned=asked.aligned,
        check=asked.check,
        consent=None if new is None else new.consent,
        expires=None if new is None else collection.until(new.expires),
        request=request,
    )
    return disclosed(answer.to_json(), asking.key.shows) | {"repeated": answer.repeated, **meaning(collection, None)}


def _of_before(done: Enrolment) -> dict[str, Any]:
    """What is known of an enrolment that was asked for before."""
    return {
        "person": done.person.name,
        "id": done.person.id,
        "template": done.templates[0],
        "templates": done.person.templates,
        "repeated": True,
    }


@router.get("/people", responses=problems())
async def people(
    asking: Asking,
    collection: Collected = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    search: Annotated[str, Query(max_length=LONGEST, description="A part of the name, in any case.")] = "",
) -> dict[str, Any]:
    """Who is enrolled, in that order, page by page."""
    gallery = asking.collection(collection, "enroll").gallery

    def job() -> dict[str, Any]:
        found: list[Person] = []
        at, block = after, limit if not search else 1000
        while page := gallery.page(after=at, most=block):
            at = page[-1].number
            found += [person for person in page if search.casefold() in person.name.casefold()]
            if len(found) >= limit:
                break
        shown = found[:limit]
        more = len(found) > limit or bool(page and gallery.page(after=at, most=1))
        return {
            "people": [told(person) for person in shown],
            "next": shown[-1].number if shown and more else None,
            "count": len(gallery),
        }

    return await work(asking, job)


@router.get("/people/{person}", responses=problems())
async def show(person: str, asking: Asking, collection: Collected = None) -> dict[str, Any]:
    """Somebody enrolled, and the numbers of their templates."""
    gallery = asking.collection(collection, "enroll").gallery

    def job() -> dict[str, Any]:
        known = gallery.person(PersonId(person))
        return {**told(known), "template_list": [_template(one) for one in gallery.templates(PersonId(person))]}

    return await work(asking, job)


@router.patch(
    "/people/{person}",
    responses=problems(409),
    openapi_extra=body([], [], RenameOptions, {"name": "Ada Lovelace"}),
)
async def rename(person: str, asking: Asking) -> dict[str, Any]:
    """Gives somebody another name; nothing is left of the old one."""
    asked = options(RenameOptions, (await read(asking)).words)
    gallery = asking.collection(asked.collection, "enroll").gallery
    return told(await work(asking, lambda: gallery.rename(PersonId(person), asked.name)))


@router.delete("/people/{person}", responses=problems())
async def remove(person: str, asking: Asking, collection: Collected = None) -> dict[str, Any]:
    """Removes somebody. The receipt is an entry of the gallery's log, which `steadface gallery verify-log` confirms."""
    meant = asking.collection(collection, "delete")

    return await work(asking, lambda: {"receipt": asking.service.remove(meant, PersonId(person))[1]})


@router.delete("/people/{person}/templates/{template}", responses=problems(409))
async def remove_template(person: str, template: int, asking: Asking, collection: Collected = None) -> dict[str, Any]:
    """Removes one template of somebody who has others."""
    gallery = asking.collection(collection, "delete").gallery
    return told(await work(asking, lambda: gallery.remove_template(PersonId(person), template)))


async def work(asking: Caller, job: Callable[[], Result]) -> Result:
    async with asking.service.doors.through():
        return await asking.service.doors.work(job)


def _template(template: Template) -> dict[str, Any]:
    added = template.added
    return {"template": template.number, "added": added.isoformat() if isinstance(added, datetime) else None}
