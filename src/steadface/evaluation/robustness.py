"""Verification under attack: FNMR under dodging and FMR under impersonation at a threshold frozen beforehand.

The first image of a pair is perturbed, the second is the enrolled one. An attack climbs the raw cosine of exactly the
embedding, mirrored or not, whose threshold is used. Radii are tried in rising order, and only on pairs that hold so
far: a perturbation that breaks a pair lies in every larger ball too, so a broken pair counts at all larger radii,
and one that is wrong unperturbed counts at every radius. Error rates can therefore only rise with the radius.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.arguments import SEEDS
from steadface.attacks.balls import Ball
from steadface.attacks.base import Attack
from steadface.attacks.gradients import crafting
from steadface.data.loading import load_images
from steadface.data.pairs import PairSet
from steadface.errors import InvalidInput
from steadface.evaluation.calibration import AttackSplit, calibrate
from steadface.evaluation.embedding import MirrorEmbedder, Progress
from steadface.evaluation.findings import AttackExample, AttackResult, Robustness, doubts, masking
from steadface.evaluation.series import Aim, Goal, Outcome, joined, run_series


@dataclass(frozen=True, kw_only=True)
class AttackPlan:
    """Each of the named `attacks` is run inside each of `balls`; `examples` images are kept per goal and norm."""

    attacks: Mapping[str, Attack]
    balls: Sequence[Ball]
    examples: int = 3

    def __post_init__(self) -> None:
        if not self.attacks or not self.balls:
            raise InvalidInput("an attack plan needs at least one attack and one ball; name an eps")

    def series(self) -> list[tuple[str, list[Attack]]]:
        """Per attack and norm, the attack inside the balls of rising radius."""
        balls = sorted(self.balls, key=lambda ball: (ball.norm, ball.radius))
        by_norm = [list(group) for _, group in groupby(balls, key=lambda ball: ball.norm)]
        return [
            (name, [attack.within(ball) for ball in group])
            for name, attack in self.attacks.items()
            for group in by_norm
        ]


def measure_robustness(
    embedder: MirrorEmbedder,
    pairs: PairSet,
    embeddings: NDArray[np.float32],
    split: AttackSplit,
    plan: AttackPlan,
    *,
    seed: int = 0,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Robustness:
    """Run `plan` on the pairs of `split`, given the clean `embeddings` (N, D) of the same `embedder`.

    Pairs with an unreadable image (a row of NaN) are left out. `progress` counts pairs times attack series.
    The embedder is left as it was. Deterministic for a seed and batch size on one device.
    """
    calibration = calibrate(split, pairs, embeddings)
    series = plan.series()
    goals: tuple[tuple[Goal, NDArray[np.int64]], ...] = (
        ("dodging", split.genuine),
        ("impersonation", split.impostor),
    )
    total, done = len(series) * sum(len(drawn) for _, drawn in goals), 0
    results: list[AttackResult] = []
    examples: list[AttackExample] = []
    warnings: list[str] = []
    for goal, drawn in goals:
        attacked = _readable(pairs, drawn, embeddings, Aim(goal=goal, threshold=calibration.threshold))
        for number, (name, attacks) in enumerate(series):
            generator = torch.Generator().manual_seed((seed * 1_000 + number) % SEEDS)
            parts: list[Outcome] = []
            for start in range(0, len(attacked.chosen), batch_size):
                rows = np.arange(start, min(start + batch_size, len(attacked.chosen)))
                outcome, shown = _attack(embedder, attacked, rows, name, attacks, plan.examples, generator)
                parts.append(outcome)
                examples += shown
                done += len(rows)
                if progress is not None:
                    progress(done, total)
            outcome = joined(parts)
            results += _results(name, attacks, attacked, outcome, calibration.fmr)
            warnings += masking(name, goal, attacks, attacked.aim.sign * outcome.own)
    return Robustness(
        calibration=calibration,
        results=tuple(results),
        examples=tuple(examples),
        warnings=(*warnings, *doubts(results)),
    )


@dataclass(frozen=True, kw_only=True)
class _Attacked:
    """Pairs attacked with one aim: `chosen` (n,) of `pairs`, and their clean `similarity` (n,)."""

    pairs: PairSet
    chosen: NDArray[np.int64]
    similarity: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    aim: Aim


def _readable(pairs: PairSet, drawn: NDArray[np.int64], embeddings: NDArray[np.float32], aim: Aim) -> _Attacked:
    chosen, similarity = readable_pairs(pairs, drawn, embeddings, aim.goal)
    return _Attacked(pairs=pairs, chosen=chosen, similarity=similarity, embeddings=embeddings, aim=aim)


def readable_pairs(
    pairs: PairSet, drawn: NDArray[np.int64], embeddings: NDArray[np.float32], goal: Goal
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Those of the pairs `drawn` (m,) for a goal whose images both have an embedding, and their cosines, (n,) each.

    Raises `SteadfaceError` where none has.
    """
    similarity = (embeddings[pairs.first[drawn]] * embeddings[pairs.second[drawn]]).sum(1)
    readable = np.isfinite(similarity)
    if not readable.any():
        raise InvalidInput(f"none of the pairs drawn for {goal} can be read; bring more pairs")
    return drawn[readable], similarity[readable]


def _attack(
    embedder: MirrorEmbedder,
    attacked: _Attacked,
    rows: NDArray[np.int64],
    name: str,
    attacks: Sequence[Attack],
    examples: int,
    generator: torch.Generator,
) -> tuple[Outcome, list[AttackExample]]:
    """One batch, and those of its pairs that are among the first `examples` that the clean verifier gets right."""
    pairs, batch = attacked.pairs, attacked.chosen[rows]
    images = load_images(pairs.faces, pairs.first[batch], embedder.size).to(embedder.device)
    with crafting(embedder):
        outcome = run_series(
            embedder,
            attacked.aim,
            attacks,
            images=images,
            references=torch.from_numpy(attacked.embeddings[pairs.second[batch]]).to(embedder.device),
            clean=torch.from_numpy(attacked.similarity[rows]).to(embedder.device),
            generator=generator,
        )
    shown = []
    right = np.flatnonzero(~attacked.aim.broken(attacked.similarity))[:examples]
    for row in np.flatnonzero(np.isin(rows, right)):
        ball = attacks[int((attacked.aim.sign * outcome.cosine_8bit[:, row]).argmax())].ball
        reference = load_images(pairs.faces, pairs.second[batch[row : row + 1]], embedder.size)[0]
        shown.append(
            AttackExample(
                attack=name,
                norm=ball.norm,
                eps=ball.radius,
                goal=attacked.aim.goal,
                threshold=attacked.aim.threshold,
                source=_picture(images[row]),
                reference=_picture(reference),
                adversarial=_picture(torch.from_numpy(outcome.images[-1, row]) / 255),
                cosine_before=float(attacked.similarity[rows[row]]),
                cosine_after=float(outcome.cosine_8bit[-1, row]),
            )
        )
    return outcome, shown


def _results(
    name: str, attacks: Sequence[Attack], attacked: _Attacked, outcome: Outcome, fmr: float
) -> list[AttackResult]:
    wrong = [attacked.aim.broken(cosine) for cosine in outcome.cosine]
    return [
        AttackResult(
            attack=name,
            norm=attack.ball.norm,
            eps=attack.ball.radius,
            goal=attacked.aim.goal,
            fmr=fmr,
            threshold=attacked.aim.threshold,
            pairs=len(attacked.chosen),
            errors=int(wrong[number].sum()),
            errors_8bit=int(attacked.aim.broken(outcome.cosine_8bit[number]).sum()),
            clean_errors=int(attacked.aim.broken(attacked.similarity).sum()),
            clean_cosine=float(attacked.similarity.mean(dtype=np.float64)),
            cosine=float(outcome.cosine[number].mean(dtype=np.float64)),
            attacked=tuple(attacked.chosen.tolist()),
            wrong=tuple(attacked.chosen[wrong[number]].tolist()),
        )
        for number, attack in enumerate(attacks)
    ]


def _picture(image: Tensor) -> NDArray[np.float32]:
    picture: NDArray[np.float32] = image.permute(1, 2, 0).cpu().numpy()
    return picture
