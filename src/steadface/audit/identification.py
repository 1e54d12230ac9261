"""The 1:N part of an audit: the adversarial images of the pairs search a gallery.

What was crafted to cross every threshold of 1:1 was crafted to cross that of 1:N as well, which is among those aimed
at; so nothing is attacked anew. Images are those rounded to 8 bits, as somebody could hand them in.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.attacks import Norm, crafting
from steadface.audit.results import Results
from steadface.audit.session import Session, Side
from steadface.audit_record import IdentificationRates
from steadface.evaluation.identification import Attacked, Identification, Identifier
from steadface.evaluation.series import Goal

Vectors = NDArray[np.float32]


def identification_rates(
    session: Session, identifier: Identifier | None, sides: Mapping[Goal, Side], results: Results
) -> IdentificationRates | None:
    """All 1:N figures; None where there is no such part."""
    plan, pairs = session.plan.identification, session.plan.pairs
    if plan is None or identifier is None:
        return None
    assert pairs.people is not None
    session.meter.advance("1:N")
    attacks = []
    chosen = sides["dodging"].chosen
    mated = np.isin(chosen, plan.mated)
    people = pairs.people[pairs.first[chosen[mated]]]
    clean = session.embeddings[pairs.first[chosen[mated]]]
    for norm, eps, versions in _risen(session, "dodging", clean, mated, results):
        attacks.append(Attacked(norm=norm, eps=eps, found=identifier.mated(people, *versions)))
    chosen = sides["impersonation"].chosen
    able = np.isin(chosen, plan.impersonation)
    wanted = pairs.people[pairs.second[chosen[able]]]
    strangers = session.embeddings[pairs.first[chosen[able]]]
    for norm, eps, versions in _risen(session, "impersonation", strangers, able, results):
        attacks.append(Attacked(norm=norm, eps=eps, found=identifier.targeted(wanted, *versions)))
    known = Identification(identifier=identifier, clean=identifier.mated(people, clean), attacks=tuple(attacks))
    return IdentificationRates.model_validate(known.to_json(), strict=False)


def _risen(
    session: Session, goal: Goal, clean: Vectors, rows: NDArray[np.bool_], results: Results
) -> list[tuple[Norm, float, list[Vectors]]]:
    """For every ball its norm, its radius, and the probes' embeddings so far: clean, and up to that radius."""
    images, versions, risen = results.unions[goal].images, [clean], []
    for number, ball in enumerate(results.attacked[goal].balls):
        versions = [*versions, _embedded(session, images[number, rows])]
        risen.append((ball.norm, ball.radius, versions))
    return risen


def _embedded(session: Session, images: NDArray[np.uint8]) -> Vectors:
    if not len(images):
        return np.empty((0, 1), dtype=np.float32)
    with crafting(session.networks.embedder), torch.no_grad():
        batches = torch.split(torch.from_numpy(images), session.request.batch)
        parts = [session.networks.embedder(one.to(session.request.device).float() / 255).cpu() for one in batches]
    return torch.cat(parts).numpy()
