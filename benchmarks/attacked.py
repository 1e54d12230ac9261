"""Pairs of real faces to attack and the threshold to judge them by, as the benchmarks of attacks need them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.attacks import CosineScore, Norm
from steadface.attacks.distances import lengths
from steadface.data.loading import load_images
from steadface.data.pairs import PairSet, read_pairs
from steadface.evaluation.calibration import AttackSplit, calibrate, split_for_attack
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.evaluation.series import Goal
from steadface.evaluation.verification import best_threshold
from steadface.recognizers import open_recognizer
from steadface.recognizers.embedder import quickened

ROUNDING = 1e-5
"""By how much float32 may overstep a radius or the pixel range; a grey level is 4e-3."""

CALIBRATION_IMAGES = 2000
"""All cross pairs of so many images give the threshold of an FMR: two million."""


@dataclass(frozen=True, kw_only=True)
class Networks:
    """``plain`` as loaded, which judges; ``fast`` computes the same, and attacks are crafted on it."""

    plain: MirrorEmbedder
    fast: MirrorEmbedder


def load_networks(weights: Path) -> Networks:
    network = open_recognizer(weights).network.eval().requires_grad_(False)
    return Networks(plain=MirrorEmbedder(network, mirror=False), fast=MirrorEmbedder(quickened(network), mirror=False))


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """Pairs that the clean verifier gets right: first ``images`` ``(n, 3, H, W)`` to perturb, unit ``references``
    ``(n, D)`` of the second, and ``starts`` ``(n, 3, H, W)``, pictures beyond the threshold, for attacks that need one.
    """

    goal: Goal
    threshold: float
    images: Tensor
    references: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def score(self, network: nn.Module) -> CosineScore:
        """To be raised past the threshold itself: nothing is rounded to 8 bits here."""
        sign = -1.0 if self.goal == "dodging" else 1.0
        bound = torch.full_like(self.references[:, 0], self.threshold)
        # Accepted is a cosine at the threshold or above it; a little beyond also holds on the plain network.
        return CosineScore(
            embed=network, anchors=self.references, signs=torch.full_like(bound, sign), enough=sign * bound + 1e-5
        )

    def take(self, rows: Tensor) -> "Attacked":
        return Attacked(
            goal=self.goal,
            threshold=self.threshold,
            images=self.images[rows],
            references=self.references[rows],
            starts=self.starts[rows],
        )

    def batches(self, size: int) -> Iterator["Attacked"]:
        """``size`` at most, no two of which have the same picture to perturb."""
        left = list(range(len(self)))
        _, picture = np.unique(self.images.flatten(1).numpy(), axis=0, return_inverse=True)
        while left:
            batch: list[int] = []
            for row in left:
                if len(batch) < size and picture[row] not in picture[batch]:
                    batch.append(row)
            left = [row for row in left if row not in batch]
            yield self.take(torch.tensor(batch))


def attacked_pairs(
    networks: Networks,
    *,
    images: Path,
    pairs_file: Path,
    max_pairs: int,
    seed: int,
    fmr: float | None,
) -> list[Attacked]:
    """Genuine pairs to dodge and impostor pairs to impersonate, ``max_pairs`` of each at most.

    The threshold is that of ``fmr`` on all clean pairs of other people, or with None that of the highest accuracy on
    all listed pairs, those attacked among them.
    """
    pairs = read_pairs(pairs_file, images)
    split = None if fmr is None else _calibrated(pairs, fmr, max_pairs, seed)
    if split is None:  # nobody needs to stay clean
        rng = np.random.default_rng(seed)
        genuine, impostor = (rng.permutation(np.flatnonzero(pairs.same == same))[:max_pairs] for same in (True, False))
    else:
        genuine, impostor = split.genuine, split.impostor
    embeddings = _embedded(networks.fast, pairs, split)
    cosine = (embeddings[pairs.first] * embeddings[pairs.second]).sum(1)
    threshold = best_threshold(cosine, pairs.same) if split is None else calibrate(split, pairs, embeddings).threshold
    genuine = genuine[cosine[genuine] >= threshold]
    impostor = impostor[cosine[impostor] < threshold]
    return [
        _attacked(networks, pairs, "dodging", genuine, threshold, embeddings),
        _attacked(networks, pairs, "impersonation", impostor, threshold, embeddings),
    ]


def lengths_of_successes(plain: MirrorEmbedder, attacked: Attacked, images: Tensor, norm: Norm) -> Tensor:
    """How far ``images`` are from the sources ``(n,)``; infinity where they miss the goal or leave the pixel range.

    Judged anew by the plain network, whatever the attack said of them.
    """
    with torch.no_grad():
        cosine = (plain(images) * attacked.references).sum(1)
    reached = cosine < attacked.threshold if attacked.goal == "dodging" else cosine >= attacked.threshold
    inside = ((images >= -ROUNDING) & (images <= 1 + ROUNDING)).flatten(1).all(1)
    return torch.where(reached & inside, lengths(images - attacked.images, norm), torch.inf)


def _calibrated(pairs: PairSet, fmr: float, max_pairs: int, seed: int) -> AttackSplit:
    return split_for_attack(pairs, fmr=fmr, max_pairs=max_pairs, seed=seed, most_images=CALIBRATION_IMAGES)


def _embedded(network: MirrorEmbedder, pairs: PairSet, split: AttackSplit | None) -> NDArray[np.float32]:
    """Unit embeddings ``(N, D)`` of what ``split`` needs (None: of everything), NaN elsewhere."""
    needed = np.arange(len(pairs.faces))
    if split is not None:
        assert split.images is not None  # a pairs file says who is who
        chosen = np.concatenate([split.genuine, split.impostor])
        needed = np.unique(np.concatenate([pairs.first[chosen], pairs.second[chosen], split.images]))
    found = embed_faces(network, pairs.faces, needed, batch_size=16)
    embeddings = np.full((len(pairs.faces), found.shape[1]), np.nan, dtype=np.float32)
    embeddings[needed] = found
    return embeddings


def _attacked(
    networks: Networks,
    pairs: PairSet,
    goal: Goal,
    chosen: NDArray[np.int64],
    threshold: float,
    embeddings: NDArray[np.float32],
) -> Attacked:
    first, second = pairs.first[chosen], pairs.second[chosen]
    # For impersonation the person's own picture; for dodging that of whoever is least like them.
    far = (embeddings[second] @ embeddings[second].T).argmin(1)
    starts = second if goal == "impersonation" else second[far]
    size = networks.plain.size
    return Attacked(
        goal=goal,
        threshold=threshold,
        images=load_images(pairs.faces, first, size),
        references=torch.from_numpy(embeddings[second]),
        starts=load_images(pairs.faces, starts, size),
    )
