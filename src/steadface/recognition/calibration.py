"""A recogniser on clean faces of known people: which similarity stands for which FMR, as part of its contract."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.data.faces import FaceSource, UnreadableImage
from steadface.evaluation.embedding import MirrorEmbedder, Progress, embed_faces
from steadface.evaluation.thresholds import images_to_measure, measure_thresholds, most_alike_strangers
from steadface.evaluation.verification import RULE_OF_THREE
from steadface.models import OpenedRecogniser
from steadface.recognition.contract import Contract, contract_of
from steadface.recognition.embedder import Faces, NetworkEmbedder, quickened, stacked
from steadface.recognition.guard import Guard, calibrate

GUARD_FACES = 2
"""How many times as many faces as its false-alarm rate needs a guard is calibrated on."""


@dataclass(frozen=True, kw_only=True)
class AlikeStrangers:
    """Two images that are labelled as two people and look like one: perhaps a wrong label."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A contract with thresholds, and the pairs of people that its lowest FMRs hang on, most alike first."""

    contract: Contract
    alike: tuple[AlikeStrangers, ...]


def calibrated(
    opened: OpenedRecogniser,
    faces: FaceSource,
    *,
    mirror: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Calibrated:
    """The contract of `opened` with thresholds from `faces`: aligned, of people whom it was not trained on.

    Unreadable images are left out. Raises SteadfaceError where the people are too few; see `measure_thresholds`.
    """
    labels = np.asarray(faces.labels, dtype=np.int64)
    chosen = images_to_measure(labels, seed=seed)
    embedder = MirrorEmbedder(quickened(opened.network), mirror).to(device)
    embeddings = embed_faces(embedder, faces, chosen, skip_unreadable=True, progress=progress)
    thresholds = measure_thresholds(embeddings, labels[chosen], seed=seed)
    alike = most_alike_strangers(embeddings, labels[chosen])
    return Calibrated(
        contract=contract_of(opened, mirror=mirror, thresholds=thresholds),
        alike=tuple(
            AlikeStrangers(first=faces.name(chosen[one]), second=faces.name(chosen[other]), similarity=similarity)
            for one, other, similarity in alike
        ),
    )


def calibrated_guard(
    opened: OpenedRecogniser,
    contract: Contract,
    faces: FaceSource,
    *,
    rate: float = 1e-2,
    seed: int = 0,
) -> Guard:
    """A guard for `opened` that flags a share of at most `rate` of clean `faces`, each compared with another image of
    the same person.

    Raises SteadfaceError where too few people have two readable images for that rate.
    """
    labels = np.asarray(faces.labels, dtype=np.int64)
    chosen = images_to_measure(labels, seed=seed)
    most = ceil(GUARD_FACES * RULE_OF_THREE / rate)
    rng = np.random.default_rng(seed)
    images, owners = _readable(faces, np.sort(rng.permutation(chosen)[:most]), contract.convention.size)
    embedder = NetworkEmbedder(opened.network, mirror=contract.mirror)
    probes, references = _paired(owners)
    return calibrate(
        Guard(),
        embedder,
        images[probes],
        embedder(images[references]) if len(references) else np.empty((0, contract.dimension), dtype=np.float32),
        model=contract.space,
        rate=rate,
        rng=rng,
    )


def _readable(faces: FaceSource, chosen: NDArray[np.int64], size: tuple[int, int]) -> tuple[Faces, NDArray[np.int64]]:
    """Those of the `chosen` images that can be read (n, H, W, 3), and whose they are (n,)."""
    kept, owners = [], []
    for index in chosen:
        try:
            kept.append(faces.read(int(index)))
            owners.append(int(faces.labels[index]))
        except UnreadableImage:
            continue
    return stacked(kept, size) if kept else np.empty((0, *size, 3), dtype=np.uint8), np.array(owners, dtype=np.int64)


def _paired(owners: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every image of somebody who has two or more, and the next image of the same person, the last one's being the
    first.
    """
    probes, references = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for person in np.unique(owners):
        own = np.flatnonzero(owners == person)
        if len(own) > 1:
            probes.append(own)
            references.append(np.roll(own, -1))
    return np.concatenate(probes), np.concatenate(references)
