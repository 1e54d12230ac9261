"""Faces that tell which pixels a recogniser expects."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.data.faces import UnreadableImage
from steadface.data.loading import load_images
from steadface.data.pairs import PairSet

PEOPLE, IMAGES = 24, 4

Indices = NDArray[np.int64]


def probing_faces(pairs: PairSet, *, seed: int) -> tuple[Tensor, Indices]:
    """Up to 24 people who have two images or more in `pairs`, 4 of each at most: images (n, 3, 112, 112) and who (n,).

    Where the people are not known, both images of up to 48 genuine pairs, each pair taken for a person of its own.
    Unreadable images are left out. None where fewer than two people have several.
    """
    chosen, people = _of_people(pairs, seed) if pairs.people is not None else _of_pairs(pairs, seed)
    parts = []
    for place, image in enumerate(chosen):
        try:
            parts.append(load_images(pairs.faces, image))
        except UnreadableImage:
            people[place] = -1
    people = people[people >= 0]
    if (np.unique(people, return_counts=True)[1] > 1).sum() < 2:
        return torch.empty(0, 3, 112, 112), np.empty(0, dtype=np.int64)
    return torch.cat(parts), people


def _of_people(pairs: PairSet, seed: int) -> tuple[Indices, Indices]:
    assert pairs.people is not None
    used = np.union1d(pairs.first, pairs.second)
    people, counts = np.unique(pairs.people[used], return_counts=True)
    several = np.random.default_rng(seed).permutation(people[counts > 1])[:PEOPLE]
    images = [used[pairs.people[used] == person][:IMAGES] for person in several]
    chosen = np.concatenate([np.empty(0, dtype=np.int64), *images])
    return chosen, pairs.people[chosen].astype(np.int64)


def _of_pairs(pairs: PairSet, seed: int) -> tuple[Indices, Indices]:
    genuine = np.flatnonzero(pairs.same & (pairs.first != pairs.second))
    drawn = np.random.default_rng(seed).permutation(genuine)[: PEOPLE * IMAGES // 2]
    return np.stack([pairs.first[drawn], pairs.second[drawn]], axis=1).reshape(-1), np.arange(len(drawn)).repeat(2)
