"""The baseline that tells 'attack' from 'bad camera': error rates on naturally corrupted faces."""

import numpy as np
from numpy.typing import NDArray

from steadface.attacks import crafting
from steadface.attacks.corruptions import CORRUPTIONS
from steadface.audit.session import Session, Side
from steadface.audit_record import CorruptionRate
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.series import cosines

SEVERITIES = (1, 3, 5)
PASSES = len(SEVERITIES) * len(CORRUPTIONS)
"""Forward passes a pair."""


def corruption_rates(session: Session, side: Side) -> list[CorruptionRate]:
    """Share of pairs wrong with the first image corrupted, for every corruption and severity."""
    what, embedder = f"corruptions, {side.aim.goal}", session.networks.embedder
    session.meter.advance(what)
    generator = session.generator(f"corruptions-{side.aim.goal}")
    wrong: dict[tuple[str, int], list[NDArray[np.bool_]]] = {}
    with crafting(embedder):
        for batch in (session.batch(side, rows) for rows in session.rows(side)):
            for corruption in CORRUPTIONS:
                for severity in SEVERITIES:
                    images = corruption(batch.images, severity, generator=generator)
                    broken = side.aim.broken(cosines(embedder, images, batch.references))
                    wrong.setdefault((corruption.__name__, severity), []).append(broken.cpu().numpy())
    session.meter.advance(what, PASSES * len(side.chosen))
    entries = []
    for (name, severity), parts in wrong.items():
        errors, pairs = int(np.concatenate(parts).sum()), sum(len(part) for part in parts)
        entries.append(
            CorruptionRate(
                corruption=name,
                severity=severity,
                goal=side.aim.goal,
                error_rate=errors / pairs,
                ci=clopper_pearson(errors, pairs),
                pairs=pairs,
            )
        )
    return entries
