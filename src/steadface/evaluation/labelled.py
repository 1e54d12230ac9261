"""Verification on labelled faces without a pairs file: pairs are drawn from the labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from steadface.data.faces import FaceSource
from steadface.data.pairs import PairSet
from steadface.data.sampling import PersonImages
from steadface.errors import InvalidInput, too_few
from steadface.evaluation.calibration import (
    MAX_CROSS_IMAGES,
    capped,
    count_impostors,
    cross_similarities,
    split_for_attack,
)
from steadface.evaluation.embedding import Blurred, MirrorEmbedder, Noisy, embed_faces
from steadface.evaluation.findings import AttackResult
from steadface.evaluation.intervals import Figure
from steadface.evaluation.robustness import AttackPlan, measure_robustness
from steadface.evaluation.verification import (
    equal_error_rate,
    lowest_fmr,
    operating_point,
    pairs_needed,
    roc,
    supports,
)

Indices = NDArray[np.int64]

GROUPS = 32
"""Of people, left out in turns: with as many as the 30 of a small set each is a group of their own."""
COMPARED_IMAGES = 2048
"""Two million cross pairs, whose order is found anew without each group."""
NOBODY = -1
"""The group that nobody is in."""


@dataclass(frozen=True, kw_only=True)
class ValidationMetrics:
    """What held-out people say of a network: TAR at the threshold of `fmr` over all cross pairs, EER, means.

    For comparison with another network on the same people, where that was asked for: `clean`, the EER, and `attacked`,
    the worse goal's error rate, its mean over the radii, or else the EER under noise; both also without each group of
    people.
    """

    fmr: float
    threshold: float
    tar: float
    tar_ci: tuple[float, float]
    eer: float
    genuine_mean: float
    impostor_mean: float
    genuine_pairs: int
    impostor_pairs: int
    attacks: tuple[AttackResult, ...]
    clean: Figure | None = None
    attacked: Figure | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "fmr": self.fmr,
            "threshold": self.threshold,
            "tar": self.tar,
            "tar_ci": list(self.tar_ci),
            "eer": self.eer,
            "genuine_mean": self.genuine_mean,
            "impostor_mean": self.impostor_mean,
            "genuine_pairs": self.genuine_pairs,
            "impostor_pairs": self.impostor_pairs,
            "attacks": [result.to_json() for result in self.attacks],
        }


def validation_metrics(
    backbone: nn.Module,
    faces: FaceSource,
    *,
    fmr: float = 1e-2,
    max_pairs: int = 300,
    mirror: bool = False,
    attack: AttackPlan | None = None,
    sigma: float | None = None,
    blur: float = 0.0,
    attacked_pairs: int = 50,
    compared: bool = False,
    seed: int = 0,
    batch_size: int = 64,
    threads: int = 1,
) -> ValidationMetrics:
    """Verification of `faces`, held-out people, light enough to be repeated while training.

    Genuine pairs are those of `pairs_from_labels`; impostors are all cross pairs of the images in them and in as many
    listed impostor pairs. Under `attack` the threshold comes from people who are not attacked, so it differs.
    `compared` asks for the figures that two networks are compared by: the clean one, and with an attack, or else
    `sigma`, the noise under which a smoothed verifier would see the faces, and its `blur`, that under it.
    The backbone stays on its device and in its mode. Raises `SteadfaceError` where the pairs do not support `fmr`.
    """
    pairs, used = check_supported(faces, fmr=fmr, max_pairs=max_pairs, seed=seed)
    split = None
    if attack is not None:
        split = split_for_attack(pairs, fmr=fmr, max_pairs=attacked_pairs, seed=seed)
    embedder = MirrorEmbedder(backbone, mirror)
    rows = embed_faces(embedder, faces, used, batch_size=batch_size, threads=threads, skip_unreadable=True)
    embeddings = np.full((len(faces), rows.shape[1]), np.nan, dtype=np.float32)
    embeddings[used] = rows
    readable = used[np.isfinite(rows).all(1)]
    crossed = capped(readable, np.random.default_rng(seed), COMPARED_IMAGES if compared else MAX_CROSS_IMAGES)
    impostor = cross_similarities(embeddings[crossed], faces.labels[crossed]).impostor
    genuine = (embeddings[pairs.first] * embeddings[pairs.second]).sum(1)[pairs.same]
    genuine = genuine[np.isfinite(genuine)]
    if not len(genuine) or not len(impostor):
        raise InvalidInput("no pair of held-out faces can be read; look at the files")
    point = operating_point(genuine, impostor, fmr)
    results: tuple[AttackResult, ...] = ()
    if attack is not None and split is not None:
        results = measure_robustness(
            embedder, pairs, embeddings, split, attack, seed=seed, batch_size=batch_size
        ).results
    eer = equal_error_rate(roc(genuine, impostor))
    clean, attacked = None, None
    if compared:
        group_of = _grouped(faces.labels, used, seed)
        clean = _error_by_groups(eer, embeddings, faces.labels, group_of, crossed, pairs)
        if sigma is not None:
            noisy = MirrorEmbedder(Noisy(Blurred(backbone, blur), sigma, seed), mirror)
            embeddings[used] = embed_faces(
                noisy, faces, used, batch_size=batch_size, threads=threads, skip_unreadable=True
            )
            attacked = _error_under_noise(embeddings, faces.labels, group_of, crossed, pairs)
        elif results:
            attacked = _attacked_by_groups(results, pairs, group_of)
    return ValidationMetrics(
        fmr=fmr,
        threshold=point.threshold,
        tar=point.tar,
        tar_ci=point.tar_ci,
        eer=eer,
        genuine_mean=float(genuine.mean(dtype=np.float64)),
        impostor_mean=float(impostor.mean(dtype=np.float64)),
        genuine_pairs=len(genuine),
        impostor_pairs=len(impostor),
        attacks=results,
        clean=clean,
        attacked=attacked,
    )


def check_supported(faces: FaceSource, *, fmr: float, max_pairs: int, seed: int) -> tuple[PairSet, Indices]:
    """The pairs that `validation_metrics` looks at, and their images. Raises `SteadfaceError` as it does."""
    pairs = pairs_from_labels(faces, max_pairs, seed=seed)
    used = np.union1d(pairs.first, pairs.second)
    available = count_impostors(faces.labels[used])
    if not supports(available, fmr):
        raise too_few(
            "impostor pairs of held-out people",
            available,
            pairs_needed(fmr),
            why=f"a threshold at FMR {fmr:g}",
            remedy=f"ask for {lowest_fmr(available):.2g} or more, or hold out more people",
        )
    return pairs, used


def _grouped(labels: Indices, used: Indices, seed: int) -> Indices:
    """The group of every image (N,): people dealt out at random, evenly; NOBODY for people without an image `used`."""
    people = np.random.default_rng(seed).permutation(np.unique(labels[used]))
    turn = np.full(int(labels.max()) + 1, NOBODY, dtype=np.int64)
    turn[people] = np.arange(len(people)) % min(GROUPS, len(people))
    groups: Indices = turn[labels]
    return groups


def _error_by_groups(
    value: float, embeddings: NDArray[np.float32], labels: Indices, group_of: Indices, crossed: Indices, pairs: PairSet
) -> Figure:
    """The EER `value` of listed genuine and `crossed` impostor pairs, and what it is without each group of people."""
    genuine = (embeddings[pairs.first] * embeddings[pairs.second]).sum(1)[pairs.same]
    readable = np.isfinite(genuine)
    genuine, owner = genuine[readable], group_of[pairs.first[pairs.same][readable]]

    def error(without: int) -> float:
        images = crossed[group_of[crossed] != without]
        impostor = cross_similarities(embeddings[images], labels[images]).impostor
        left = genuine[owner != without]
        # Without the only people who have pairs there is nothing to say: as if they made no difference.
        return equal_error_rate(roc(left, impostor)) if len(left) and len(impostor) else value

    return Figure(value=value, without=tuple(error(group) for group in range(int(group_of.max()) + 1)))


def _error_under_noise(
    embeddings: NDArray[np.float32], labels: Indices, group_of: Indices, crossed: Indices, pairs: PairSet
) -> Figure:
    """The EER of `embeddings` of noisy images, and without each group of people."""
    genuine = (embeddings[pairs.first] * embeddings[pairs.second]).sum(1)[pairs.same]
    impostor = cross_similarities(embeddings[crossed], labels[crossed]).impostor
    value = equal_error_rate(roc(genuine[np.isfinite(genuine)], impostor))
    return _error_by_groups(value, embeddings, labels, group_of, crossed, pairs)


def _attacked_by_groups(results: Sequence[AttackResult], pairs: PairSet, group_of: Indices) -> Figure:
    """The worst error rate of either goal, its mean over the radii, and without each group of people.

    `group_of` (N,) are the groups of the images; a pair is of a group that either of its images is of.
    """
    groups = np.arange(int(group_of.max()) + 1)
    worst: dict[float, NDArray[np.float64]] = {}
    for result in results:
        chosen = np.array(result.attacked, dtype=np.int64)
        of_group = (group_of[pairs.first[chosen]][:, None] == groups) | (
            group_of[pairs.second[chosen]][:, None] == groups
        )
        kept = np.concatenate([np.ones((len(chosen), 1), dtype=bool), ~of_group], axis=1)
        wrong = np.isin(chosen, result.wrong)[:, None]
        counts = kept.sum(0)
        rates = np.where(counts > 0, (kept & wrong).sum(0) / np.maximum(counts, 1), result.error_rate)
        worst[result.eps] = np.maximum(rates, worst.get(result.eps, 0.0))
    mean = np.mean(list(worst.values()), axis=0)
    return Figure(value=float(mean[0]), without=tuple(mean[1:].tolist()))


def pairs_from_labels(faces: FaceSource, max_pairs: int = 3000, *, folds: int = 10, seed: int = 0) -> PairSet:
    """Up to `max_pairs` genuine and as many impostor pairs, in `folds` folds that share no person.

    Genuine pairs are dealt out in turns, one to every person and round again until there are enough, so that a person
    with hundreds of images counts like the others; impostor pairs take two people of the fold and an image of each, all
    equally likely. No pair is drawn twice. With fewer than two people per fold there are fewer folds. Raises
    `SteadfaceError` below four people or without anybody who has two images.
    """
    if max_pairs < 1:
        raise InvalidInput(f"max_pairs is {max_pairs}; draw at least one pair")
    people = np.unique(faces.labels)
    if len(people) < 4:
        raise too_few("people", len(people), 4, why="drawing pairs", remedy="bring more people, or hold out more")
    counts = np.bincount(faces.labels)
    if counts.max() < 2:
        raise InvalidInput("nobody has two images, so there are no genuine pairs; bring more images a person")
    rng = np.random.default_rng(seed)
    by_person = PersonImages(faces.labels)
    folds = max(2, min(folds, len(people) // 2))
    share = -(-max_pairs // folds)
    drawn = []
    for fold, members in enumerate(np.array_split(rng.permutation(people), folds)):
        images = [by_person.of_label(int(person)) for person in members]
        genuine = _genuine_pairs(images, share, rng)
        impostor = _impostor_pairs(images, share, rng)
        same = np.repeat([True, False], [len(genuine), len(impostor)])
        drawn.append((np.concatenate([genuine, impostor]), same, np.full(len(same), fold)))
    ends, same, fold_of = (np.concatenate(column) for column in zip(*drawn, strict=True))
    return PairSet(
        faces=faces,
        first=ends[:, 0],
        second=ends[:, 1],
        same=same,
        fold=fold_of.astype(np.int64),
        people=np.asarray(faces.labels, dtype=np.int64),
    )


def _genuine_pairs(images: list[Indices], count: int, rng: np.random.Generator) -> Indices:
    """(n <= count, 2): pairs of each person in random order, taken in turns."""
    pairs = [np.empty((0, 2), dtype=np.int64)]
    turns = [np.empty(0, dtype=np.int64)]
    for own in images:
        possible = len(own) * (len(own) - 1) // 2
        number = rng.choice(possible, size=min(possible, count), replace=False, shuffle=True)
        # The number-th pair (low, high) in the order (0, 1), (0, 2), (1, 2), (0, 3), ...
        high = ((1 + np.sqrt(1 + 8 * number.astype(np.float64))) // 2).astype(np.int64)
        low = number - high * (high - 1) // 2
        pairs.append(np.stack([own[low], own[high]], axis=1))
        turns.append(np.arange(len(number)))
    every, turn = np.concatenate(pairs), np.concatenate(turns)
    return every[np.lexsort((rng.random(len(every)), turn))[:count]]


def _impostor_pairs(images: list[Indices], count: int, rng: np.random.Generator) -> Indices:
    """(n <= count, 2): two different people, an image of each; twice as many are drawn as repeats may cost."""
    draws = 2 * count + 16
    first = rng.integers(len(images), size=draws)
    second = (first + rng.integers(1, len(images), size=draws)) % len(images)
    sizes = np.array([len(own) for own in images])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    flat = np.concatenate(images)
    ends = [flat[starts[who] + rng.integers(sizes[who])] for who in (first, second)]
    pairs = np.stack(ends, axis=1)
    fresh = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)[1]
    return pairs[np.sort(fresh)[:count]]
