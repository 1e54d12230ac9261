"""One attack at rising radii on a batch of pairs, each pair attacked until it breaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.attacks.base import Attack
from steadface.attacks.goals import CosineScore, dodge, impersonate
from steadface.attacks.gradients import crafting
from steadface.evaluation.embedding import MirrorEmbedder

Goal = Literal["dodging", "impersonation"]

AIM = 0.05
"""Attacks stop this far past the threshold, so that rounding to 8 bits does not undo what they did."""


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A goal at a threshold. The attacker raises `sign` times the cosine."""

    goal: Goal
    threshold: float

    @property
    def sign(self) -> int:
        return -1 if self.goal == "dodging" else 1

    def score(self, embedder: MirrorEmbedder, references: Tensor) -> CosineScore:
        make = dodge if self.goal == "dodging" else impersonate
        return make(embedder, references, threshold=self.threshold + self.sign * AIM)

    def broken(self, cosine: Any) -> Any:
        """Where the verifier is wrong, for a tensor or an array: it accepts iff cosine >= threshold."""
        accepted = cosine >= self.threshold
        return accepted if self.goal == "impersonation" else ~accepted


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one series did to n pairs at each of its K radii.

    `broken` and `broken_8bit` (K, n) count every smaller radius in; `cosine` (K, n) is the furthest so far, `own`
    (K, n) that of this radius alone, NaN where it was not attacked; `found` (n,) is the number of the radius at which
    the furthest was found.
    """

    broken: NDArray[np.bool_]
    broken_8bit: NDArray[np.bool_]
    cosine: NDArray[np.float32]
    own: NDArray[np.float32]
    found: NDArray[np.int64]


def run_series(
    embedder: MirrorEmbedder,
    aim: Aim,
    attacks: Sequence[Attack],
    *,
    images: Tensor,
    references: Tensor,
    clean: Tensor,
    generator: torch.Generator,
) -> tuple[Outcome, Tensor]:
    """Attack `images` (n, 3, H, W) of clean cosine `clean` (n,) to the unit `references` (n, D), radii rising.

    Returns the outcome and the adversarial images (n, 3, H, W) that came furthest. Pairs that are broken, also after
    rounding to 8 bits, are not attacked again. The embedder is left as it was.
    """
    best, adversarial, found = clean.clone(), images.clone(), torch.zeros_like(clean, dtype=torch.int64)
    broken, broken_8bit = aim.broken(clean), aim.broken(clean)
    history: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    with crafting(embedder):
        for number, attack in enumerate(attacks):
            own = torch.full_like(clean, torch.nan)
            active = (~(broken & broken_8bit)).nonzero().squeeze(1)
            if len(active):
                score = aim.score(embedder, references[active])
                crafted = attack(score, images[active], generator=generator).detach()
                own[active] = cosines(embedder, crafted, references[active])
                rounded = cosines(embedder, (crafted * 255).round() / 255, references[active])
                broken_8bit = broken_8bit.index_put((active,), aim.broken(rounded) | broken_8bit[active])
                broken = broken | (aim.broken(own) & own.isfinite())
                further = aim.sign * own > aim.sign * best  # false where own is NaN
                best = torch.where(further, own, best)
                found[further] = number
                adversarial[active] = torch.where(further[active].view(-1, 1, 1, 1), crafted, adversarial[active])
            history.append((broken.clone(), broken_8bit.clone(), best.clone(), own))
    stacked = [torch.stack(column).cpu().numpy() for column in zip(*history, strict=True)]
    outcome = Outcome(
        broken=stacked[0],
        broken_8bit=stacked[1],
        cosine=stacked[2],
        own=stacked[3],
        found=found.cpu().numpy(),
    )
    return outcome, adversarial


def cosines(embedder: MirrorEmbedder, images: Tensor, references: Tensor) -> Tensor:
    """(n,) cosines of the images' embeddings and unit `references` (n, D)."""
    with torch.no_grad():
        cosine: Tensor = (embedder(images) * references).sum(1)
    return cosine


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcomes of several batches as one."""
    return Outcome(
        broken=np.concatenate([part.broken for part in parts], axis=1),
        broken_8bit=np.concatenate([part.broken_8bit for part in parts], axis=1),
        cosine=np.concatenate([part.cosine for part in parts], axis=1),
        own=np.concatenate([part.own for part in parts], axis=1),
        found=np.concatenate([part.found for part in parts]),
    )
