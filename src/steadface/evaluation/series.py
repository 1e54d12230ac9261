"""One attack at rising radii on a batch of pairs, each pair attacked until it breaks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.attacks.base import Attack
from steadface.attacks.goals import CosineScore, Embed, Score, dodge, impersonate
from steadface.attacks.rounding import as_bytes, towards_source
from steadface.errors import InvalidInput

Goal = Literal["dodging", "impersonation"]

AIM = 0.05
"""Attacks stop this far past the threshold, so that rounding to 8 bits does not undo what they did."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A goal at a threshold. The attacker raises `sign` times the cosine.

    `line` is the cosine to cross before a pair is left alone: the threshold, unless several thresholds are to be read
    off one attack; then it is the one that is hardest to cross.
    """

    goal: Goal
    threshold: float
    line: float | None = None

    @property
    def sign(self) -> int:
        match self.goal:
            case "dodging":
                return -1
            case "impersonation":
                return 1
            case _:
                assert_never(self.goal)

    @property
    def hardest(self) -> float:
        return self.threshold if self.line is None else self.line

    def score(self, embed: Embed, references: Tensor) -> CosineScore:
        make = dodge if self.sign < 0 else impersonate
        return make(embed, references, threshold=self.hardest + self.sign * AIM)

    def broken(self, cosine: Any, threshold: float | None = None) -> Any:
        """Where the verifier is wrong, for a tensor or an array: it accepts iff cosine >= threshold."""
        accepted = cosine >= (self.threshold if threshold is None else threshold)
        return accepted if self.sign > 0 else ~accepted

    def finished(self, cosine: Any) -> Any:
        """Where the hardest threshold is crossed, and all others with it."""
        return self.broken(cosine, self.hardest)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one series did to n pairs at each of its K radii; what a smaller radius did counts at larger ones.

    `cosine` (K, n) is the furthest so far and `cosine_8bit` (K, n) that of images rounded to 8 bits towards the source,
    which `images` (K, n, 3, H, W) uint8 are; `own` (K, n) is what this radius alone reached, NaN where it was not
    attacked.
    """

    cosine: NDArray[np.float32]
    cosine_8bit: NDArray[np.float32]
    own: NDArray[np.float32]
    images: NDArray[np.uint8]


def run_series(
    embed: Embed,
    aim: Aim,
    attacks: Sequence[Attack],
    *,
    images: Tensor,
    references: Tensor,
    clean: Tensor,
    generator: torch.Generator,
    score: Callable[[Tensor], Score] | None = None,
) -> Outcome:
    """Attack `images` (n, 3, H, W) of clean cosine `clean` (n,) to the unit `references` (n, D), radii rising.

    Pairs past the line, also when rounded to 8 bits, are not attacked again. `score` makes another score than that of
    `embed`, such as one on surrogates, for the given rows; the outcome is judged by `embed` all the same. Call it
    within `crafting`.
    """

    def own_score(rows: Tensor) -> Score:
        return aim.score(embed, references[rows])

    course = Course(aim, images, clean)
    for attack in attacks:
        rows = course.open()
        if len(rows):
            crafted = attack((score or own_score)(rows), images[rows], generator=generator).detach()
            rounded = towards_source(crafted, images[rows])
            course.offer(
                rows, cosines(embed, crafted, references[rows]), cosines(embed, rounded, references[rows]), rounded
            )
        course.turn()
    return course.outcome()


class Course:
    """Where each of n pairs stands while radii rise."""

    def __init__(self, aim: Aim, images: Tensor, clean: Tensor) -> None:
        self.aim = aim
        self.best, self.best_8bit, self.shown = clean.clone(), clean.clone(), images.clone()
        self.own = torch.full_like(clean, torch.nan)
        self.turns: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def open(self) -> Tensor:
        """The rows that are not past the line yet."""
        finished: Tensor = self.aim.finished(self.best) & self.aim.finished(self.best_8bit)
        return (~finished).nonzero().squeeze(1)

    def offer(self, rows: Tensor, cosine: Tensor, cosine_8bit: Tensor, rounded: Tensor) -> None:
        """What an attack made of `rows`: cosines (m,) as crafted and as rounded to 8 bits, and those images."""
        self.own[rows] = cosine
        self.best[rows] = self._further(cosine, self.best[rows])
        further = self.aim.sign * cosine_8bit > self.aim.sign * self.best_8bit[rows]
        self.shown[rows[further]] = rounded[further]
        self.best_8bit[rows] = self._further(cosine_8bit, self.best_8bit[rows])

    def turn(self) -> None:
        """On to the next radius."""
        self.turns.append((self.best.clone(), self.best_8bit.clone(), self.own.clone(), as_bytes(self.shown)))
        self.own = torch.full_like(self.own, torch.nan)

    def outcome(self) -> Outcome:
        best, best_8bit, own, images = (torch.stack(column).cpu().numpy() for column in zip(*self.turns, strict=True))
        return Outcome(cosine=best, cosine_8bit=best_8bit, own=own, images=images)

    def _further(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.fmin(one, other) if self.aim.sign < 0 else torch.fmax(one, other)  # NaN is never further


def cosines(embed: Embed, images: Tensor, references: Tensor) -> Tensor:
    """(n,) cosines of the images' unit embeddings and unit `references` (n, D).

    Raises InvalidInput where there are none: a pair is neither right nor wrong then.
    """
    with torch.no_grad():
        cosine: Tensor = (embed(images) * references).sum(1)
    if not torch.isfinite(cosine).all():
        raise InvalidInput(
            "the recogniser gives NaN or infinity for an attacked image, so that nothing says whether it resists; give "
            "it without what looks for such images, or with weights that are not damaged"
        )
    return cosine


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of several batches as one."""
    return Outcome(
        cosine=np.concatenate([part.cosine for part in parts], axis=1),
        cosine_8bit=np.concatenate([part.cosine_8bit for part in parts], axis=1),
        own=np.concatenate([part.own for part in parts], axis=1),
        images=np.concatenate([part.images for part in parts], axis=1),
    )
