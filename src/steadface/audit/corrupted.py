"""The baseline that tells 'attack' from 'bad camera': error rates on naturally corrupted faces."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from steadface.attacks.corruptions import CORRUPTIONS, corrupt
from steadface.attacks.goals import Embed
from steadface.audit.battery import Batch
from steadface.evaluation.intervals import clopper_pearson
from steadface.evaluation.series import Aim, cosines

SEVERITIES = (1, 3, 5)
PASSES = len(SEVERITIES) * len(CORRUPTIONS)
"""Forward passes a pair."""


def corrupted_rates(
    aim: Aim, embed: Embed, batches: Iterable[Batch], generator: torch.Generator
) -> list[dict[str, Any]]:
    """Share of pairs wrong with the first image corrupted, for every corruption and severity; plain JSON values."""
    wrong: dict[tuple[str, int], list[np.ndarray[Any, np.dtype[np.bool_]]]] = {}
    for batch in batches:
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                images = corrupt(batch.images, name, severity, generator)
                cosine = cosines(embed, images, batch.references)
                wrong.setdefault((name, severity), []).append(aim.broken(cosine).cpu().numpy())
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
