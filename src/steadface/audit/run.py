"""The audit from beginning to end: what can be done to a recogniser at the threshold that it is used with.

Work is cut into chunks (an attack, a goal, a batch of pairs) that are kept on the disk, so that an audit that was
stopped goes on; randomness depends on the seed and the name of the chunk alone, so it ends where it would have.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steadface.attacks import crafting
from steadface.audit import attacking, figures
from steadface.audit.battery import Battery, standard_battery
from steadface.audit.bench import Bench, Meter, Networks, Side
from steadface.audit.checks import Check, Tried, masking_checks
from steadface.audit.chunks import STATE, Chunks, Progress
from steadface.audit.corrupted import PASSES, corrupted_rates
from steadface.audit.figures import Attacked
from steadface.audit.identified import Searched, identification_figures
from steadface.audit.patched import patch_cost, patched_rates
from steadface.audit.pictures import most_telling, save_broken, telling
from steadface.audit.request import Request
from steadface.audit.trial import Embedded, Thresholds, Trial, embed_trial, plan_trial, thresholds
from steadface.errors import SteadfaceError
from steadface.evaluation.calibration import Calibration
from steadface.evaluation.findings import AttackExample
from steadface.evaluation.identification import open_gallery
from steadface.evaluation.series import Aim, Goal, Outcome

GOALS: tuple[Goal, Goal] = ("dodging", "impersonation")
EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class Audit:
    """`data` is what `audit.json` holds, but for title, settings, versions and the command."""

    data: dict[str, Any]
    examples: tuple[AttackExample, ...]


def run_audit(request: Request, folder: Path, *, progress: Progress | None = None) -> Audit:
    """Runs, or goes on with, the audit of `request` in `folder`.

    Raises `SteadfaceError` before any attack for pairs that do not support the FMR, a folder in use, and a network that
    gives no finite embeddings.
    """
    began, report = time.monotonic(), progress or _silent
    trial = plan_trial(
        request.pairs,
        preset=request.preset,
        fmr=request.fmr,
        threshold=request.threshold,
        max_pairs=request.max_pairs,
        seed=request.seed,
        calibration=request.calibration,
    )
    chunks, networks = Chunks(folder, request.identity()), Networks.of(request)
    embedded = embed_trial(
        networks.victim.crafts,
        trial,
        batch_size=request.batch_size,
        progress=lambda done, total: report("embedding", done, total),
    )
    plan, pairs = trial.identification, trial.pairs
    identifier = None if plan is None else open_gallery(plan, pairs, embedded.embeddings)
    levels = thresholds(
        embedded.impostors,
        fmr=request.fmr,
        threshold=request.threshold,
        identification=None if identifier is None else identifier.threshold,
    )
    sides = {goal: _side(goal, trial, embedded, levels) for goal in GOALS}
    battery = standard_battery(
        networks.victim,
        networks.surrogates,
        norm=request.norm,
        eps=request.eps,
        preset=request.preset,
        detail=request.detail,
        extra=request.extra,
    )
    bench = Bench(
        request=request,
        trial=trial,
        networks=networks,
        embeddings=embedded.embeddings,
        chunks=chunks,
        meter=Meter(report, 1.0),
    )
    count = sum(len(side.chosen) for side in sides.values())
    work = count * (attacking.price(bench, battery) + PASSES + patch_cost(bench)) + len(sides) * attacking.again_cost(
        bench
    )
    bench = replace(bench, meter=Meter(report, work))
    attacked = {goal: attacking.attack_side(bench, battery, side) for goal, side in sides.items()}
    unions = {goal: figures.union(one) for goal, one in attacked.items()}
    checks, surfaces = _check(bench, battery, sides, attacked, embedded)
    corrupted = _corrupt(bench, sides)
    patches = [entry for side in sides.values() for entry in patched_rates(bench, side)]
    bench.meter.advance("writing pictures")
    told, examples = _pictures(bench, folder, sides, attacked, unions)
    known = None
    if plan is not None and identifier is not None:
        bench.meter.advance("1:N")
        with crafting(networks.embedder):
            known = identification_figures(
                identifier,
                plan,
                pairs,
                embedded.embeddings,
                networks.embedder,
                balls=battery.balls,
                dodging=Searched(chosen=sides["dodging"].chosen, outcome=unions["dodging"]),
                impersonation=Searched(chosen=sides["impersonation"].chosen, outcome=unions["impersonation"]),
                batch_size=request.batch_size,
                device=request.device,
            )
    data = _rates(request, trial, levels, attacked, unions) | {
        "checks": [check.to_json() for check in checks],
        "identification": known,
        "corruptions": corrupted,
        "patches": patches,
        "surfaces": surfaces,
        "pairs": told,
        "seconds": time.monotonic() - began,
    }
    data["warnings"] = _warnings(bench, checks, data["clean"], count)
    return Audit(data=data, examples=tuple(examples))


def finish_audit(folder: Path) -> None:
    """Remove what an audit kept to be able to go on; for when its report is written."""
    shutil.rmtree(folder / STATE, ignore_errors=True)


def _silent(what: str, done: float, total: float) -> None: ...


def _side(goal: Goal, trial: Trial, embedded: Embedded, levels: Thresholds) -> Side:
    pairs, vectors = trial.pairs, embedded.embeddings
    drawn = trial.split.genuine if goal == "dodging" else trial.split.impostor
    similarity = (vectors[pairs.first[drawn]] * vectors[pairs.second[drawn]]).sum(1)
    readable = np.isfinite(similarity)
    if not readable.any():
        raise SteadfaceError(f"none of the pairs drawn for {goal} can be read; bring more pairs")
    aim = Aim(goal=goal, threshold=levels.main.threshold, line=levels.hardest(goal))
    return Side(aim=aim, chosen=drawn[readable], clean=similarity[readable])


def _check(
    bench: Bench,
    battery: Battery,
    sides: Mapping[Goal, Side],
    attacked: Mapping[Goal, Attacked],
    embedded: Embedded,
) -> tuple[list[Check], list[dict[str, Any]]]:
    """The masking checks, and the surfaces to draw."""
    gradients = bench.victim.differentiable
    tried = [
        Tried(
            aim=side.aim,
            radii=tuple(one.radius for one in battery.balls),
            found=attacked[goal].found,
            far=attacking.broken_far(bench, side) if gradients else None,
            again=attacking.attacked_again(bench, battery, side, attacked[goal]) if gradients else None,
        )
        for goal, side in sides.items()
    ]
    checks = masking_checks(
        tried,
        impostor_mean=float(embedded.impostors.similarity.mean(dtype=np.float64)),
        norm=bench.request.norm,
        differentiable=gradients,
    )
    drawn = []
    if gradients:
        with crafting(bench.networks.embedder, bench.victim.crafts):
            drawn = [surface for side in sides.values() for surface in attacking.surfaces(bench, battery, side)]
    return checks, drawn


def _corrupt(bench: Bench, sides: Mapping[Goal, Side]) -> list[dict[str, Any]]:
    entries = []
    for goal, side in sides.items():
        bench.meter.advance(f"corruptions, {goal}")
        batches = (bench.batch(side, rows) for rows in bench.rows(side))
        with crafting(bench.networks.embedder):
            entries += corrupted_rates(
                side.aim, bench.networks.embedder, batches, bench.generator(f"corruptions-{goal}")
            )
        bench.meter.advance(f"corruptions, {goal}", PASSES * len(side.chosen))
    return entries


def _pictures(
    bench: Bench,
    folder: Path,
    sides: Mapping[Goal, Side],
    attacked: Mapping[Goal, Attacked],
    unions: Mapping[Goal, Outcome],
) -> tuple[list[dict[str, Any]], list[AttackExample]]:
    """Every pair's outcome, its adversarial image on the disk, and the most telling ones for the page."""
    request, pairs = bench.request, bench.trial.pairs
    told: list[dict[str, Any]] = []
    examples: list[AttackExample] = []
    for goal, side in sides.items():
        one, outcome = attacked[goal], unions[goal]
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
            examples += telling(one, outcome, _shown(batch.images), rows, _shown(batch.targets), by)
    return told, examples


def _rates(
    request: Request,
    trial: Trial,
    levels: Thresholds,
    attacked: Mapping[Goal, Attacked],
    unions: Mapping[Goal, Outcome],
) -> dict[str, Any]:
    """Thresholds, error rates and distances."""

    def worst(calibration: Calibration) -> list[dict[str, Any]]:
        return [entry for goal in GOALS for entry in figures.worst_case(attacked[goal], unions[goal], calibration)]

    def clean(calibration: Calibration) -> dict[str, Any]:
        return figures.clean_rates(attacked["dodging"], attacked["impersonation"], calibration.threshold)

    found = {goal: figures.distances(attacked[goal]) for goal in GOALS}
    distances = {goal: distance for goal, distance in found.items() if distance is not None}
    return {
        "kind": "audit",
        "model": request.model.to_json(),
        "fmr": levels.main.fmr,
        "threshold": levels.main.threshold,
        "calibration": levels.main.to_json() | ({} if trial.others is None else {"pairs": "given"}),
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


def _warnings(bench: Bench, checks: Sequence[Check], clean: Mapping[str, Any], pairs: int) -> list[str]:
    """What a reader must know before believing the figures."""
    warnings = [f"{check.name}: does not hold ({check.finding})" for check in checks if check.passed is False]
    if bench.request.preset.name == "quick":
        warnings.insert(0, "this is a quick audit: it shows that everything works and supports no claim")
    for key, word in (("fnmr", "genuine"), ("fmr", "impostor")):
        if clean[key] > 0.5:
            warnings.append(
                f"{clean[key]:.0%} of the {word} pairs are wrong before any attack at this threshold; the rates under "
                "attack say little"
            )
    if not bench.networks.surrogates:
        warnings.append("no surrogate was given (--surrogate), so no transfer attack was run")
    lost = len(bench.trial.split.genuine) + len(bench.trial.split.impostor) - pairs
    if lost:
        warnings.append(f"{lost} of the drawn pairs have an image that cannot be read and were left out")
    if bench.request.detail and not patch_cost(bench):
        warnings.append("no patches were tried: they need gradients, and faces of 112 x 112 or their 112 x 96 crop")
    if bench.trial.remark:
        warnings.append(f"no 1:N part: {bench.trial.remark}")
    return [*warnings, *bench.request.model.notes]


def _shown(images: Tensor) -> list[NDArray[np.float32]]:
    return [image.permute(1, 2, 0).cpu().numpy() for image in images]
