"""Which images make up the batch of a step: pure functions of (seed, step), so that resuming needs no state."""

import math
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from steadface.errors import InvalidInput

# First word of the seed after the user's own, one per purpose, so that no two draws share a stream.
_IMAGES, _PEOPLE, _IMAGES_OF_PERSON = range(3)


class Sampler(Protocol):
    """`draw(step)` gives the (B,) indices of that step's batch; a pure function of (seed, step)."""

    @property
    def steps_per_epoch(self) -> int: ...

    def draw(self, step: int) -> NDArray[np.int64]: ...


class UniformSampler:
    """Every image equally often: batches cut from an endless chain of permutations of the N images.

    `steps_per_epoch` is N / batch_size rounded up; an epoch's last batch is filled from the next permutation.
    """

    def __init__(self, labels: ArrayLike, *, batch_size: int, seed: int) -> None:
        self._images = len(np.asarray(labels))
        self._batch_size, self._seed = _checked(self._images, batch_size, seed)
        self._chain = _Permutations(self._images, (seed, _IMAGES))
        self.steps_per_epoch = math.ceil(self._images / batch_size)

    def draw(self, step: int) -> NDArray[np.int64]:
        return self._chain.take(step * self._batch_size, self._batch_size)


class BalancedSampler:
    """Every person equally often, whatever number of images they have.

    People come from an endless chain of permutations, `images_per_person` images each, which stand next to each
    other in the batch; a person's images come from a chain of permutations of their own, so that none is seen
    twice before all have been seen once. `steps_per_epoch` counts as many images as there are.
    """

    def __init__(self, labels: ArrayLike, *, batch_size: int, seed: int, images_per_person: int = 1) -> None:
        array = np.asarray(labels, dtype=np.int64)
        self._batch_size, self._seed = _checked(len(array), batch_size, seed)
        if images_per_person < 1 or batch_size % images_per_person:
            raise InvalidInput(f"batch size {batch_size} is not a multiple of images_per_person {images_per_person}")
        self._each = images_per_person
        self._groups = PersonImages(array)
        self._people = _Permutations(self._groups.people, (seed, _PEOPLE))
        self.steps_per_epoch = math.ceil(len(array) / batch_size)

    def draw(self, step: int) -> NDArray[np.int64]:
        visits = self._batch_size // self._each
        start = step * visits
        people = self._people.take(start, visits)
        # Each permutation holds a person once, so its number is how often the person came before.
        earlier = np.arange(start, start + visits) // self._groups.people
        batch = [
            self._images_of(int(person), int(visit) * self._each) for person, visit in zip(people, earlier, strict=True)
        ]
        return np.concatenate(batch)

    def _images_of(self, person: int, start: int) -> NDArray[np.int64]:
        images = self._groups.of(person)
        chain = _Permutations(len(images), (self._seed, _IMAGES_OF_PERSON, person))
        return images[chain.take(start, self._each)]


class PersonImages:
    """The images of each label, found without a search: (N,) labels -> indices by person, ascending."""

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self._order = np.argsort(labels, kind="stable").astype(np.int64)
        self._present, starts = np.unique(labels[self._order], return_index=True)
        self._bounds = np.append(starts, len(labels))
        self._place = {int(label): place for place, label in enumerate(self._present)}
        self.people = len(self._present)

    def of(self, place: int) -> NDArray[np.int64]:
        """The images of the `place`-th label in use."""
        return self._order[self._bounds[place] : self._bounds[place + 1]]

    def of_label(self, label: int) -> NDArray[np.int64]:
        return self.of(self._place[label])


class _Permutations:
    """An endless chain of permutations of 0..n-1, the k-th from the seed (*seed, k); keeps the last one made."""

    def __init__(self, length: int, seed: tuple[int, ...]) -> None:
        self._length = length
        self._seed = seed
        self._last: tuple[int, NDArray[np.int64]] | None = None

    def take(self, start: int, count: int) -> NDArray[np.int64]:
        """Entries start .. start + count - 1 of the chain, (count,) int64."""
        parts = []
        while count > 0:
            number, position = divmod(start, self._length)
            part = self._permutation(number)[position : position + count]
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return np.concatenate(parts)

    def _permutation(self, number: int) -> NDArray[np.int64]:
        if self._last is None or self._last[0] != number:
            generator = np.random.default_rng((*self._seed, number))
            self._last = (number, generator.permutation(self._length).astype(np.int64))
        return self._last[1]


def _checked(images: int, batch_size: int, seed: int) -> tuple[int, int]:
    if not images:
        raise InvalidInput("there are no images to sample from")
    if batch_size < 1:
        raise InvalidInput(f"batch size is {batch_size}; give 1 or more")
    if seed < 0:
        raise InvalidInput(f"seed is {seed}; give 0 or more")
    return batch_size, seed
