"""A recogniser that people have becomes one that resists, without being lost: ``steadface harden``.

The recipe is ``recipes/harden.yaml``, with no label in the loss, or ``recipes/harden_labelled.yaml``. The reference is
the recogniser as it came, and what is chosen and judged is chosen and judged on people held out. Where nobody says who
they are, the recogniser does.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steadface.backbones import Backbone, load_backbone, save_backbone
from steadface.backbones.frozen import frozen
from steadface.clustering import people_alike
from steadface.data.faces import FaceSource
from steadface.data.folders import FaceFiles, UnlabelledFolder, is_unlabelled
from steadface.data.people_csv import write_people
from steadface.data.splits import split_people
from steadface.devices import resolve_device
from steadface.errors import SteadfaceError
from steadface.evaluation.calibration import split_for_attack
from steadface.evaluation.compatibility import Compatibility, compatibility
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.evaluation.labelled import pairs_from_labels
from steadface.evaluation.thresholds import images_to_measure
from steadface.files import write_atomically
from steadface.recipes import recipe_path
from steadface.recognizers import OpenedRecognizer
from steadface.training.recipe import Recipe, load_recipe
from steadface.training.runfolder import holds_run, make_run_folder

ORIGINAL = "original.safetensors"
COMPATIBILITY = "compatibility.json"
PEOPLE = "people.csv"
MARGIN = 1.25
"""Times the radius that is to be resisted: the attack in training is weaker than one that has all the time."""
STUDENT_RATE = 2e-3
"""Of AdamW, for weights that start from nothing."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How long, against which radius (a fraction of the pixel range), and what clean accuracy may be lost for it.

    ``choose`` names a candidate of a run that has some, in place of the rule of ``training/selection.py``. ``labels``
    lets who is who into the loss, ``student`` is the architecture of another network that learns the embeddings of the
    given one.
    """

    minutes: float = 60.0
    eps: float = 4 / 255
    max_clean_drop: float = 0.005
    choose: str | None = None
    labels: bool = False
    student: str | None = None


def harden_recipe(
    given: OpenedRecognizer,
    images: Path,
    out: Path,
    wishes: Wishes,
    overrides: Sequence[str] = (),
    *,
    extra: Path | None = None,
) -> Recipe:
    """The recipe for a recogniser, to run in ``out``, with ``section.key=value`` overrides.

    Images without person folders get a ``data.people`` there, see ``name_people``. Raises SteadfaceError for a
    recogniser that is no MobileFaceNet or IResNet of RGB images, and for labels wished for where there are none.
    """
    backbone, original = _backbone(given), out / ORIGINAL
    if wishes.labels and (extra is not None or wishes.student is not None):
        raise SteadfaceError(
            "a margin head needs to know everybody, and weights to make its prototypes from: leave --labels out, or "
            "--extra and --student"
        )
    learnt = [f"model.start={original}"]
    if wishes.student is not None:
        learnt = _of_student(wishes.student, backbone, original)
    # Whoever is on one image only is trained on all the same: the loss needs no second one.
    naming = [f"data.people={out / PEOPLE}", "data.min_images=1"] if is_unlabelled(images) else []
    recipe = load_recipe(
        recipe_path(Path("harden_labelled" if wishes.labels else "harden")),
        [
            f"data.images={images}",
            *naming,
            *([] if extra is None else [f"data.extra={extra}"]),
            f"data.size={list(given.convention.size)}",
            *learnt,
            f"run.out={out}",
            f"run.minutes={wishes.minutes}",
            f"method.attack.eps={MARGIN * wishes.eps}",
            f"evaluation.eps=[{wishes.eps / 2}, {wishes.eps}]",
            f"run.select.max_clean_drop={wishes.max_clean_drop}",
            f"run.select.choose={json.dumps(wishes.choose)}",
            *overrides,
        ],
    )
    if wishes.labels and _told_by_likeness(recipe):
        raise SteadfaceError(
            f"--labels needs to know who is who in {images}: one folder per person, or --set data.people=FILE.csv"
        )
    return recipe


def keep_original(given: OpenedRecognizer, out: Path) -> None:
    """Copies the weights into ``out``, unless they are there; raises SteadfaceError as ``harden_recipe`` does."""
    backbone, original = _backbone(given), out / ORIGINAL
    if not original.exists():
        make_run_folder(out)
        save_backbone(original, backbone, {})


def name_people(given: OpenedRecognizer, recipe: Recipe) -> None:
    """Writes into the run folder who is on ``data.images`` as the recogniser sees them, where ``recipe`` says so.

    A run that has begun keeps what it began with. Raises SteadfaceError where too few people have two images or more
    to be held out and judged by.
    """
    data, path = recipe.data, recipe.run.out / PEOPLE
    if not _told_by_likeness(recipe) or data.images is None or holds_run(recipe.run.out):
        return
    listed = UnlabelledFolder(data.images)
    embedder = MirrorEmbedder(frozen(given.network), mirror=False).to(resolve_device(recipe.run.device))
    embeddings = embed_faces(embedder, listed, skip_unreadable=True)
    readable = np.flatnonzero(np.isfinite(embeddings).all(1))
    labels = people_alike(embeddings[readable], seed=recipe.run.seed)
    images = np.bincount(labels)
    faces = FaceFiles(
        data.images,
        [listed.names[index] for index in readable],
        sizes=listed.sizes[readable],
        labels=labels,
        people=[f"person_{person:06d}" for person in range(len(images))],
    )
    several = np.count_nonzero(images > 1)
    found = f"{len(faces)} faces of {data.images} look like {len(images)} people, {several} of them on two or more"
    _check_judged(faces, recipe, found)
    write_people(path, ((name, faces.people[label]) for name, label in zip(faces.names, labels, strict=True)))
    logger.info("%s; %s says who is who", found, path)


def _told_by_likeness(recipe: Recipe) -> bool:
    return recipe.data.people == recipe.run.out / PEOPLE


def _check_judged(faces: FaceSource, recipe: Recipe, found: str) -> None:
    """Raises SteadfaceError unless the people that the recipe would hold out suffice for its looks at them."""
    options, seed = recipe.evaluation, recipe.run.seed
    if recipe.data.validation == 0:
        return
    try:
        held_out = split_people(faces, fraction=recipe.data.validation, seed=seed)[1]
        split_for_attack(
            pairs_from_labels(held_out, seed=seed), fmr=options.fmr, max_pairs=options.max_pairs, seed=seed
        )
    except SteadfaceError as error:
        raise SteadfaceError(
            f"{found}, too few to hold some out and judge by them: {error}. Bring more images of the same people, or "
            "say who is who: one folder per person, or --set data.people=FILE.csv"
        ) from error


def _backbone(given: OpenedRecognizer) -> Backbone:
    if not isinstance(given.network, Backbone):
        raise SteadfaceError(
            f"{given.name} cannot be trained on: hardening takes MobileFaceNet and IResNet weights of RGB images"
        )
    return given.network


def _of_student(name: str, teacher: Backbone, original: Path) -> list[str]:
    """A network from nothing, whose BatchNorms learn the statistics of clean faces."""
    return [
        f"model.reference={original}",
        f"model.architecture.name={name}",
        f"model.architecture.embedding_size={teacher.architecture.embedding_size}",
        "model.corner=null",
        "method.batchnorm=clean",
        f"optimiser.rate={STUDENT_RATE}",
    ]


def measure_compatibility(folder: Path, held_out: FaceSource, *, fmr: float, seed: int) -> Compatibility:
    """Old templates against new probes on people held out, also written into the run's ``folder``.

    Raises SteadfaceError where they are too few for ``fmr``.
    """
    labels = np.asarray(held_out.labels, dtype=np.int64)
    chosen = images_to_measure(labels, seed=seed)
    old, new = (
        embed_faces(MirrorEmbedder(frozen(load_backbone(path)), mirror=False), held_out, chosen, skip_unreadable=True)
        for path in (folder / ORIGINAL, folder)
    )
    found = compatibility(old, new, labels[chosen], fmr=fmr)
    write_atomically(folder / COMPATIBILITY, json.dumps(found.to_json(), indent=1).encode())
    return found


def keeps_templates(found: Compatibility, wishes: Wishes) -> bool:
    """Whether old templates serve the new model at the threshold in use: it refuses at most ``max_clean_drop`` more
    genuine pairs than before, and accepts at most twice the impostors that the threshold stands for.
    """
    return found.mixed.fnmr <= found.old.fnmr + wishes.max_clean_drop and found.mixed.fmr <= 2 * found.fmr
