"""A service to try, with nothing downloaded: a recogniser of synthetic faces, and people whom it was not trained on."""

from collections.abc import Sequence
from pathlib import Path

import cv2

from steadface.data.synthetic import synthetic_faces
from steadface.errors import Conflict
from steadface.gallery.enrollment import Enrollee
from steadface.gallery.place import storage_at
from steadface.recognition.recognizer import Recognizer
from steadface.service.collections import Place
from steadface.training.loop import Observe
from steadface.training.runfolder import model_file
from steadface.workflows.recognize import with_gallery
from steadface.workflows.train import demo_recipes, train_or_resume

NAMES = ("Ada", "Ben", "Chen", "Dara", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena")
ENROLLED, SHOWN = 4, 2
"""Pictures of each that they are enrolled with, and that are left to try."""
FIRST = 100_000
"""Behind everybody whom a training draws."""


def needs_training(folder: Path) -> bool:
    """Whether the demonstration's model has yet to be trained, some minutes on two cores."""
    return model_file(folder / "gated") is None


def demonstration(folder: Path, observe: Observe | None = None, *, overrides: Sequence[str] = ()) -> Place | None:
    """The model of the demonstration in `folder`, trained where it is not there, and a gallery of synthetic people.

    Their pictures, others than those that they are enrolled with, lie in `folder/pictures`, and with them those of two
    strangers. None where the training was stopped; it goes on with the next call.
    """
    recipes, faces = demo_recipes(folder, list(overrides))
    gated = next(recipe for recipe in recipes if recipe.name == "gated")
    if not train_or_resume(gated, faces=faces, observe=observe).finished:
        return None
    place = Place(model=str(folder / "gated"), gallery=folder / "people.db", key=folder / "people.key", aligned=True)
    assert place.gallery is not None
    if not storage_at(place.gallery).exists():
        _fill(place, folder)
    return place


def _fill(place: Place, folder: Path) -> None:
    """Everybody or nobody: what is enrolled goes into the gallery in one step."""
    assert place.gallery is not None
    recognizer = Recognizer.open(place.model)
    each, enrollees = ENROLLED + SHOWN, list[Enrollee]()
    drawn = synthetic_faces(
        people=len(NAMES) + 2, images_per_person=each, size=recognizer.embedder.size, seed=1, first_person=FIRST
    )
    for number, name in enumerate((*NAMES, "stranger-1", "stranger-2")):
        images = [drawn.read(each * number + place) for place in range(each)]
        for image, shown in enumerate(images[ENROLLED:], start=1):
            _write(folder / "pictures" / f"{name}-{image}.png", shown)
        if name in NAMES:
            template = recognizer.template(name, images[:ENROLLED], aligned=True, check=False)
            enrollees.append(Enrollee(name=name, vectors=template[None], consent="drawn by a program"))
    with with_gallery(recognizer, place.gallery, place.key, create=True):
        assert recognizer.gallery is not None
        recognizer.gallery.enroll_many(enrollees)


def _write(path: Path, image: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image[..., ::-1]):  # type: ignore[index]
        raise Conflict(f"{path} cannot be written; choose another folder")
