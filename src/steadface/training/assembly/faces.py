"""The faces of a recipe: who is trained on, who is held out, and in which batches they come."""

import hashlib
from dataclasses import dataclass
from typing import assert_never

import numpy as np
import torch
from torch import Tensor

from steadface.attacks.draws import uniform
from steadface.data.augment import Augmentation
from steadface.data.faces import SAMPLE, FaceSource, JoinedFaces, Subset, content, split_people
from steadface.data.folders import open_faces, open_unlabelled
from steadface.data.loading import FaceLoader, load_images
from steadface.data.people_csv import NamedFolder
from steadface.data.sampling import BalancedSampler, PersonImages, Sampler, UniformSampler
from steadface.data.synthetic import synthetic_faces
from steadface.errors import InvalidInput
from steadface.ranks import ALONE, Ranks
from steadface.training.recipe import Recipe
from steadface.training.recipe.sections import Data


@dataclass(frozen=True, kw_only=True)
class Faces:
    """The people trained on and, where the recipe holds some out, those that the run is judged by.

    `messages` say what the listing left out.
    """

    training: FaceSource
    validation: FaceSource | None
    messages: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        return self.training.fingerprint()

    def contents(self, *, every: bool, seed: int) -> str:
        """Hex digest of the bytes of images drawn by `seed`, `SAMPLE` of them at most, or of `every` one."""
        sources = [self.training, *([] if self.validation is None else [self.validation])]
        digest = hashlib.sha256()
        for number, source in enumerate(sources):
            chosen = np.arange(len(source))
            if not every and len(source) > (most := SAMPLE // len(sources)):
                chosen = np.sort(np.random.default_rng([seed, number]).permutation(len(source))[:most])
            for index in chosen.tolist():
                digest.update(content(source, index))
        return digest.hexdigest()


def open_recipe_faces(recipe: Recipe, named: FaceSource | None = None) -> Faces:
    """The recipe's faces, split by people; the extra ones are trained on. `named` are those of `open_named_faces`,
    where they are open already.
    """
    data = recipe.data
    training = source = open_named_faces(data) if named is None else named
    messages: tuple[str, ...] = getattr(source, "messages", ())
    validation: FaceSource | None = None
    if data.validation:
        training, validation = split_people(source, fraction=data.validation, seed=recipe.run.seed)
    if data.extra is not None:
        extra = open_unlabelled(data.extra)
        training, messages = JoinedFaces([training, extra]), (*messages, *getattr(extra, "messages", ()))
    if data.most is not None and len(training) > data.most:
        drawn = np.random.default_rng(recipe.run.seed).permutation(len(training))[: data.most]
        training = Subset(training, np.sort(drawn))
    return Faces(training=training, validation=validation, messages=messages)


def open_named_faces(data: Data) -> FaceSource:
    """The faces of which it is known who they show: all but the extra ones."""
    if data.synthetic is not None:
        return synthetic_faces(
            people=data.synthetic.people,
            images_per_person=data.synthetic.images_per_person,
            size=data.size,
            seed=data.synthetic.seed,
        )
    assert data.images is not None
    if data.people is not None:
        return NamedFolder(data.images, data.people, min_images=data.min_images)
    return open_faces(data.images, min_images=data.min_images)


def make_loader(recipe: Recipe, faces: FaceSource, device: torch.device, ranks: Ranks = ALONE) -> FaceLoader:
    """Batches of the training faces, of which each rank reads its own slots."""
    data, shares = recipe.data, ranks.shares(recipe.data.batch, recipe.optimizer.accumulate)
    if not all(shares):
        raise InvalidInput(
            f"{ranks.size} ranks share data.batch {data.batch} in {len(shares)} parts, and some would have no image: "
            "raise data.batch, or start fewer ranks"
        )
    options = data.augmentation.model_dump()
    return FaceLoader(
        faces,
        sampler=_sampler(data, faces, recipe.run.seed),
        size=data.size,
        augmentation=Augmentation(**options) if any(options.values()) else None,
        workers=data.workers,
        prefetch=data.prefetch,
        seed=recipe.run.seed,
        device=device,
        slots=None if ranks.alone else np.concatenate([np.asarray(share) for share in shares]),
    )


def _sampler(data: Data, faces: FaceSource, seed: int) -> Sampler:
    match data.sampling:
        case "balanced":
            return BalancedSampler(
                faces.labels, batch_size=data.batch, seed=seed, images_per_person=data.images_per_person
            )
        case "uniform":
            return UniformSampler(faces.labels, batch_size=data.batch, seed=seed)
        case unknown:
            assert_never(unknown)


class FacesOf:
    """One face of each person asked for, drawn at random."""

    def __init__(self, faces: FaceSource, size: tuple[int, int], device: torch.device) -> None:
        self._faces, self._size, self._device = faces, size, device
        self._images = PersonImages(faces.labels)

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        draws = uniform((len(labels),), torch.empty(0), generator).numpy()
        owned = [self._images.of_label(int(label)) for label in labels.tolist()]
        chosen = np.array([images[int(draw * len(images))] for images, draw in zip(owned, draws, strict=True)])
        return load_images(self._faces, chosen, self._size).to(self._device)
