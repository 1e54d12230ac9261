"""`/v1/detect`, `/v1/verify`, `/v1/identify` and `/v1/embed`: pictures in, answers out."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from steadface.errors import InvalidInput
from steadface.recognition.answers import Identified
from steadface.service.application import Caller, caller
from steadface.service.bodies import Body, Options, all_pictures, one_picture, options, read_body
from steadface.service.collections import Collection
from steadface.service.disclosure import disclosed
from steadface.service.routes.documented import PIXEL, body, problems

router = APIRouter(prefix="/v1", tags=["recognition"])
Asking = Annotated[Caller, Depends(caller)]

Fmr = Annotated[float | None, Field(gt=0, lt=1, description="False match rate of one comparison; 1e-3 by default.")]
Fpir = Annotated[float | None, Field(gt=0, lt=1, description="Chance that a stranger is taken for anybody enrolled.")]


class Seen(Options):
    collection: Annotated[str | None, Field(max_length=60, description="Which one; the first by default.")] = None
    aligned: Annotated[bool, Field(description="The pictures are aligned faces already.")] = False


class VerifyOptions(Seen):
    fmr: Fmr = None


class IdentifyOptions(Seen):
    fmr: Fmr = None
    fpir: Fpir = None
    top: Annotated[int, Field(ge=1, le=100, description="Candidates shown, where the key may see them.")] = 5


def meaning(collection: Collection, fmr: float | None) -> dict[str, Any]:
    """What an answer rests on: the interval of its threshold, the model and its calibration."""
    contract = collection.recognizer.contract
    interval = None if fmr is None or contract.thresholds is None else contract.thresholds.interval_at(fmr)
    return {
        "threshold_interval": interval,
        "collection": collection.name,
        "model": {"name": contract.name, "space": contract.space, "calibration": collection.calibration},
    }


async def read(asking: Caller, *fields: str) -> Body:
    """The body, once there is room for the work that it will make."""
    return await read_body(asking.request, fields, asking.service.bounds)


@router.post(
    "/detect",
    responses=problems(413, 415),
    openapi_extra=body(["image"], [], Seen, {"image": PIXEL, "aligned": False}),
)
async def detect(asking: Asking) -> dict[str, Any]:
    """Finds all faces in a picture, largest first, and says what makes each hard to recognise."""
    received = await read(asking, "image")
    async with asking.service.doors.through():
        asked = options(Seen, received.words)
        collection = asking.anything(asked.collection)

        def job() -> dict[str, Any]:
            picture = one_picture(received, "image", asking.service.bounds)
            shown, faces = collection.recognizer.seeing.faces(picture, aligned=asked.aligned)
            height, width = shown.pixels.shape[:2]
            return {"width": width, "height": height, "faces": [face.to_json() for face in faces]}

        return await asking.service.doors.work(job)


@router.post(
    "/verify",
    responses=problems(413, 415),
    openapi_extra=body(["first", "second"], [], VerifyOptions, {"first": PIXEL, "second": PIXEL, "aligned": True}),
)
async def verify(asking: Asking) -> dict[str, Any]:
    """Do two pictures show one person? They match where their similarity reaches the threshold of the `fmr`."""
    received = await read(asking, "first", "second")
    async with asking.service.doors.through():
        asked = options(VerifyOptions, received.words)
        collection = asking.collection(asked.collection, "verify")

        def job() -> dict[str, Any]:
            bounds = asking.service.bounds
            with asking.service.metrics.stage("decode"):
                first, second = (one_picture(received, field, bounds) for field in ("first", "second"))
            answer = collection.recognizer.verify(first, second, fmr=asked.fmr, aligned=asked.aligned)
            return disclosed(answer.to_json(), asking.key.shows) | meaning(collection, answer.fmr)

        return await asking.service.doors.work(job)


@router.post(
    "/identify",
    responses=problems(413, 415),
    openapi_extra=body(["image"], [], IdentifyOptions, {"image": PIXEL, "aligned": True, "fmr": 0.01}),
)
async def identify(asking: Asking) -> dict[str, Any]:
    """Who of the enrolled is in a picture? Whoever is below the threshold is nobody."""
    received = await read(asking, "image")
    async with asking.service.doors.through():
        asked = options(IdentifyOptions, received.words)
        collection = asking.collection(asked.collection, "identify")
        if asked.fmr is not None and asked.fpir is not None:
            raise InvalidInput("give fmr or fpir, not both; they are two ways to say one thing")

        def job() -> dict[str, Any]:
            state = collection.gallery.freshness()  # NotFound where nobody can be enrolled
            bounds = asking.service.bounds
            with asking.service.metrics.stage("decode"):
                picture = one_picture(received, "image", bounds)
            answer = collection.recognizer.identify(
                picture,
                fmr=asked.fmr,
                fpir=asked.fpir,
                top=asked.top,
                aligned=asked.aligned,
                most_faces=bounds.faces,
            )
            note(asking, collection, answer)
            known = {"entry": state.entry, "age": round(state.age, 3)}
            return disclosed(answer.to_json(), asking.key.shows) | meaning(collection, answer.fmr) | {"known": known}

        return await asking.service.doors.work(job)


def note(asking: Caller, collection: Collection, answer: Identified) -> None:
    """Counts probes, writes down who was met, and tells of strangers.

    Raises TooOften, and nothing of the answer is told, where somebody was probed too often.
    """
    for face in answer.faces:
        if face.candidates:
            asking.service.limits.probe(asking.key, collection.name, face.candidates[0].person)
    collection.note_matches(answer)
    if unknown := sum(not face.match for face in answer.faces):
        asking.service.tell("unknown", collection, faces=unknown)


@router.post(
    "/embed",
    responses=problems(413, 415),
    openapi_extra=body([], ["images"], Seen, {"images": [PIXEL], "aligned": True}),
)
async def embed(asking: Asking) -> dict[str, Any]:
    """Unit embeddings of the largest face of each picture: what a template is made of, for keys with that right."""
    received = await read(asking, "images")
    async with asking.service.doors.through():
        asked = options(Seen, received.words)
        collection = asking.collection(asked.collection, "embed")

        def job() -> dict[str, Any]:
            pictures = all_pictures(received, "images", asking.service.bounds)
            found = collection.recognizer.embed(pictures, aligned=asked.aligned)
            return {"embeddings": found.tolist(), **meaning(collection, None)}

        return await asking.service.doors.work(job)
