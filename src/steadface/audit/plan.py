"""The plan of an audit: the pairs it attacks, the images that must be embedded, and the thresholds that follow."""

from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from steadface.audit.request import Preset
from steadface.data.pairs import PairSet
from steadface.errors import InvalidInput, too_few
from steadface.evaluation.calibration import (
    AttackSplit,
    Calibration,
    Impostors,
    capped,
    clean_impostors,
    count_impostors,
    cross_impostors,
    split_for_attack,
)
from steadface.evaluation.embedding import MirrorEmbedder, Progress, embed_faces
from steadface.evaluation.identification import IdentificationPlan, plan_identification
from steadface.evaluation.series import Goal
from steadface.evaluation.verification import lowest_fmr, pairs_needed, supports

FMRS = (1e-2, 1e-3, 1e-4)
"""Reported besides the one asked for, where the calibration pairs support them."""

FPIR = 1e-2

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All indices are into `pairs`' own arrays; `others` are calibration pairs that the user gave, and `usable` (m,)
    those of their images that show nobody who is attacked.
    """

    pairs: PairSet
    split: AttackSplit
    others: PairSet | None
    usable: Indices
    identification: IdentificationPlan | None
    remark: str = ""
    """Why there is no 1:N part."""

    def images(self) -> Indices:
        """The images of `pairs` that must be embedded, ascending."""
        pairs, split = self.pairs, self.split
        attacked = np.concatenate([split.genuine, split.impostor])
        parts = [pairs.first[attacked], pairs.second[attacked]]
        if self.others is None:
            listed = split.listed if split.images is None else np.empty(0, dtype=np.int64)
            parts += [pairs.first[listed], pairs.second[listed]]
            parts += [] if split.images is None else [split.images]
        if self.identification is not None:
            parts += [self.identification.images()]
        return np.unique(np.concatenate(parts))


def make_plan(
    pairs: PairSet,
    *,
    preset: Preset,
    fmr: float,
    threshold: float | None,
    max_pairs: int,
    seed: int,
    calibration: PairSet | None = None,
) -> Plan:
    """Draws pairs, calibration people and the 1:N part. Costs no embedding.

    Raises `SteadfaceError` where the pairs, or those of `calibration` without the attacked people, do not support
    `fmr`.
    """
    split = split_for_attack(
        pairs,
        fmr=fmr,
        max_pairs=max_pairs,
        seed=seed,
        most_images=preset.calibration_images,
        checked=threshold is None and calibration is None,
    )
    usable = np.empty(0, dtype=np.int64)
    if calibration is not None:
        usable = _others(pairs, split, calibration, preset=preset, fmr=fmr, seed=seed)
    identification = plan_identification(pairs, split, seed=seed, fpir=FPIR, most=preset.gallery)
    remark = identification if isinstance(identification, str) else ""
    return Plan(
        pairs=pairs,
        split=split,
        others=calibration,
        usable=usable,
        identification=None if isinstance(identification, str) else identification,
        remark=remark,
    )


def _others(
    pairs: PairSet, split: AttackSplit, calibration: PairSet, *, preset: Preset, fmr: float, seed: int
) -> Indices:
    """Images of the calibration pairs whose people are not attacked, at most as many as the preset takes."""
    if calibration.people is None or pairs.people is None:
        raise InvalidInput("calibration pairs must say who they show; give a pairs file over identity folders")
    attacked = np.concatenate([split.genuine, split.impostor])
    shown = np.unique(pairs.people[np.concatenate([pairs.first[attacked], pairs.second[attacked]])])
    names = {pairs.faces.people[person] for person in shown}
    used = np.union1d(calibration.first, calibration.second)
    apart = np.array([calibration.faces.people[person] not in names for person in calibration.people[used]], dtype=bool)
    kept = used[apart]
    available = count_impostors(calibration.people[kept])
    if not supports(available, fmr):
        raise too_few(
            "impostor pairs of people who are not attacked",
            available,
            pairs_needed(fmr),
            why=f"a threshold at FMR {fmr:g}",
            there="the calibration pairs leave",
            remedy=f"ask for {lowest_fmr(available):.2g} or more, or bring pairs of more people",
        )
    return capped(kept, np.random.default_rng(seed), preset.calibration_images)


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Unit `embeddings` (N, D) of the plan's images, NaN elsewhere, and the clean similarities of other people."""

    embeddings: NDArray[np.float32]
    impostors: Impostors


def embed_plan(embedder: MirrorEmbedder, plan: Plan, *, batch_size: int, progress: Progress | None) -> Embedded:
    """Embeds what the plan needs. Raises `SteadfaceError` where none of the calibration images can be read."""
    images = plan.images()
    total, before = len(images) + len(plan.usable), len(images)

    def of_all(done: int, _: int) -> None:
        if progress is not None:
            progress(done, total)

    def of_others(done: int, _: int) -> None:
        if progress is not None:
            progress(before + done, total)

    rows = embed_faces(embedder, plan.pairs.faces, images, batch_size=batch_size, skip_unreadable=True, progress=of_all)
    embeddings = np.full((len(plan.pairs.faces), rows.shape[1]), np.nan, dtype=np.float32)
    embeddings[images] = rows
    if plan.others is None:
        impostors = clean_impostors(plan.split, plan.pairs, embeddings)
    else:
        assert plan.others.people is not None
        other = embed_faces(
            embedder, plan.others.faces, plan.usable, batch_size=batch_size, skip_unreadable=True, progress=of_others
        )
        impostors = cross_impostors(other, plan.others.people[plan.usable])
    return Embedded(embeddings=embeddings, impostors=impostors)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The one that the audit is about, those reported besides, and that of 1:N at `FPIR` where there is one."""

    main: Calibration
    others: tuple[Calibration, ...]
    identification: float | None

    def hardest(self, goal: Goal) -> float:
        """Of all thresholds, the one that is hardest to cross: the lowest to dodge, the highest to impersonate."""
        every = [self.main.threshold, *(other.threshold for other in self.others)]
        if self.identification is not None:
            every.append(self.identification)
        match goal:
            case "dodging":
                return min(every)
            case "impersonation":
                return max(every)
            case _:
                assert_never(goal)


def thresholds(
    impostors: Impostors, *, fmr: float, threshold: float | None, identification: float | None
) -> Thresholds:
    """Raises `SteadfaceError` where the readable impostor pairs are too few for `fmr`."""
    if threshold is not None:
        if not len(impostors.similarity):
            raise InvalidInput(
                "no pair of people who are not attacked is left to measure what the given threshold accepts: attack "
                "fewer pairs, or give --calibration-pairs"
            )
        return Thresholds(main=impostors.given(threshold), others=(), identification=None)
    others = tuple(impostors.at(other) for other in FMRS if other != fmr and supports(len(impostors.similarity), other))
    return Thresholds(main=impostors.at(fmr), others=others, identification=identification)
