"""The baseline that tells 'attack' from 'bad camera': error rates on naturally corrupted faces."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.attacks.corruptions import CORRUPTIONS
from steadface.attacks.goals import Embed
from steadface.audit.running import Batch
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.series import Aim, cosines

SEVERITIES = (1, 3, 5)
PASSES = len(SEVERITIES) * len(CORRUPTIONS)
"""Forward passes a pair."""


def corrupted_rates(
    aim: Aim, embed: Embed, batches: Iterable[Batch], generator: torch.Generator
) -> list[dict[str, Any]]:
    """Share of pairs wrong with the first image corrupted, for every corruption and severity; plain JSON values."""
    wrong: dict[tuple[str, int], list[NDArray[np.bool_]]] = {}
    for batch in batches:
        for corruption in CORRUPTIONS:
            for severity in SEVERITIES:
                images = corruption(batch.images, severity, generator=generator)
                broken = aim.broken(cosines(embed, images, batch.references))
                wrong.setdefault((corruption.__name__, severity), []).append(broken.cpu().numpy())
    entries = []
    for (name, severity), parts in wrong.items():
        errors, pairs = int(np.concatenate(parts).sum()), sum(len(part) for part in parts)
        entries.append(
            {
                "corruption": name,
                "severity": severity,
                "goal": aim.goal,
                "error_rate": errors / pairs,
                "ci": list(clopper_pearson(errors, pairs)),
                "pairs": pairs,
            }
        )
    return entries
