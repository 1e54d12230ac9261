"""A recogniser on clean faces of known people: which similarity stands for which FMR, as part of its contract."""

from dataclasses import dataclass

import numpy as np
import torch

from steadface.data.faces import FaceSource
from steadface.evaluation.embedding import MirrorEmbedder, Progress, embed_faces
from steadface.evaluation.thresholds import images_to_measure, measure_thresholds, most_alike_strangers
from steadface.models import OpenedRecogniser
from steadface.recognition.contract import Contract, contract_of
from steadface.recognition.embedder import quickened


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
