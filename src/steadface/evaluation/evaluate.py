"""The whole evaluation of a recogniser: clean verification on pair lists, then the same under attack."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from steadface.arguments import count, flag, rate
from steadface.arguments import seed as checked_seed
from steadface.backbones.base import Backbone
from steadface.backbones.frozen import frozen
from steadface.data.listing import abbreviated
from steadface.data.pairs import FOLDS, PairSet, contiguous_folds, doubled_pictures
from steadface.devices import resolve_device
from steadface.errors import InvalidInput, Unsupported
from steadface.evaluation.calibration import MAX_CROSS_IMAGES, capped, cross_similarities, split_for_attack
from steadface.evaluation.embedding import Embedded, MirrorEmbedder, Progress, embed_faces, unanswered, without_answer
from steadface.evaluation.findings import AttackExample, Robustness, collapse
from steadface.evaluation.robustness import AttackPlan, measure_robustness
from steadface.evaluation.verification import OperatingPoint, Verification, lowest_fmr, operating_points, verify
from steadface.evaluation.witness import Witness
from steadface.files import write_atomically

StageProgress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, kw_only=True)
class CrossVerification:
    """Operating points over all cross pairs of the images of a pair set: lower FMRs than its own pairs support.

    Cross pairs share images, so their intervals are narrower than they should be.
    """

    images: int
    images_left_out: int
    genuine_pairs: int
    impostor_pairs: int
    genuine_mean: float
    impostor_mean: float
    operating_points: tuple[OperatingPoint, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "images_left_out": self.images_left_out,
            "genuine_pairs": self.genuine_pairs,
            "impostor_pairs": self.impostor_pairs,
            "genuine_mean": self.genuine_mean,
            "impostor_mean": self.impostor_mean,
            "lowest_fmr": lowest_fmr(self.impostor_pairs),
        }


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """One pair set: its figures, what of it could not be read (`unreadable` names images), and how many images have
    `zeros` for embeddings.
    """

    verification: Verification
    cross: CrossVerification | None
    images: int
    pairs_left_out: int
    unreadable: tuple[str, ...]
    zeros: int = 0

    def to_json(self) -> dict[str, Any]:
        cross = self.cross
        return {
            **self.verification.to_json(),
            "cross_operating_points": [] if cross is None else [p.to_json() for p in cross.operating_points],
            "cross": None if cross is None else cross.to_json(),
            "images": self.images,
            "unreadable_images": len(self.unreadable),
            "pairs_left_out": self.pairs_left_out,
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything `evaluate` found. `main` is the pairs file, or the first `.bin` where there is none."""

    main: PairResult
    bins: Mapping[str, PairResult]
    robustness: Robustness | None
    mirror: bool
    seed: int
    warnings: tuple[str, ...]

    @property
    def examples(self) -> tuple[AttackExample, ...]:
        """Attacked faces for a page; none where nothing was attacked."""
        return () if self.robustness is None else self.robustness.examples

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; the main pair set's figures stand at the top level. Images are not in it."""
        robustness = self.robustness
        return {
            **self.main.to_json(),
            "mirror": self.mirror,
            "seed": self.seed,
            "attacks": [] if robustness is None else [result.to_json() for result in robustness.results],
            "calibration": None if robustness is None else robustness.calibration.to_json(),
            "bins": {name: result.to_json() for name, result in self.bins.items()},
            "warnings": list(self.warnings),
        }


def evaluate(
    backbone: nn.Module,
    pairs: PairSet | None,
    *,
    bins: Mapping[str, PairSet] | None = None,
    mirror: bool = True,
    attack: AttackPlan | None = None,
    fmr: float = 1e-2,
    max_pairs: int = 200,
    seed: int = 0,
    device: torch.device | str | None = None,
    batch_size: int = 64,
    threads: int = 1,
    progress: StageProgress | None = None,
    embedded: Embedded | None = None,
) -> Evaluation:
    """Verification of `pairs` and of each of `bins`, and `attack` on the former (on the first bin where it is None).

    Up to `max_pairs` genuine and as many impostor pairs are attacked, at the threshold of `fmr` on people who are not.
    Of a backbone of ours a fast frozen copy is judged; `device` moves what is judged there. Images that cannot be read
    are left out with their pairs, counted and warned of. `embedded` are embeddings that this network has given of
    `pairs.faces` before: where they are those that are needed they are not made again.
    Raises `SteadfaceError`, before any embedding, where there is nothing to judge or the pairs do not support `fmr`;
    after a few for what does not behave like a recogniser (`Witness`), or is to be attacked and has no gradients that
    can be followed; and at the end for one that has changed meanwhile.
    """
    bins = {name: _folded(other) for name, other in (bins or {}).items()}
    fmr = rate("FMR", fmr)
    batch_size, threads = count("batch_size", batch_size), count("threads", threads, least=0)
    seed = checked_seed(seed)
    flag("mirror", mirror)
    device = None if device is None else resolve_device(device)
    if pairs is None and not bins:
        raise InvalidInput("there is nothing to judge; give a pairs file or a .bin")
    main = next(iter(bins.values())) if pairs is None else _folded(pairs)
    split = None if attack is None else split_for_attack(main, fmr=fmr, max_pairs=max_pairs, seed=seed)
    if isinstance(backbone, Backbone):
        backbone = frozen(backbone)
    embedder = MirrorEmbedder(backbone if device is None else backbone.to(device), mirror)
    witness = Witness.of(embedder, main.faces, np.union1d(main.first, main.second))
    fault = None if attack is None else witness.gradient_fault(embedder)
    if fault is not None:
        raise Unsupported(
            f"an attack by gradients would find nothing, since {fault}; `steadface audit` does without them"
        )

    def judge(name: str, pair_set: PairSet) -> tuple[PairResult, NDArray[np.float32]]:
        reported = None if progress is None else partial(progress, f"embedding {name}")
        known = embedded if pair_set is main else None
        embeddings = embed_pairs(
            embedder, pair_set, batch_size=batch_size, threads=threads, progress=reported, known=known
        )
        return _pair_result(pair_set, embeddings, seed), embeddings

    sets = ({} if pairs is None else {"pairs": main}) | bins
    doubled = [warning for name, each in sets.items() for warning in doubled_pictures(name, each)]
    judged = {name: judge(name, other)[0] for name, other in bins.items() if other is not main}
    result, embeddings = judge("pairs" if pairs is not None else next(iter(bins)), main)
    robustness = None
    if attack is not None and split is not None:
        robustness = measure_robustness(
            embedder,
            main,
            embeddings,
            split,
            attack,
            seed=seed,
            batch_size=batch_size,
            progress=None if progress is None else partial(progress, "attacking"),
        )
    witness.confirm(embedder, rows=embeddings[list(witness.indices)])
    named = {name: judged.get(name, result) for name in bins}
    return Evaluation(
        main=result,
        bins=named,
        robustness=robustness,
        mirror=mirror,
        seed=seed,
        warnings=(*doubled, *_warnings(result if pairs is not None else None, named, robustness)),
    )


def embed_pairs(
    embedder: MirrorEmbedder,
    pairs: PairSet,
    *,
    batch_size: int = 64,
    threads: int = 1,
    progress: Progress | None = None,
    known: Embedded | None = None,
) -> NDArray[np.float32]:
    """Embeddings (N, D) of all N faces of a pair set; rows of NaN for images in no pair and unreadable ones.

    Those `known` are taken where they serve.
    """
    used = np.union1d(pairs.first, pairs.second)
    if known is not None and known.serves(used, mirror=embedder.mirror):
        rows = known.rows
    else:
        rows = embed_faces(
            embedder,
            pairs.faces,
            used,
            batch_size=batch_size,
            threads=threads,
            skip_unreadable=True,
            progress=progress,
        )
    embeddings = np.full((len(pairs.faces), rows.shape[1]), np.nan, dtype=np.float32)
    embeddings[used] = rows
    return embeddings


def write_json(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write JSON so that a crash leaves the old file or the new one, never half of either.

    Raises `SteadfaceError` where the disk refuses, ValueError for NaN or infinity, which JSON does not have.
    """
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_atomically(Path(path), text.encode())


def _folded(pairs: PairSet) -> PairSet:
    """The pairs, cut into ten folds in file order, each kind alone, where they come as a single fold."""
    if len(np.unique(pairs.fold)) > 1:
        return pairs
    fold = np.empty(len(pairs), dtype=np.int64)
    for kind in (pairs.same, ~pairs.same):
        fold[kind] = contiguous_folds(int(kind.sum()), FOLDS)
    return replace(pairs, fold=fold)


def _pair_result(pairs: PairSet, embeddings: NDArray[np.float32], seed: int) -> PairResult:
    used = np.union1d(pairs.first, pairs.second)
    readable = used[np.isfinite(embeddings[used, 0])]
    lost = np.setdiff1d(used, readable)
    left = pairs.without_images(lost)
    similarity = (embeddings[left.first] * embeddings[left.second]).sum(1)
    return PairResult(
        verification=verify(similarity, left.same, left.fold),
        cross=None if pairs.people is None else _cross(embeddings, readable, pairs.people, seed),
        images=len(readable),
        pairs_left_out=len(pairs) - len(left),
        unreadable=tuple(pairs.faces.name(int(image)) for image in lost),
        zeros=int(unanswered(embeddings[readable]).sum()),
    )


def _cross(
    embeddings: NDArray[np.float32], images: NDArray[np.int64], people: NDArray[np.int64], seed: int
) -> CrossVerification | None:
    """None where all images show one person, or nobody has two."""
    chosen = capped(images, np.random.default_rng(seed), MAX_CROSS_IMAGES)
    cross = cross_similarities(embeddings[chosen], people[chosen])
    if not len(cross.genuine) or not len(cross.impostor):
        return None
    return CrossVerification(
        images=len(chosen),
        images_left_out=len(images) - len(chosen),
        genuine_pairs=len(cross.genuine),
        impostor_pairs=len(cross.impostor),
        genuine_mean=float(cross.genuine.mean(dtype=np.float64)),
        impostor_mean=float(cross.impostor.mean(dtype=np.float64)),
        operating_points=operating_points(cross.genuine, cross.impostor),
    )


def _warnings(
    main: PairResult | None, bins: Mapping[str, PairResult], robustness: Robustness | None
) -> tuple[str, ...]:
    named = ({} if main is None else {"pairs": main}) | dict(bins)
    warnings = [] if robustness is None else list(robustness.warnings)
    for name, result in named.items():
        warnings += collapse(name, result.verification.impostor_mean)
        warnings += without_answer(name, result.zeros, result.images)
        if result.unreadable:
            warnings.append(
                f"{name}: {len(result.unreadable)} images cannot be read, so {result.pairs_left_out} pairs are left "
                f"out: {abbreviated(list(result.unreadable), len(result.unreadable))}"
            )
    return tuple(warnings)
