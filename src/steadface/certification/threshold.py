"""The threshold of the smoothed verifier, frozen on people who are not certified, under the same noise."""

import numpy as np
from numpy.typing import NDArray

from steadface.certification.request import TEMPLATE_DRAWS
from steadface.certification.verifier import template_of
from steadface.certification.work import Work
from steadface.evaluation.calibration import AttackSplit, Calibration, Impostors

Indices = NDArray[np.int64]


def listed(split: AttackSplit, count: int) -> Indices:
    """Some `count` of the impostor pairs that the threshold may come from, even over the folds."""
    return split.listed[:: max(1, len(split.listed) // count)]


def calibrated(work: Work) -> Calibration:
    """That of the FMR asked for, or what the same pairs say of the threshold that was given.

    Raises `SteadfaceError` where the readable pairs are too few.
    """
    request, split, pairs = work.request, work.split, work.request.pairs
    if split.images is None or pairs.people is None:
        chosen = listed(split, request.calibration_pairs)
        probes = work.probes("threshold", pairs.first[chosen], TEMPLATE_DRAWS)
        enrolled = work.enrolled("threshold enrolled", pairs.second[chosen])
        similarity = np.median(np.einsum("pnd,pd->pn", probes, enrolled), axis=1)
        impostors = Impostors(similarity=similarity[np.isfinite(similarity)])
    else:
        probes = work.probes("threshold", split.images, TEMPLATE_DRAWS)
        impostors = cross_impostors(probes, pairs.people[split.images])
    return impostors.at(request.fmr) if request.threshold is None else impostors.given(request.threshold)


def cross_impostors(probes: NDArray[np.float32], people: Indices) -> Impostors:
    """Smoothed cosines of all pairs of images of different `people` (n,), from their embeddings under noise
    (n, draws, D): those of the earlier one against the template of the later one; rows of NaN are left out.
    """
    readable = np.isfinite(probes).all((1, 2))
    probes, people = probes[readable], people[readable]
    enrolled = np.stack([template_of(own) for own in probes]) if len(probes) else probes[:, 0]
    found = [np.empty(0, dtype=np.float32)]
    for place in range(len(people) - 1):
        others = enrolled[place + 1 :][people[place + 1 :] != people[place]]
        found.append(np.median(probes[place] @ others.T, axis=0).astype(np.float32))
    return Impostors(similarity=np.concatenate(found), images=len(people), people=len(np.unique(people)))
