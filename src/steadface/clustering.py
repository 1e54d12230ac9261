"""Who is who among faces without labels, as a recogniser sees them.

Legend: c are the cosines of all pairs of images. Most pairs show two people, so

    bound = median(c) + 6 * 1.4826 * median(|c - median(c)|)

lies six standard deviations above strangers, however many images of one person there are among the pairs. Images at
least that alike show one person, and so do all that are joined through others.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

DEVIATIONS = 6
NORMAL = 1.4826
"""Standard deviations of a normal distribution per median absolute deviation."""

SAMPLED = 2048
"""Images whose pairs tell the bound: two million cosines are enough for a median."""

BLOCK = 2**24
"""Cosines in memory at a time."""


def people_alike(embeddings: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.int64]:
    """(n,) labels in 0..C-1, numbered by their first image, of unit embeddings (n, D).

    Whoever looks like nobody else has a label of their own.
    """
    bound = likeness_bound(embeddings, seed=seed)
    labels: NDArray[np.int64] = np.arange(len(embeddings))
    rows = max(1, BLOCK // len(embeddings))
    for start in range(0, len(embeddings), rows):
        first, second = np.nonzero(embeddings[start : start + rows] @ embeddings.T >= bound)
        # Joined block by block: all links of people with thousands of images would not fit into memory.
        links = (labels[first + start], labels[second])
        graph = coo_array((np.ones(len(first), dtype=np.int8), links), shape=(len(labels), len(labels)))
        labels = connected_components(graph, directed=False)[1][labels].astype(np.int64)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def likeness_bound(embeddings: NDArray[np.float32], *, seed: int = 0) -> float:
    """The cosine from which on two of the unit embeddings (n, D) show one person; of a sample where n is large."""
    count = len(embeddings)
    chosen = embeddings[np.random.default_rng(seed).choice(count, size=min(count, SAMPLED), replace=False)]
    cosines = (chosen @ chosen.T)[np.triu_indices(len(chosen), 1)]
    if not len(cosines):
        return 1.0
    middle = np.median(cosines)
    return float(middle + DEVIATIONS * NORMAL * np.median(np.abs(cosines - middle)))
