"""`/api/v1`: the routes of CompreFace, for programs that speak it, `compreface-sdk` among them; see docs/service.md.

The work is that of the other routes, under the same keys. Subjects are people by name. What is returned as a match
matches: a face below the threshold has no subjects.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from steadface.errors import SteadfaceError
from steadface.gallery.person import PersonId
from steadface.recognition.answers import limit
from steadface.recognition.face_finder import NoFace
from steadface.service.bodies import one_picture, options
from steadface.service.compreface import (
    NoImage,
    RecognizeWanted,
    Wanted,
    example,
    matching,
    shown_faces,
    subjects,
    sure,
    sure_faces,
    versions,
)
from steadface.service.problems import problem_of
from steadface.service.routes.people import work
from steadface.service.routes.recognition import Asking, note, read

NO_FACE, NO_IMAGE, OTHER = 28, 11, 0
"""CompreFace's codes of errors."""
PREDICTIONS = 100
"""Of a face, at most."""


class Shaped(APIRoute):
    """Adds to a problem what clients of CompreFace look for in one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except SteadfaceError as error:
                code = NO_FACE if isinstance(error, NoFace) else NO_IMAGE if isinstance(error, NoImage) else OTHER
                return problem_of(error, request, code=code)

        return handled


router = APIRouter(prefix="/api/v1", route_class=Shaped, include_in_schema=False)


@router.post("/detection/detect")
async def detect(asking: Asking) -> dict[str, Any]:
    received = await read(asking, "file")
    asked = options(Wanted, received.words)
    collection = asking.anything(asked.collection)

    def job() -> dict[str, Any]:
        faces = sure_faces(collection, one_picture(received, "file", asking.service.bounds), asked, asking)
        return {"result": shown_faces(asking, collection, faces, asked), **versions(collection, asked)}

    return await work(asking, job)


@router.post("/recognition/recognize")
async def recognize(asking: Asking) -> dict[str, Any]:
    received = await read(asking, "file")
    asked = options(RecognizeWanted, received.words)
    collection = asking.collection(asked.collection, "identify")
    count = min(max(1, asked.prediction_count), PREDICTIONS)

    def job() -> dict[str, Any]:
        assert collection.gallery is not None
        bounds = asking.service.bounds
        answer = collection.recognizer.identify(
            one_picture(received, "file", bounds), fmr=asked.fmr, fpir=asked.fpir, top=count, most_faces=bounds.faces
        )
        note(asking, collection, answer)
        named = [one for one in answer.faces if sure(one.seen, asked)][: asked.limit or None]
        if not named:
            raise NoFace(f"no face was found in {answer.image}; give a picture that shows one from the front")
        shown = shown_faces(asking, collection, [one.seen for one in named], asked)
        result = [face | {"subjects": subjects(one, asking)} for face, one in zip(shown, named, strict=True)]
        return {"result": result, **versions(collection, asked)}

    return await work(asking, job)


@router.post("/verification/verify")
async def verify(asking: Asking) -> dict[str, Any]:
    received = await read(asking, "source_image", "target_image")
    asked = options(Wanted, received.words)
    collection = asking.collection(asked.collection, "verify")

    def job() -> dict[str, Any]:
        bounds, recognizer = asking.service.bounds, collection.recognizer
        source, target = (one_picture(received, field, bounds) for field in ("source_image", "target_image"))
        least, _ = limit(recognizer.contract, asked.fmr, None)
        face = recognizer.seeing.face(source)
        others = sure_faces(collection, target, asked, asking)
        own, *vectors = recognizer.embed_faces([face, *others])
        matches = matching(asking, collection, others, [float(own @ vector) for vector in vectors], least, asked)
        (shown,) = shown_faces(asking, collection, [face], asked)
        return {"result": [{"source_image_face": shown, "face_matches": matches, **versions(collection, asked)}]}

    return await work(asking, job)


@router.post("/recognition/faces/{image}/verify")
async def verify_example(image: str, asking: Asking) -> dict[str, Any]:
    received = await read(asking, "file")
    asked = options(Wanted, received.words)
    collection = asking.collection(asked.collection, "identify")

    def job() -> dict[str, Any]:
        recognizer, gallery = collection.recognizer, collection.gallery
        person, template = example(gallery, image)
        least, _ = limit(recognizer.contract, asked.fmr, None)
        faces = sure_faces(collection, one_picture(received, "file", asking.service.bounds), asked, asking)
        for _ in faces:
            asking.service.limits.probe(asking.key, collection.name, person.name)
        found = gallery.similarities(PersonId(person.id), recognizer.embed_faces(faces), template=template)
        matches = matching(asking, collection, faces, found.tolist(), least, asked)
        if matches:
            collection.note_met({person.name})
        return {"result": matches, **versions(collection, asked)}

    return await work(asking, job)
