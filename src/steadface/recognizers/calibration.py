"""A recogniser on clean faces of known people: which similarity stands for which FMR, as part of its contract."""

import logging
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.arguments import seed as checked_seed
from steadface.data.faces import FaceSource
from steadface.data.loading import read_images
from steadface.errors import InvalidInput
from steadface.evaluation.embedding import Embedded, MirrorEmbedder, Progress, embed_faces, unanswered
from steadface.evaluation.intervals import central
from steadface.evaluation.thresholds import CrossPairs, images_to_measure, measure_thresholds, most_alike_strangers
from steadface.evaluation.verification import RULE_OF_THREE
from steadface.evaluation.witness import Witness
from steadface.recognizers import CAUSE, POORLY, OpenedRecognizer
from steadface.recognizers.contract import Contract, contract_of
from steadface.recognizers.embedder import NetworkEmbedder, quickened
from steadface.recognizers.guard import Guard, calibrate
from steadface.recognizers.probing import auc

GUARD_FACES = 2
"""How many times as many faces as its false-alarm rate needs a guard is calibrated on."""

CHANCE, UNTRAINED = 0.5, 0.75
"""Shares of `told_apart`: random networks reach 0.6 to 0.8 on aligned faces, by their colours."""

JUDGED, JUDGED_IMAGES, RESAMPLES = 200, 8, 1000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AlikeStrangers:
    """Two images that are labelled as two people and look like one: perhaps a wrong label."""

    first: str
    second: str
    similarity: float


@dataclass(frozen=True, kw_only=True)
class ToldApart:
    """How often two images of one person are more alike than one of them and a stranger's; chance is one half.

    The mean over people who have several images, and its 95 % interval.
    """

    share: float
    interval: tuple[float, float]

    @property
    def enough(self) -> bool:
        """Whether it is better than chance for certain, and not clearly worse than what no training reaches."""
        low, high = self.interval
        return low > CHANCE and high > UNTRAINED

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"two images of one person are more alike than one of them and a stranger's in {self.share:.0%} of cases "
            f"(95 % interval {low:.0%} to {high:.0%}; chance is 50 %, and networks that were never trained reach "
            f"{UNTRAINED:.0%})"
        )


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A contract with thresholds, how well the people are told apart, and the pairs of people that its lowest FMRs hang
    on, most alike first; and the `embedded` faces that all this was read off.
    """

    contract: Contract
    told_apart: ToldApart
    alike: tuple[AlikeStrangers, ...]
    embedded: Embedded | None = None


def calibrated(
    opened: OpenedRecognizer,
    faces: FaceSource,
    *,
    mirror: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Calibrated:
    """The contract of `opened` with thresholds from `faces`: aligned, of people whom it was not trained on.

    Unreadable images are left out. Raises SteadfaceError where the people are too few, see `measure_thresholds`, and
    for what does not behave like a recogniser or changes meanwhile, see `Witness`.
    """
    labels = np.asarray(faces.labels, dtype=np.int64)
    chosen = images_to_measure(labels, seed=checked_seed(seed))
    embedder = MirrorEmbedder(quickened(opened.network), mirror).to(device)
    witness = Witness.of(embedder, faces, chosen, name=opened.name)
    embeddings = embed_faces(embedder, faces, chosen, skip_unreadable=True, progress=progress)
    witness.confirm(embedder, rows=embeddings[np.searchsorted(chosen, witness.indices)])
    answered = _answered(embeddings, opened.name)
    pairs = CrossPairs.of(answered, labels[chosen])
    thresholds = measure_thresholds(pairs, seed=seed)
    poor = tuple(note for note in opened.notes if POORLY in note)
    return Calibrated(
        contract=replace(contract_of(opened, mirror=mirror, thresholds=thresholds), notes=poor),
        told_apart=told_apart(answered, labels[chosen], seed=seed),
        alike=tuple(
            AlikeStrangers(first=faces.name(chosen[one]), second=faces.name(chosen[other]), similarity=similarity)
            for one, other, similarity in most_alike_strangers(pairs)
        ),
        embedded=Embedded(indices=chosen, rows=embeddings, mirror=mirror),
    )


def _answered(embeddings: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """The embeddings, NaN where there are nothing but zeros: counted, such faces would lower every FMR."""
    zeros = unanswered(embeddings)
    if not zeros.any():
        return embeddings
    logger.warning(
        "%s gives nothing but zeros for %d of %d faces: they are left out, as such a face is refused in service",
        name,
        zeros.sum(),
        len(zeros),
    )
    return np.where(zeros[:, None], np.float32(np.nan), embeddings)


def told_apart(embeddings: NDArray[np.float32], people: NDArray[np.int64], *, seed: int = 0) -> ToldApart:
    """From unit `embeddings` (n, D) of `people` (n,); rows of NaN are left out. At most `JUDGED` people are looked at.

    Their shares are resampled by people (`seed`), since pairs of one person depend on each other.
    """
    rng = np.random.default_rng(seed)
    used = np.flatnonzero(np.isfinite(embeddings).all(1))
    names, counts = np.unique(people[used], return_counts=True)
    shares = []
    for person in rng.permutation(names[counts > 1])[:JUDGED]:
        mine = people[used] == person
        own, others = used[mine][:JUDGED_IMAGES], used[~mine]
        cosines = embeddings[own] @ embeddings[own].T
        genuine = cosines[np.triu_indices(len(own), 1)]
        impostor = (embeddings[own] @ embeddings[others].T).reshape(-1)
        same = np.repeat([True, False], [len(genuine), len(impostor)])
        shares.append(auc(np.concatenate([genuine, impostor]).astype(np.float64), same))
    found = np.array(shares)
    resampled = found[rng.integers(len(found), size=(RESAMPLES, len(found)))].mean(1)
    (interval,) = central(resampled[:, None])
    return ToldApart(share=float(found.mean()), interval=interval)


def check_told_apart(found: ToldApart, name: str, why: tuple[str, ...] = ()) -> None:
    """Raises SteadfaceError where people are told apart no better than by chance, or clearly no better than by a
    network that was never trained, or where a diagnosis among the notes `why` names the cause: a better way to state
    the pixels, at which half as many pairs are in the wrong order.
    """
    if not found.enough or any(CAUSE in note for note in why):
        remedy = "Look whether the folders are people, and the faces aligned as those it was trained on"
        raise InvalidInput(
            f"{name} cannot tell these people apart, so no contract was written: {found}. {' '.join(why) or remedy}"
        )


def calibrated_guard(
    opened: OpenedRecognizer,
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
    drawn = np.sort(rng.permutation(chosen)[:most])
    images, readable = read_images(faces, drawn, contract.convention.size, skip_unreadable=True)
    embedder = NetworkEmbedder(opened.network, mirror=contract.mirror)
    probes, references = _paired(labels[drawn[readable]])
    plain = embedder(images[probes]) if len(probes) else np.empty((0, contract.dimension), dtype=np.float32)
    place = np.empty(len(images), dtype=np.int64)
    place[probes] = np.arange(len(probes))  # every reference is a probe as well
    return calibrate(
        Guard(),
        embedder,
        images[probes],
        plain[place[references]],
        plain=plain,
        model=contract.space,
        rate=rate,
        rng=rng,
    )


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
