"""The sandwich: what is certified of a pair, the truth, and what an attack on the smoothed verifier reaches.

    certified radius  <=  distance of the nearest image that is decided wrongly  <=  distance of the one that was found

A certificate rests on assumptions (the noise is what it is said to be, the network answers alike for one image), and on
code. An attack cannot prove them, but it can show that they do not hold. The nearest image is looked for by FMN in l2
with gradients over the noise (`attacks/smoothed.py`). It, and images on the line through it, are then drawn anew, and
what is counted is held against what the certificate promises there: of the share `p` on the right side at x, at
least `Phi(Phi^-1(p) - d / sigma)` is left in distance d. That is far more than that no attack succeeds within the
radius: it speaks of every image that was looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.attacks import APGD, FMN, L2, Smoothed, dodge, impersonate
from steadface.attacks.distances import lengths
from steadface.audit.battery import LARGEST
from steadface.audit.execution import GRADIENT, Arrays
from steadface.certification import smoothing
from steadface.certification.side import Side, on_right_side
from steadface.certification.verifier import LEVELS
from steadface.certification.work import Work
from steadface.data.loading import as_tensor
from steadface.errors import SteadfaceError
from steadface.evaluation.series import Goal

RADIUS = LARGEST["l2"]
"""Of the l2 ball in which wrong decisions are looked for, as in audits."""
START_STEPS, FOLLOW_STEPS = 10, 25
ATTACK_DRAWS = 8
"""Noisy versions of which a gradient is the mean."""
BEYOND = (1.0, 1.1, 1.25, 1.5)
"""Times the perturbation that was found: the nearest of these that is surely decided wrongly counts as found."""
CONFIRM_DRAWS = 200
FALSE_ALARM = 1e-3
"""How probably a certification all of whose certificates hold is called contradicted."""
COST = GRADIENT * ATTACK_DRAWS * (START_STEPS + FOLLOW_STEPS) + CONFIRM_DRAWS * (1 + len(BEYOND))
"""What a pair costs at most, in images embedded."""
TOGETHER = 8
"""Pairs attacked at once."""


class Contradicted(SteadfaceError):
    """An attack has shown that what was certified does not hold: no certificate of this recogniser can be believed."""

    exit_code: ClassVar[int] = 8
    http_status: ClassVar[int] = 500


@dataclass(frozen=True, kw_only=True)
class Sandwich:
    """What the attack found: by goal the `rows` (m,) of its side and their attacked `distances` (m,), inf where there
    is none; and how many images were held against their certificates.
    """

    rows: Mapping[Goal, NDArray[np.int64]]
    distances: Mapping[Goal, NDArray[np.float64]]
    checks: int


def sandwiched(work: Work, sides: Mapping[Goal, Side]) -> Sandwich:
    """Attacks the first certified pairs of every goal.

    Raises `Contradicted` where an image near a pair is decided wrongly more often than its certificate allows.
    """
    rows = {goal: np.flatnonzero(side.radii > 0)[: work.request.attacked] for goal, side in sides.items()}
    checks = sum(map(len, rows.values())) * (1 + len(BEYOND))
    distances = {
        goal: np.concatenate([np.empty(0), *_attacked(work, side, rows[goal], FALSE_ALARM / max(1, checks))])
        for goal, side in sides.items()
    }
    return Sandwich(rows=rows, distances=distances, checks=checks)


def _attacked(work: Work, side: Side, rows: NDArray[np.int64], alpha: float) -> list[NDArray[np.float64]]:
    """The attacked distances of those pairs, batch by batch, each kept once it is done and checked."""
    what, found = f"attack {side.aim.goal}", []
    for start in range(0, len(rows), TOGETHER):
        part = rows[start : start + TOGETHER]
        work.meter.advance(what)
        name = f"{what}-{start:05d}".replace(" ", "-")
        seen = work.chunks.get(name, lambda part=part, name=name: _looked_at(work, side, part, name))  # type: ignore[misc]
        found.append(_judged(work, side, part, seen["distance"], seen["right"], alpha))
        work.meter.advance(what, COST * len(part))
    return found


def _looked_at(work: Work, side: Side, rows: NDArray[np.int64], name: str) -> Arrays:
    """For images near each pair, (m, k): their `distance`, and how many of `CONFIRM_DRAWS` are on the `right` side.

    The first lies as far as the pair is certified, the others where the attack succeeded, and beyond.
    """
    pairs = work.request.pairs
    read, _ = work.read(pairs.first[side.chosen[rows]])
    images = as_tensor(read)
    moved = _nearest(work, side, rows, images, name) - images
    reached = lengths(moved, "l2").double().numpy()
    inside = np.minimum(side.radii[rows] / np.maximum(reached, 1e-12), 1.0)
    factors = np.stack([inside, *(np.full(len(rows), beyond) for beyond in BEYOND)], axis=1)
    distance, right = np.empty(factors.shape), np.empty(factors.shape, dtype=np.int64)
    for place, row in enumerate(rows.tolist()):
        noise = work.noise(f"{name} {row}")
        for number, factor in enumerate(factors[place]):
            image = (images[place] + factor * moved[place]).clamp(0, 1)
            distance[place, number] = float((image.double() - images[place].double()).norm())
            embeddings = work.verifier.embeddings(LEVELS * image.double().numpy(), CONFIRM_DRAWS, noise)
            right[place, number] = np.count_nonzero(on_right_side(side.aim, embeddings @ side.enrolled[row]))
    return {"distance": distance, "right": right}


def _nearest(work: Work, side: Side, rows: NDArray[np.int64], images: torch.Tensor, name: str) -> torch.Tensor:
    """The nearest images (m, 3, H, W) that FMN takes for wrongly decided, else the furthest on the way there."""
    device, embedder = work.request.device, work.verifier.embedder
    seeds = torch.Generator().manual_seed(int(work.noise(f"{name} attack").integers(2**63)))
    goal = dodge if side.aim.sign < 0 else impersonate
    templates = torch.from_numpy(side.enrolled[rows]).to(device)
    score = Smoothed(
        score=goal(embedder, templates, threshold=side.aim.threshold),
        sigma=work.request.sigma,
        draws=ATTACK_DRAWS,
        generator=seeds,
    )
    attack = FMN(attack=APGD(ball=L2(RADIUS), steps=START_STEPS), steps=FOLLOW_STEPS)
    return attack.closest(score, images.to(device), generator=seeds).images.detach().cpu()


def _judged(
    work: Work,
    side: Side,
    rows: NDArray[np.int64],
    distance: NDArray[np.float64],
    right: NDArray[np.int64],
    alpha: float,
) -> NDArray[np.float64]:
    """(m,) distances of the nearest images that are surely decided wrongly, inf where there is none.

    Raises `Contradicted` for the first image whose certificate promises more than was seen.
    """
    promised = smoothing.moved_share(side.least[rows, None], distance, side.sigma)
    most = smoothing.most_share(right, CONFIRM_DRAWS, alpha)
    for row, number in np.argwhere(most < promised).tolist():
        pairs, pair = work.request.pairs, side.chosen[rows[row]]
        raise Contradicted(
            f"the certificate of {pairs.faces.name(int(pairs.first[pair]))} and "
            f"{pairs.faces.name(int(pairs.second[pair]))} does not hold: it promises that in distance "
            f"{distance[row, number]:.3f} at least {promised[row, number]:.0%} of the noisy images are decided rightly "
            f"(certified radius {side.radii[rows[row]]:.3f}), and of {CONFIRM_DRAWS} drawn there {right[row, number]} "
            "are. The recogniser answers otherwise for one image at another time, or in another batch, or its noise is "
            "not what --sigma says: no certificate of it is written"
        )
    surely = most < 0.5
    found: NDArray[np.float64] = np.where(surely, distance, np.inf).min(1)
    return found
