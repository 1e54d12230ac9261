"""Patches that somebody could wear, in an audit asked for detail: error rates by where they sit.

A patch has no radius, so it takes no part in the worst case. One is made to deceive as it sits exactly and, by `VIEWS`
further views, also a little moved and in other light; it counts where it does as it sits exactly.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.attacks import Patch
from steadface.audit.execution import GRADIENT, Arrays
from steadface.audit.session import Session, Side
from steadface.audit_record import PatchRate
from steadface.data.masks import REGIONS, Region, face_mask
from steadface.errors import SteadfaceError
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.series import cosines

VIEWS = 2


def patch_cost(session: Session) -> float:
    """What all patches cost for a pair, in forward passes."""
    steps = session.request.preset.patch_steps
    return len(REGIONS) * steps * (GRADIENT + 1 + VIEWS) if wanted(session) else 0.0


def wanted(session: Session) -> bool:
    """Patches are for detail, need gradients, and have masks for some sizes of faces only."""
    try:
        face_mask(REGIONS[0], session.networks.embedder.size)
    except SteadfaceError:
        return False
    return session.request.detail and session.victim.differentiable


def patch_rates(session: Session, side: Side) -> list[PatchRate]:
    """Share of pairs wrong with each patch on the first image."""
    if not wanted(session):
        return []
    return [_rate(session, side, region) for region in REGIONS]


def _rate(session: Session, side: Side, region: Region) -> PatchRate:
    mask = face_mask(region, session.networks.embedder.size)
    attack = Patch(mask=mask, steps=session.request.preset.patch_steps, trials=VIEWS)

    def make(rows: NDArray[np.int64], generator: torch.Generator) -> Arrays:
        batch = session.batch(side, rows)
        score = side.aim.score(session.victim.crafts, batch.references)
        worn = attack(score, batch.images, generator=generator)
        reached = cosines(session.networks.embedder, worn, batch.references)
        return {"broken": (side.aim.broken(reached) | side.aim.broken(batch.clean)).cpu().numpy()}

    cost = patch_cost(session) / len(REGIONS)
    broken = np.concatenate([part["broken"] for part in session.by_batches(f"patch {region}", side, cost, make)])
    return PatchRate(
        patch=region,
        area=float(mask.mean()),
        goal=side.aim.goal,
        error_rate=float(broken.mean()),
        ci=clopper_pearson(int(broken.sum()), len(broken)),
        pairs=len(broken),
    )
