"""Which pairs are attacked, and the threshold that they are judged at: frozen on clean pairs of other people.

A threshold taken from the people under attack would be tuned to them; one taken after the attack would move with it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.arguments import rate
from steadface.data.pairs import PairSet
from steadface.errors import InvalidInput, too_few
from steadface.evaluation.verification import RULE_OF_THREE, pairs_needed, supports, threshold_at

Indices = NDArray[np.int64]

MAX_CROSS_IMAGES = 8192
"""All cross pairs of so many images are 33.5 million, 134 MB of similarities."""


@dataclass(frozen=True, kw_only=True)
class CrossSimilarities:
    """Cosines (n,) of all pairs of images, of one person and of different people."""

    genuine: NDArray[np.float32]
    impostor: NDArray[np.float32]


def cross_similarities(embeddings: NDArray[np.float32], people: Indices, *, rows: int = 512) -> CrossSimilarities:
    """All pairs of unit `embeddings` (n, D) with `people` (n,), in blocks of `rows` rows; 4 bytes a pair."""
    genuine: list[NDArray[np.float32]] = []
    impostor = np.empty(count_impostors(people), dtype=np.float32)
    filled = 0
    for start in range(0, len(embeddings), rows):
        part = slice(start, start + rows)
        cosines = embeddings[part] @ embeddings[start:].T
        later = np.arange(cosines.shape[1]) > np.arange(cosines.shape[0])[:, None]
        same = people[part, None] == people[None, start:]
        genuine.append(cosines[later & same])
        found = cosines[later & ~same]
        impostor[filled : filled + len(found)] = found
        filled += len(found)
    none = np.empty(0, dtype=np.float32)
    return CrossSimilarities(genuine=np.concatenate([none, *genuine]), impostor=impostor)


def count_impostors(people: Indices) -> int:
    """How many pairs of images (n,) show different people."""
    counts = np.unique(people, return_counts=True)[1].astype(np.int64)
    return int((len(people) ** 2 - (counts**2).sum()) // 2)


def capped(images: Indices, rng: np.random.Generator, limit: int = MAX_CROSS_IMAGES) -> Indices:
    """`images`, or `limit` of them drawn by `rng`, in ascending order."""
    return images if len(images) <= limit else np.sort(rng.choice(images, limit, replace=False))


@dataclass(frozen=True, kw_only=True)
class AttackSplit:
    """Pairs to attack and what to calibrate on; all indices are into the pair set's own arrays.

    `images` are calibrated on by all their cross pairs. Without known people they are None, and `listed` holds
    the listed impostor pairs of the folds that are not attacked.
    """

    fmr: float
    genuine: Indices
    impostor: Indices
    images: Indices | None
    listed: Indices
    impostor_pairs: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The frozen threshold and the clean pairs that it comes from."""

    fmr: float
    threshold: float
    measured_fmr: float
    impostor_mean: float
    impostor_pairs: int
    images: int | None
    people: int | None

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": "listed pairs of other folds" if self.images is None else "all cross pairs of other people",
            "fmr": self.fmr,
            "threshold": self.threshold,
            "measured_fmr": self.measured_fmr,
            "impostor_mean": self.impostor_mean,
            "impostor_pairs": self.impostor_pairs,
            "images": self.images,
            "people": self.people,
        }


def split_for_attack(
    pairs: PairSet, *, fmr: float, max_pairs: int, seed: int, most_images: int = MAX_CROSS_IMAGES, checked: bool = True
) -> AttackSplit:
    """Draw `max_pairs` genuine and as many impostor pairs, even over the folds, and the people to calibrate on.

    Should that touch more than half of the people, or should the people not be known, the pairs come from every
    second fold only, so that the others stay clean. At most `most_images` are calibrated on. Costs no embedding.
    Raises `SteadfaceError` where the impostor pairs left over do not support `fmr`, unless the threshold comes from
    elsewhere (`checked` false).
    """
    fmr = rate("FMR", fmr)
    if max_pairs < 1:
        raise InvalidInput(f"max_pairs is {max_pairs}; attack at least one genuine and one impostor pair")
    names = np.unique(pairs.fold)
    split = None if pairs.people is None else _split(pairs, names, fmr, max_pairs, seed, most_images)
    if split is None or (len(names) > 1 and _touches_most(pairs, split)):
        split = _split(pairs, names[::2], fmr, max_pairs, seed, most_images)
    if checked and not supports(split.impostor_pairs, fmr):
        raise _too_few_left(split, max_pairs)
    if not len(split.genuine) or not len(split.impostor):
        raise InvalidInput("an attack needs genuine and impostor pairs, and the pairs lack one of them")
    return split


@dataclass(frozen=True, kw_only=True)
class Impostors:
    """Clean `similarity` (n,) of different people, none of them attacked; what any threshold is read off.

    `images` and `people` say how many they come from, None where they are listed pairs of unknown people.
    """

    similarity: NDArray[np.float32]
    images: int | None = None
    people: int | None = None

    def at(self, fmr: float) -> Calibration:
        """The threshold of that FMR. Raises `SteadfaceError` where the pairs are too few for it."""
        if not supports(len(self.similarity), fmr):
            raise too_few(
                "readable impostor pairs",
                len(self.similarity),
                pairs_needed(fmr),
                why=f"a threshold at FMR {fmr:g}",
                remedy="look at the files, or ask for a higher rate",
            )
        return self.given(threshold_at(self.similarity, fmr), fmr)

    def given(self, threshold: float, fmr: float | None = None) -> Calibration:
        """What these pairs say of a threshold that came from elsewhere."""
        measured = float(np.mean(self.similarity >= threshold))
        return Calibration(
            fmr=measured if fmr is None else fmr,
            threshold=threshold,
            measured_fmr=measured,
            impostor_mean=float(self.similarity.mean(dtype=np.float64)),
            impostor_pairs=len(self.similarity),
            images=self.images,
            people=self.people,
        )


def calibrate(split: AttackSplit, pairs: PairSet, embeddings: NDArray[np.float32]) -> Calibration:
    """The threshold of `split` from clean `embeddings` (N, D); rows of NaN, unreadable images, are left out.

    Raises `SteadfaceError` where too few pairs remain.
    """
    return clean_impostors(split, pairs, embeddings).at(split.fmr)


def clean_impostors(split: AttackSplit, pairs: PairSet, embeddings: NDArray[np.float32]) -> Impostors:
    """The similarities that `split` sets aside: all cross pairs of its images, or its listed pairs."""
    if split.images is None or pairs.people is None:
        first, second = embeddings[pairs.first[split.listed]], embeddings[pairs.second[split.listed]]
        similarity = (first * second).sum(1)
        return Impostors(similarity=similarity[np.isfinite(similarity)])
    return cross_impostors(embeddings[split.images], pairs.people[split.images])


def cross_impostors(embeddings: NDArray[np.float32], people: Indices) -> Impostors:
    """All cross pairs of different `people` (n,) among unit `embeddings` (n, D); rows of NaN are left out."""
    usable = np.isfinite(embeddings[:, 0])
    known = people[usable]
    return Impostors(
        similarity=cross_similarities(embeddings[usable], known).impostor,
        images=int(usable.sum()),
        people=len(np.unique(known)),
    )


def _split(pairs: PairSet, folds: Indices, fmr: float, max_pairs: int, seed: int, most_images: int) -> AttackSplit:
    rng = np.random.default_rng(seed)
    attackable = np.isin(pairs.fold, folds)
    genuine = _stratified(pairs.fold, np.flatnonzero(attackable & pairs.same), max_pairs, rng)
    impostor = _stratified(pairs.fold, np.flatnonzero(attackable & ~pairs.same), max_pairs, rng)
    listed = np.flatnonzero(~attackable & ~pairs.same)
    images, count = None, len(listed)
    if pairs.people is not None:
        used = np.union1d(pairs.first, pairs.second)
        other = used[~np.isin(pairs.people[used], _people(pairs, genuine, impostor))]
        images = capped(other, rng, most_images)
        count = count_impostors(pairs.people[images])
    return AttackSplit(fmr=fmr, genuine=genuine, impostor=impostor, images=images, listed=listed, impostor_pairs=count)


def _stratified(fold: Indices, candidates: Indices, count: int, rng: np.random.Generator) -> Indices:
    """`count` of the candidates, as even over the folds as they allow; in ascending order."""
    drawn = rng.permutation(candidates)
    drawn = drawn[np.argsort(fold[drawn], kind="stable")]
    starts = np.searchsorted(fold[drawn], fold[drawn])  # where each one's fold begins
    turn = np.arange(len(drawn)) - starts
    return np.sort(drawn[np.argsort(turn, kind="stable")][:count])


def _people(pairs: PairSet, *chosen: Indices) -> Indices:
    assert pairs.people is not None
    every = np.concatenate(chosen)
    return np.unique(pairs.people[np.concatenate([pairs.first[every], pairs.second[every]])])


def _touches_most(pairs: PairSet, split: AttackSplit) -> bool:
    assert pairs.people is not None
    everybody = np.unique(pairs.people[np.concatenate([pairs.first, pairs.second])])
    return 2 * len(_people(pairs, split.genuine, split.impostor)) > len(everybody)


def _too_few_left(split: AttackSplit, max_pairs: int) -> InvalidInput:
    left = split.impostor_pairs
    possible = f"an FMR of {RULE_OF_THREE / left:.2g} or more, or for " if left > RULE_OF_THREE else ""
    return too_few(
        "impostor pairs of people who are not attacked",
        left,
        pairs_needed(split.fmr),
        why=f"a threshold at FMR {split.fmr:g}",
        remedy=f"ask for {possible}fewer attacked pairs (max_pairs is {max_pairs}), or bring more people",
    )
