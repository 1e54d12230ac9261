"""What is told of an audit: rates and distances, pictures, 1:N, and what to know before believing any of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.attacks import crafting
from steadface.audit import figures
from steadface.audit.bench import Bench, Side
from steadface.audit.checks import Check
from steadface.audit.figures import Attacked
from steadface.audit.identified import Searched, identification_figures
from steadface.audit.patched import patch_cost
from steadface.audit.pictures import examples_of, most_telling, save_broken
from steadface.audit.trial import Thresholds
from steadface.data.pairs import doubled_pictures
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.findings import AttackExample
from steadface.evaluation.identification import Identifier
from steadface.evaluation.series import Goal, Outcome
from steadface.recognizers import TRIED

GOALS: tuple[Goal, Goal] = ("dodging", "impersonation")
EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Results:
    """What the attacks did, by goal: all of them, and their worst case."""

    attacked: Mapping[Goal, Attacked]
    unions: Mapping[Goal, Outcome]


def rates(bench: Bench, levels: Thresholds, results: Results) -> dict[str, Any]:
    """Thresholds, error rates and distances."""
    request, attacked = bench.request, results.attacked

    def worst(calibration: Calibration) -> list[dict[str, Any]]:
        return [
            entry for goal in GOALS for entry in figures.worst_case(attacked[goal], results.unions[goal], calibration)
        ]

    def clean(calibration: Calibration) -> dict[str, Any]:
        return figures.clean_rates(attacked["dodging"], attacked["impersonation"], calibration.threshold)

    found = {goal: figures.distances(attacked[goal]) for goal in GOALS}
    distances = {goal: distance for goal, distance in found.items() if distance is not None}
    return {
        "kind": "audit",
        "model": request.model.to_json(),
        "fmr": levels.main.fmr,
        "threshold": levels.main.threshold,
        "calibration": levels.main.to_json() | ({} if bench.trial.others is None else {"pairs": "given"}),
        "clean": clean(levels.main),
        "worst_case": worst(levels.main),
        "attacks": [entry for goal in GOALS for entry in figures.single_attacks(attacked[goal], levels.main)],
        "other_thresholds": [
            {"fmr": other.fmr, "threshold": other.threshold, "clean": clean(other), "worst_case": worst(other)}
            for other in levels.others
        ],
        "median_distance": {request.norm: {goal: distance["median"] for goal, distance in distances.items()}},
        "distances": {request.norm: distances},
    }


def pictures(
    bench: Bench, folder: Path, sides: Mapping[Goal, Side], results: Results
) -> tuple[list[dict[str, Any]], list[AttackExample]]:
    """Every pair's outcome, its adversarial image on the disk, and the most telling ones for the page."""
    request, pairs = bench.request, bench.trial.pairs
    told: list[dict[str, Any]] = []
    examples: list[AttackExample] = []
    for goal, side in sides.items():
        one, outcome = results.attacked[goal], results.unions[goal]
        references = torch.from_numpy(bench.embeddings[pairs.second[side.chosen]]).to(request.device)
        with crafting(bench.networks.embedder):
            saved = save_broken(
                folder, one, outcome, references, bench.networks.embedder, batch_size=request.batch_size
            )
        ends = zip(pairs.first[side.chosen].tolist(), pairs.second[side.chosen].tolist(), strict=True)
        names = [(pairs.faces.name(first), pairs.faces.name(second)) for first, second in ends]
        told += figures.pair_outcomes(one, outcome, names, saved)
        rows = most_telling(one, outcome, 2 * EXAMPLES if request.detail else EXAMPLES)
        if rows:
            batch = bench.batch(side, np.array(rows))
            by = figures.broken_by(one, figures.first_broken(one, outcome))
            examples += examples_of(one, outcome, _shown(batch.images), rows, _shown(batch.targets), by)
    return told, examples


def identified(
    bench: Bench, identifier: Identifier | None, sides: Mapping[Goal, Side], results: Results
) -> dict[str, Any] | None:
    """The 1:N figures; None where there is no such part."""
    plan = bench.trial.identification
    if plan is None or identifier is None:
        return None
    bench.meter.advance("1:N")
    searched = {goal: Searched(chosen=sides[goal].chosen, outcome=results.unions[goal]) for goal in GOALS}
    with crafting(bench.networks.embedder):
        return identification_figures(
            identifier,
            plan,
            bench.trial.pairs,
            bench.embeddings,
            bench.networks.embedder,
            balls=results.attacked["dodging"].balls,
            dodging=searched["dodging"],
            impersonation=searched["impersonation"],
            batch_size=bench.request.batch_size,
            device=bench.request.device,
        )


def warnings(bench: Bench, checks: Sequence[Check], clean: Mapping[str, Any], pairs: int) -> list[str]:
    """What a reader must know before believing the figures."""
    found = [f"{check.name}: does not hold ({check.finding})" for check in checks if check.passed is False]
    if bench.request.preset.name == "quick":
        found.insert(0, "this is a quick audit: it shows that everything works and supports no claim")
    for key, word in (("fnmr", "genuine"), ("fmr", "impostor")):
        if clean[key] > 0.5:
            found.append(
                f"{clean[key]:.0%} of the {word} pairs are wrong before any attack at this threshold; the rates under "
                "attack say little"
            )
    if not bench.networks.surrogates:
        found.append("no surrogate was given (--surrogate), so no transfer attack was run")
    lost = len(bench.trial.split.genuine) + len(bench.trial.split.impostor) - pairs
    if lost:
        found.append(f"{lost} of the drawn pairs have an image that cannot be read and were left out")
    if bench.request.detail and not patch_cost(bench):
        found.append("no patches were tried: they need gradients, and faces of 112 x 112 or their 112 x 96 crop")
    if bench.trial.remark:
        found.append(f"no 1:N part: {bench.trial.remark}")
    found += doubled_pictures("pairs", bench.trial.pairs)
    return [*found, *(note for note in bench.request.model.notes if TRIED not in note)]


def _shown(images: Tensor) -> list[NDArray[np.float32]]:
    return [image.permute(1, 2, 0).cpu().numpy() for image in images]
