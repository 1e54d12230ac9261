"""The shape of CompreFace: what its clients may ask for, and how faces, matches and enrolled pictures are told them.

The id of an image is that of a person and the number of a template, since pictures are not kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from steadface.errors import NotFound, quoted
from steadface.gallery.gallery import Gallery
from steadface.gallery.person import LONGEST, Person, PersonId
from steadface.recognition.answers import Named, SeenFace
from steadface.recognition.face_finder import NoFace
from steadface.service.application import Caller
from steadface.service.bodies import Options
from steadface.service.collections import Collection
from steadface.service.disclosure import disclosed
from steadface.service.routes.recognition import Fmr, Fpir

BLOCK = 1000
"""People that are looked at together."""


class NoImage(NotFound):
    """There is no template of that id."""


class Wanted(Options):
    """What may be asked of all that looks at pictures. Unlike elsewhere, what is not known is left alone."""

    model_config = ConfigDict(extra="ignore")

    collection: Annotated[str | None, Field(max_length=60)] = None
    fmr: Fmr = None
    limit: Annotated[int, Field(ge=0)] = 0
    det_prob_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    face_plugins: Annotated[str, Field(max_length=200)] = ""
    status: bool = False

    def wants(self, plugin: str) -> bool:
        return plugin in [slug.strip() for slug in self.face_plugins.split(",")]


class RecognizeWanted(Wanted):
    fpir: Fpir = None
    prediction_count: Annotated[int, Field(ge=0)] = 1


class ExampleWanted(Wanted):
    subject: Annotated[str, Field(min_length=1, max_length=LONGEST)]
    check: bool = True


class SubjectWanted(Options):
    model_config = ConfigDict(extra="ignore")

    subject: Annotated[str, Field(min_length=1, max_length=LONGEST)]
    collection: Annotated[str | None, Field(max_length=60)] = None


def sure_faces(collection: Collection, picture: Any, asked: Wanted, asking: Caller) -> list[SeenFace]:
    """Those that are sure enough, largest first. Raises NoFace where there is none."""
    photograph, faces = collection.recognizer.seeing.faces(picture)
    found = [face for face in faces[: asking.service.bounds.faces] if sure(face, asked)][: asked.limit or None]
    if not found:
        raise NoFace(f"no face was found in {photograph.name}; give a picture that shows one from the front")
    return found


def sure(seen: SeenFace, asked: Wanted) -> bool:
    return seen.face is not None and seen.face.score >= asked.det_prob_threshold


def shown_faces(
    asking: Caller, collection: Collection, faces: Sequence[SeenFace], asked: Wanted
) -> list[dict[str, Any]]:
    """Boxes, and of the plugins those that there are; age, gender and mask are estimated by nobody here."""
    shown: list[dict[str, Any]] = []
    for seen in faces:
        assert seen.face is not None  # or it would not be sure
        left, top, right, bottom = (round(side) for side in seen.face.box)
        box = {"probability": seen.face.score, "x_min": left, "y_min": top, "x_max": right, "y_max": bottom}
        shown.append({"box": box})
        if asked.wants("landmarks"):
            shown[-1]["landmarks"] = [[round(float(x)), round(float(y))] for x, y in seen.face.landmarks]
    if shown and asked.wants("calculator") and asking.key.may("embed", collection.name):
        for one, vector in zip(shown, collection.recognizer.embed_faces(faces), strict=True):
            one["embedding"] = vector.tolist()
    return shown


def subjects(named: Named, asking: Caller) -> list[dict[str, Any]]:
    alike = [one for one in named.candidates if one.similarity >= named.threshold]
    told = alike if asking.key.shows == "full" else alike[:1]
    return [{"subject": one.person, **_similarity(one.similarity, asking)} for one in told]


def matching(
    asking: Caller,
    collection: Collection,
    faces: Sequence[SeenFace],
    similarities: Sequence[float],
    least: float,
    asked: Wanted,
) -> list[dict[str, Any]]:
    """The faces that match, most similar first."""
    pairs = sorted(zip(similarities, range(len(faces)), strict=True), key=lambda pair: -pair[0])
    alike = [(similarity, faces[place]) for similarity, place in pairs if similarity >= least]
    shown = shown_faces(asking, collection, [face for _, face in alike], asked)
    return [one | _similarity(value, asking) for one, (value, _) in zip(shown, alike, strict=True)]


def _similarity(value: float, asking: Caller) -> dict[str, Any]:
    return disclosed({"similarity": min(1.0, value)}, asking.key.shows)


def versions(collection: Collection, asked: Wanted) -> dict[str, Any]:
    return {"plugins_versions": {"calculator": collection.recognizer.contract.name}} if asked.status else {}


def everybody(gallery: Gallery) -> Iterator[Person]:
    after = 0
    while people := gallery.page(after=after, most=BLOCK):
        yield from people
        after = people[-1].number


def images(gallery: Gallery, people: Iterator[Person], first: int, size: int) -> list[dict[str, Any]]:
    """`size` of all images, from the one of that place on."""
    found: list[dict[str, Any]] = []
    for person in people:
        if len(found) >= size:
            break
        if first < person.templates:
            with suppress(NotFound):  # removed meanwhile
                own = gallery.templates(PersonId(person.id))[first:]
                found += [image_of(person, template.number) for template in own]
        first = max(0, first - person.templates)
    return found[:size]


def image_of(person: Person, template: int) -> dict[str, Any]:
    return {"image_id": image_id(person.id, template), "subject": person.name}


def image_id(person: str, template: int) -> str:
    return f"{person}-{template}"


def example(gallery: Gallery, image: str) -> tuple[Person, int]:
    """Raises NoImage."""
    identity, _, number = image.rpartition("-")
    if identity and number.isdecimal() and len(number) < 19:
        with suppress(NotFound):
            person = gallery.person(PersonId(identity))
            if any(one.number == int(number) for one in gallery.templates(PersonId(identity))):
                return person, int(number)
    raise NoImage(f"there is no image {quoted(image)}; list the faces to see which there are")


def delete(asking: Caller, collection: Collection, image: str) -> dict[str, Any]:
    """Removes a template, and the person with the last."""
    person, template = example(collection.gallery, image)
    if person.templates == 1:
        asking.service.remove(collection, PersonId(person.id))
    else:
        collection.gallery.remove_template(PersonId(person.id), template)
    return image_of(person, template)
