"""A recogniser that people have becomes one that resists, without being lost: ``steadface harden``.

The recipe is ``recipes/harden.yaml``: no labels enter the loss, the reference is the recogniser as it came, and what is
chosen and judged is chosen and judged on people held out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steadface.backbones import Backbone, load_backbone, save_backbone
from steadface.data.faces import FaceSource
from steadface.errors import SteadfaceError
from steadface.evaluation.compatibility import Compatibility, compatibility
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.evaluation.thresholds import images_to_measure
from steadface.files import write_atomically
from steadface.models import OpenedRecogniser
from steadface.recipes import recipe_path
from steadface.training.recipe import Recipe, load_recipe
from steadface.training.runfolder import make_run_folder

ORIGINAL = "original.safetensors"
COMPATIBILITY = "compatibility.json"
MARGIN = 1.25
"""Times the radius that is to be resisted: the attack in training is weaker than one that has all the time."""
STUDENT_RATE = 2e-3
"""Of AdamW, for weights that start from nothing."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """How long, against which radius (a fraction of the pixel range), and what clean accuracy may be lost for it.

    ``student`` is the architecture of another network that learns the embeddings of the given one.
    """

    minutes: float = 60.0
    eps: float = 4 / 255
    max_clean_drop: float = 0.005
    student: str | None = None


def harden_recipe(
    given: OpenedRecogniser, images: Path, out: Path, wishes: Wishes, overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe for a recogniser, whose weights are copied into ``out``, with ``section.key=value`` overrides.

    Raises SteadfaceError for a recogniser that is no MobileFaceNet or IResNet of RGB images.
    """
    if not isinstance(given.network, Backbone):
        raise SteadfaceError(
            f"{given.name} cannot be trained on: hardening takes MobileFaceNet and IResNet weights of RGB images"
        )
    original = out / ORIGINAL
    recipe = load_recipe(
        recipe_path(Path("harden")),
        [
            f"data.images={images}",
            f"data.size={list(given.convention.size)}",
            *(_of_start(original) if wishes.student is None else _of_student(wishes.student, given.network, original)),
            f"run.out={out}",
            f"run.minutes={wishes.minutes}",
            f"method.attack.eps={MARGIN * wishes.eps}",
            f"evaluation.eps=[{wishes.eps / 2}, {wishes.eps}]",
            f"run.select.max_clean_drop={wishes.max_clean_drop}",
            *overrides,
        ],
    )
    if not original.exists():
        make_run_folder(out)
        save_backbone(original, given.network, {})
    return recipe


def _of_start(original: Path) -> list[str]:
    return [f"model.start={original}"]


def _of_student(name: str, teacher: Backbone, original: Path) -> list[str]:
    """A network from nothing, whose BatchNorms learn the statistics of clean faces."""
    return [
        f"model.reference={original}",
        f"model.architecture.name={name}",
        f"model.architecture.embedding_size={teacher.architecture.embedding_size}",
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
        embed_faces(MirrorEmbedder(load_backbone(path), mirror=False), held_out, chosen, skip_unreadable=True)
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
