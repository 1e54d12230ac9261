"""1:N identification under attack: who is enrolled and who probes, and what that makes of embeddings.

The words and the measures are those of `steadface.evaluation.gallery`. The people whose pairs are attacked dodge their
own template or impersonate somebody enrolled; the threshold comes from strangers who are not attacked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steadface.data.pairs import PairSet
from steadface.evaluation.calibration import AttackSplit
from steadface.evaluation.gallery import (
    Embeddings,
    Gallery,
    Indices,
    Mask,
    Standing,
    check_fpir,
    enrol,
    highest_similarities,
    missed,
    search,
    shortage,
    strangers_needed,
    taken_for,
    threshold_at_fpir,
)
from steadface.evaluation.intervals import clopper_pearson


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`errors` in so many `probes`; the value is None where there are none."""

    errors: int
    probes: int

    @classmethod
    def of(cls, wrong: Mask) -> "Rate":
        return cls(errors=int(wrong.sum()), probes=len(wrong))

    @property
    def value(self) -> float | None:
        return self.errors / self.probes if self.probes else None

    @property
    def ci(self) -> tuple[float, float]:
        """95 %, Clopper and Pearson."""
        return clopper_pearson(self.errors, self.probes)

    def to_json(self, name: str) -> dict[str, Any]:
        return {name: self.value, f"{name}_ci": list(self.ci)}


@dataclass(frozen=True, kw_only=True)
class Mated:
    """Mated probes, clean or dodging: FNIR at rank 1 in the open set, misses at rank 1 in the closed one."""

    fnir: Rate
    rank1_miss: Rate

    def clean_json(self) -> dict[str, Any]:
        """`rank1` is the share found at rank 1, as rank-1 rates are usually given."""
        found = Rate(errors=self.rank1_miss.probes - self.rank1_miss.errors, probes=self.rank1_miss.probes)
        return {**self.fnir.to_json("fnir"), **found.to_json("rank1"), "probes": self.fnir.probes}

    def attack_json(self) -> dict[str, Any]:
        rates = {**self.fnir.to_json("fnir"), **self.rank1_miss.to_json("rank1_miss")}
        return {"goal": "dodging", **rates, "probes": self.fnir.probes}


@dataclass(frozen=True, kw_only=True)
class Targeted:
    """Strangers' probes that designate somebody enrolled: returned at rank 1 in the open and in the closed set."""

    fpir: Rate
    rank1: Rate

    def attack_json(self) -> dict[str, Any]:
        rates = {**self.fpir.to_json("targeted_fpir"), **self.rank1.to_json("targeted_rank1")}
        return {"goal": "impersonation", **rates, "probes": self.fpir.probes}


@dataclass(frozen=True, kw_only=True)
class Identifier:
    """A gallery and the threshold that so many clean `strangers` fix at `fpir`.

    Both methods take several `versions` (n, D) of the same probes, such as clean, and as each attack and radius left
    them: a probe is counted as wrong if one of its versions is. Rows of NaN say nothing; probes without a readable
    version, or whose `people` (n,) could not be enrolled, are left out.
    """

    gallery: Gallery
    fpir: float
    threshold: float
    strangers: int

    def mated(self, people: Indices, *versions: Embeddings) -> Mated:
        """Probes of enrolled `people`."""
        opened, closed = self._worst(people, versions, missed)
        return Mated(fnir=Rate.of(opened), rank1_miss=Rate.of(closed))

    def targeted(self, people: Indices, *versions: Embeddings) -> Targeted:
        """Probes of strangers who want to be taken for `people`."""
        opened, closed = self._worst(people, versions, taken_for)
        return Targeted(fpir=Rate.of(opened), rank1=Rate.of(closed))

    def _worst(
        self, people: Indices, versions: tuple[Embeddings, ...], wrong: Callable[[Standing, float], Mask]
    ) -> NDArray[np.bool_]:
        """(2, m): wrong at the threshold and in the closed set, for the m probes that can be judged."""
        readable = np.stack([np.isfinite(version[:, 0]) for version in versions])
        usable = np.isin(people, self.gallery.people) & readable.any(0)
        found = np.zeros((2, len(people)), dtype=bool)
        for version, seen in zip(versions, readable, strict=True):
            rows = np.flatnonzero(usable & seen)
            standing = search(self.gallery, version[rows], people[rows])
            found[:, rows] |= np.stack([wrong(standing, self.threshold), wrong(standing, -inf)])
        return found[:, usable]


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What the attacks inside the balls up to radius `eps` did."""

    norm: str
    eps: float
    found: Mated | Targeted

    def to_json(self) -> dict[str, Any]:
        return {**self.found.attack_json(), "norm": self.norm, "eps": self.eps}


@dataclass(frozen=True, kw_only=True)
class Identification:
    """All 1:N figures of an audit."""

    identifier: Identifier
    clean: Mated
    attacks: tuple[Attacked, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "fpir": self.identifier.fpir,
            "threshold": self.identifier.threshold,
            "gallery": len(self.identifier.gallery.people),
            "strangers": self.identifier.strangers,
            "clean": self.clean.clean_json(),
            "attacks": [attacked.to_json() for attacked in self.attacks],
        }


@dataclass(frozen=True, kw_only=True)
class IdentificationPlan:
    """Who is enrolled and who probes, as indices into a pair set's own arrays.

    `gallery` and `strangers` are images: those enrolled, several of one person possible, and one of each stranger.
    `mated` are attacked genuine pairs whose first image searches for its own person; `impersonation` attacked impostor
    pairs whose first image, a stranger's, searches for the person of the second.
    """

    fpir: float
    gallery: Indices
    strangers: Indices
    mated: Indices
    impersonation: Indices

    def images(self) -> Indices:
        """The images that must be embedded besides those of the attacked pairs, ascending."""
        return np.union1d(self.gallery, self.strangers)


def plan_identification(
    pairs: PairSet, split: AttackSplit, *, seed: int, fpir: float = 1e-2, most: int = 1000
) -> IdentificationPlan | str:
    """The 1:N part of an attack on the pairs of `split`, or the reason why there can be none. Costs no embedding.

    The second images of the attacked pairs are enrolled, and people who are not attacked up to `most` in all. An
    impostor pair serves, and enrols its second person, unless its first one is enrolled; a genuine one unless its first
    image is. Strangers and the people enrolled beside the attacked ones come from the calibration images of `split`:
    nobody of them is attacked. Raises `SteadfaceError` unless 0 < fpir < 1.
    """
    check_fpir(fpir)
    if pairs.people is None or split.images is None:
        return "the pairs do not say who is who, so nobody can be enrolled: bring pairs with known people for 1:N"
    impersonation = _impersonators(pairs, pairs.people, split)
    gallery = np.union1d(pairs.second[split.genuine], pairs.second[impersonation])
    mated = split.genuine[~np.isin(pairs.first[split.genuine], gallery)]
    if not len(mated) and not len(impersonation):
        return "every probe shows somebody or something that is enrolled: attack fewer pairs, or bring more people"
    others = _one_each(split.images, pairs.people, np.random.default_rng(seed))
    needed = strangers_needed(fpir)
    if len(others) < needed:
        return str(shortage(fpir, len(others)))
    room = most - len(np.unique(pairs.people[gallery]))
    beside = max(0, min(room, len(others) - needed, len(others) // 2))  # strangers fix the threshold: half at least
    return IdentificationPlan(
        fpir=fpir,
        gallery=np.union1d(gallery, others[:beside]),
        strangers=np.sort(others[beside:]),
        mated=mated,
        impersonation=impersonation,
    )


def open_gallery(plan: IdentificationPlan, pairs: PairSet, embeddings: Embeddings) -> Identifier:
    """Enrols and calibrates with the clean unit `embeddings` (N, D) of all images; rows of NaN are left out.

    Raises `SteadfaceError` where too few strangers can be read, or nobody who is to be enrolled.
    """
    assert pairs.people is not None
    gallery = enrol(embeddings[plan.gallery], pairs.people[plan.gallery])
    strangers = embeddings[plan.strangers]
    highest = highest_similarities(gallery, strangers[np.isfinite(strangers[:, 0])])
    threshold = threshold_at_fpir(highest, plan.fpir)
    return Identifier(gallery=gallery, fpir=plan.fpir, threshold=threshold, strangers=len(highest))


def _impersonators(pairs: PairSet, people: Indices, split: AttackSplit) -> Indices:
    """Impostor pairs of `split` whose first person is not enrolled, by a genuine pair or by one of these."""
    enrolled = people[pairs.second[split.genuine]]
    able = split.impostor[~np.isin(people[pairs.first[split.impostor]], enrolled)]
    return able[~np.isin(people[pairs.first[able]], people[pairs.second[able]])]


def _one_each(images: Indices, people: Indices, rng: np.random.Generator) -> Indices:
    """One of the `images` of each person in them, people and images in random order."""
    shuffled = rng.permutation(images)
    first = np.unique(people[shuffled], return_index=True)[1]
    return rng.permutation(shuffled[first])
