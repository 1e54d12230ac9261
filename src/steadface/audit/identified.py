"""The 1:N part of an audit: the adversarial images of the pairs search a gallery.

What was crafted to cross every threshold of 1:1 was crafted to cross that of 1:N as well, which is among those aimed
at; so nothing is attacked anew. Images are those rounded to 8 bits, as somebody could hand them in.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.attacks import Ball
from steadface.attacks.goals import Embed
from steadface.data.pairs import PairSet
from steadface.evaluation.identification import Attacked, Identification, IdentificationPlan, Identifier
from steadface.evaluation.series import Outcome


@dataclass(frozen=True, kw_only=True)
class Searched:
    """One goal's attacked pairs: `chosen` (n,) of the pair set, and what the worst case made of them."""

    chosen: NDArray[np.int64]
    outcome: Outcome


def identification_figures(
    identifier: Identifier,
    plan: IdentificationPlan,
    pairs: PairSet,
    embeddings: NDArray[np.float32],
    embed: Embed,
    *,
    balls: tuple[Ball, ...],
    dodging: Searched,
    impersonation: Searched,
    batch_size: int,
    device: torch.device,
) -> dict[str, Any]:
    """All 1:N figures; `embeddings` (N, D) are the clean ones."""
    assert pairs.people is not None
    attacks = []
    mated = np.isin(dodging.chosen, plan.mated)
    people = pairs.people[pairs.first[dodging.chosen[mated]]]
    clean = embeddings[pairs.first[dodging.chosen[mated]]]
    versions = [clean]
    for number, ball in enumerate(balls):
        versions.append(_embedded(dodging.outcome.images[number, mated], embed, batch_size, device))
        found = identifier.mated(people, *versions)
        attacks.append(Attacked(norm=ball.norm, eps=ball.radius, found=found))
    able = np.isin(impersonation.chosen, plan.impersonation)
    wanted = pairs.people[pairs.second[impersonation.chosen[able]]]
    versions = [embeddings[pairs.first[impersonation.chosen[able]]]]
    for number, ball in enumerate(balls):
        versions.append(_embedded(impersonation.outcome.images[number, able], embed, batch_size, device))
        attacks.append(Attacked(norm=ball.norm, eps=ball.radius, found=identifier.targeted(wanted, *versions)))
    known = Identification(identifier=identifier, clean=identifier.mated(people, clean), attacks=tuple(attacks))
    return known.to_json()


def _embedded(images: NDArray[np.uint8], embed: Embed, batch_size: int, device: torch.device) -> NDArray[np.float32]:
    if not len(images):
        return np.empty((0, 1), dtype=np.float32)
    with torch.no_grad():
        batches = torch.split(torch.from_numpy(images), batch_size)
        parts = [embed(batch.to(device).float() / 255).cpu() for batch in batches]
    return torch.cat(parts).numpy()
