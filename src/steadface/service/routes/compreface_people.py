"""`/api/v1/recognition/faces` and `subjects`: who is enrolled, in the shape of CompreFace."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query

from steadface.errors import InvalidInput, NotFound, Unsupported
from steadface.gallery.person import LONGEST, PersonId
from steadface.recognition.face_finder import NoFace
from steadface.service.bodies import one_picture, options, read_list
from steadface.service.compreface import (
    BLOCK,
    ExampleWanted,
    SubjectWanted,
    delete,
    everybody,
    example,
    image_id,
    image_of,
    images,
    sure,
)
from steadface.service.routes.compreface import Shaped
from steadface.service.routes.people import Collected, Repeated, request_of, work
from steadface.service.routes.recognition import Asking, read

router = APIRouter(prefix="/api/v1/recognition", route_class=Shaped, include_in_schema=False)


@router.get("/faces")
async def list_examples(
    asking: Asking,
    collection: Collected = None,
    subject: Annotated[str | None, Query(max_length=LONGEST)] = None,
    page: Annotated[int, Query(ge=0, le=2**40)] = 0,
    size: Annotated[int, Query(ge=1, le=BLOCK)] = 20,
) -> dict[str, Any]:
    gallery = asking.collection(collection, "enroll").gallery

    def job() -> dict[str, Any]:
        one = [gallery.person(subject)] if subject else None
        total = one[0].templates if one else gallery.info().templates
        shown = images(gallery, iter(one) if one else everybody(gallery), page * size, size)
        pages = -(-total // size)
        return {
            "faces": shown,
            "page_number": page,
            "page_size": size,
            "total_pages": pages,
            "total_elements": total,
        }

    return await work(asking, job)


@router.post("/faces", status_code=201)
async def add_example(asking: Asking, repeated: Repeated = None) -> dict[str, Any]:
    received = await read(asking, "file")
    asked = options(ExampleWanted, received.words)
    collection = asking.collection(asked.collection, "enroll")
    request = request_of(asking, repeated, received, "compreface faces")

    def job() -> dict[str, Any]:
        recognizer, gallery = collection.recognizer, collection.gallery
        done = None if request is None else gallery.done(request)
        if done is not None:
            return image_of(done.person, done.templates[0])
        picture = one_picture(received, "file", asking.service.bounds)
        if asked.det_prob_threshold and not sure(recognizer.seeing.face(picture, clear=True), asked):
            raise NoFace("no face in the picture is as sure as asked for; give another, or a lower det_prob_threshold")
        until = collection.until(None)
        answer = recognizer.enroll(asked.subject, picture, check=asked.check, expires=until, request=request)
        return {"image_id": image_id(answer.id, answer.template), "subject": answer.person}

    return await work(asking, job)


@router.post("/faces/delete")
async def delete_examples(asking: Asking, collection: Collected = None) -> list[dict[str, Any]]:
    meant = asking.collection(collection, "delete")
    images = await read_list(asking.request, asking.service.bounds)

    def job() -> list[dict[str, Any]]:
        gone = []
        for image in images:
            with suppress(NotFound):
                gone.append(delete(asking, meant, str(image)))
        return gone

    return await work(asking, job)


@router.delete("/faces")
async def delete_examples_of(
    asking: Asking, subject: Annotated[str, Query(max_length=LONGEST)] = "", collection: Collected = None
) -> dict[str, Any]:
    meant = asking.collection(collection, "delete")
    if not subject:
        raise InvalidInput("subject: there is none; name whose examples are to be deleted")
    person, _ = await work(asking, lambda: asking.service.remove(meant, subject))
    return {"deleted": person.templates}


@router.delete("/faces/{image}")
async def delete_example(image: str, asking: Asking, collection: Collected = None) -> dict[str, Any]:
    meant = asking.collection(collection, "delete")
    return await work(asking, lambda: delete(asking, meant, image))


@router.get("/faces/{image}/img")
async def show_example(image: str, asking: Asking, collection: Collected = None) -> None:
    gallery = asking.collection(collection, "enroll").gallery
    await work(asking, lambda: example(gallery, image))
    raise Unsupported("the picture itself is not kept: a gallery holds sealed templates alone; keep pictures elsewhere")


@router.get("/subjects")
@router.get("/subjects/")
async def list_subjects(asking: Asking, collection: Collected = None) -> dict[str, Any]:
    gallery = asking.collection(collection, "enroll").gallery
    return {"subjects": await work(asking, lambda: [person.name for person in everybody(gallery)])}


@router.post("/subjects")
async def add_subject(asking: Asking) -> None:
    asked = options(SubjectWanted, (await read(asking)).words)
    gallery = asking.collection(asked.collection, "enroll").gallery
    await work(asking, lambda: gallery.confusable(asked.subject))  # says what is wrong with the name
    raise Unsupported(
        "nobody is enrolled without a picture; leave this step out, and add an example with the name of the subject"
    )


@router.put("/subjects/{subject:path}")
async def rename_subject(subject: str, asking: Asking) -> dict[str, Any]:
    asked = options(SubjectWanted, (await read(asking)).words)
    collection = asking.collection(asked.collection, "enroll")

    def job() -> dict[str, Any]:
        gallery = collection.gallery
        known = gallery.person(subject)
        try:
            into = gallery.person(asked.subject)
        except NotFound:
            gallery.rename(subject, asked.subject)
        else:
            if known.id != into.id:
                asking.collection(asked.collection, "delete")  # of two names one goes
                gallery.merge(subject, into.name, alike=collection.recognizer.alike)
        return {"updated": True}

    return await work(asking, job)


@router.delete("/subjects")
async def delete_all_subjects(asking: Asking, collection: Collected = None) -> dict[str, Any]:
    meant = asking.collection(collection, "delete")

    def job() -> dict[str, Any]:
        count = 0
        for person in everybody(meant.gallery):
            with suppress(NotFound):
                asking.service.remove(meant, PersonId(person.id))
                count += 1
        return {"deleted": count}

    return await work(asking, job)


@router.delete("/subjects/{subject:path}")
async def delete_subject(subject: str, asking: Asking, collection: Collected = None) -> dict[str, Any]:
    meant = asking.collection(collection, "delete")
    person, _ = await work(asking, lambda: asking.service.remove(meant, subject))
    return {"subject": person.name}
