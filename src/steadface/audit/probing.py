"""Faces that tell which pixels a recogniser expects."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.data.loading import load_images
from steadface.data.pairs import PairSet

PEOPLE, IMAGES = 32, 4


def probing_faces(pairs: PairSet, *, seed: int) -> tuple[Tensor, NDArray[np.int64]]:
    """Up to 32 people who have two images or more in `pairs`, 4 of each at most: images (n, 3, 112, 112) and who (n,).

    None where the people are not known, or fewer than two of them have several images.
    """
    none = torch.empty(0, 3, 112, 112), np.empty(0, dtype=np.int64)
    if pairs.people is None:
        return none
    used = np.union1d(pairs.first, pairs.second)
    people, counts = np.unique(pairs.people[used], return_counts=True)
    several = np.random.default_rng(seed).permutation(people[counts > 1])[:PEOPLE]
    if len(several) < 2:
        return none
    chosen = np.concatenate([used[pairs.people[used] == person][:IMAGES] for person in several])
    return load_images(pairs.faces, chosen), pairs.people[chosen]
