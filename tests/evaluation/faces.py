"""Small networks and faces that the evaluation tests share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.backbones import Architecture, Backbone
from steadface.data.faces import ArrayFaces, Image, UnreadableImage
from steadface.data.pairs import PairSet

SIZE = 16


class LinearBackbone(Backbone):
    """A fixed random projection of the pixels: people who differ in pixels differ in embedding."""

    def __init__(self, dimensions: int = 32, seed: int = 0) -> None:
        super().__init__(Architecture(image_size=(SIZE, SIZE), embedding_size=dimensions))
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(dimensions, 3 * SIZE * SIZE, generator=generator) / (3 * SIZE * SIZE) ** 0.5
        self.weight = nn.Parameter(weight)
        self.norm = nn.BatchNorm1d(dimensions, affine=False)
        self.seen = 0

    def embed(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        embedded: Tensor = self.norm(pixels.flatten(1) @ self.weight.T)
        return embedded

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.normal_(self.weight, generator=generator)


def noise_faces(people: int, images: int | Sequence[int], *, spread: float = 40.0, seed: int = 0) -> ArrayFaces:
    """Each person a random picture, each image of theirs with noise of `spread` grey levels on it."""
    rng = np.random.default_rng(seed)
    counts = [images] * people if isinstance(images, int) else list(images)
    labels = np.repeat(np.arange(people), counts)
    bases = rng.uniform(40, 215, (people, SIZE, SIZE, 3))
    pixels = bases[labels] + rng.normal(0, spread, (len(labels), SIZE, SIZE, 3))
    return ArrayFaces(
        pixels.clip(0, 255).round().astype(np.uint8), labels, [f"person {number}" for number in range(people)]
    )


@dataclass
class Damaged:
    """A source of which some images cannot be read."""

    source: ArrayFaces
    broken: frozenset[int]
    labels: NDArray[np.int64] = field(init=False)
    people: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.labels, self.people = self.source.labels, self.source.people

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Image:
        if index in self.broken:
            raise UnreadableImage(f"{self.name(index)} is damaged")
        return self.source.read(index)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def fingerprint(self) -> str:
        return self.source.fingerprint()


def without_people(pairs: PairSet) -> PairSet:
    return PairSet(faces=pairs.faces, first=pairs.first, second=pairs.second, same=pairs.same, fold=pairs.fold)
