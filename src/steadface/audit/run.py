"""The audit from beginning to end: what can be done to a recogniser at the threshold that it is used with.

Work is cut into chunks (an attack, a goal, a batch of pairs) that are kept on the disk, so that an audit that was
stopped goes on; randomness depends on the seed and the name of the chunk alone, so it ends where it would have.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steadface.attacks import crafting
from steadface.audit import attacking, figures, telling
from steadface.audit.battery import Battery, standard_battery
from steadface.audit.bench import Bench, Meter, Networks, Side
from steadface.audit.checks import Check, Tried, masking_checks
from steadface.audit.chunks import STATE, Chunks, Progress
from steadface.audit.corrupted import PASSES, corrupted_rates
from steadface.audit.patched import patch_cost, patched_rates
from steadface.audit.request import Request
from steadface.audit.telling import GOALS, Results
from steadface.audit.trial import Embedded, Thresholds, Trial, embed_trial, plan_trial, thresholds
from steadface.evaluation.findings import AttackExample
from steadface.evaluation.identification import Identifier, open_gallery
from steadface.evaluation.robustness import readable_pairs
from steadface.evaluation.series import Aim, Goal


@dataclass(frozen=True, kw_only=True)
class Audit:
    """`data` is what `audit.json` holds, but for title, settings, versions and the command."""

    data: dict[str, Any]
    examples: tuple[AttackExample, ...]


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """All that is known before the first attack."""

    bench: Bench
    battery: Battery
    sides: Mapping[Goal, Side]
    levels: Thresholds
    identifier: Identifier | None
    impostor_mean: float


def run_audit(request: Request, folder: Path, *, progress: Progress | None = None) -> Audit:
    """Runs, or goes on with, the audit of `request` in `folder`.

    Raises `SteadfaceError` before any attack for pairs that do not support the FMR, a folder in use, and a network that
    gives no finite embeddings.
    """
    began = time.monotonic()
    prepared = _prepare(request, folder, progress or _silent)
    bench, battery, sides = prepared.bench, prepared.battery, prepared.sides
    attacked = {goal: attacking.attack_side(bench, battery, side) for goal, side in sides.items()}
    results = Results(attacked=attacked, unions={goal: figures.union(one) for goal, one in attacked.items()})
    checks, surfaces = _check(prepared, results)
    corrupted = _corrupt(bench, sides)
    patches = [entry for side in sides.values() for entry in patched_rates(bench, side)]
    bench.meter.advance("writing pictures")
    told, examples = telling.pictures(bench, folder, sides, results)
    data = telling.rates(bench, prepared.levels, results) | {
        "checks": [check.to_json() for check in checks],
        "identification": telling.identified(bench, prepared.identifier, sides, results),
        "corruptions": corrupted,
        "patches": patches,
        "surfaces": surfaces,
        "pairs": told,
        "seconds": time.monotonic() - began,
    }
    data["warnings"] = telling.warnings(bench, checks, data["clean"], len(told))
    return Audit(data=data, examples=tuple(examples))


def finish_audit(folder: Path) -> None:
    """Remove what an audit kept to be able to go on; for when its report is written."""
    shutil.rmtree(folder / STATE, ignore_errors=True)


def _silent(what: str, done: float, total: float) -> None: ...


def _prepare(request: Request, folder: Path, report: Progress) -> _Prepared:
    trial = plan_trial(
        request.pairs,
        preset=request.preset,
        fmr=request.fmr,
        threshold=request.threshold,
        max_pairs=request.max_pairs,
        seed=request.seed,
        calibration=request.calibration,
    )
    networks = Networks.of(request)
    chunks = Chunks(folder, request.identity())
    embedded = embed_trial(
        networks.victim.crafts,
        trial,
        batch_size=request.batch_size,
        progress=lambda done, total: report("embedding", done, total),
    )
    plan = trial.identification
    identifier = None if plan is None else open_gallery(plan, trial.pairs, embedded.embeddings)
    levels = thresholds(
        embedded.impostors,
        fmr=request.fmr,
        threshold=request.threshold,
        identification=None if identifier is None else identifier.threshold,
    )
    battery = standard_battery(
        networks.victim,
        networks.surrogates,
        norm=request.norm,
        eps=request.eps,
        preset=request.preset,
        detail=request.detail,
        extra=request.extra,
    )
    sides = {goal: _side(goal, trial, embedded, levels) for goal in GOALS}
    bench = Bench(
        request=request,
        trial=trial,
        networks=networks,
        embeddings=embedded.embeddings,
        chunks=chunks,
        meter=Meter(report),
    )
    each = attacking.price(bench, battery) + PASSES + patch_cost(bench)
    again = len(sides) * attacking.again_cost(bench)
    bench.meter.expect(again + each * sum(len(side.chosen) for side in sides.values()))
    return _Prepared(
        bench=bench,
        battery=battery,
        sides=sides,
        levels=levels,
        identifier=identifier,
        impostor_mean=float(embedded.impostors.similarity.mean(dtype=np.float64)),
    )


def _side(goal: Goal, trial: Trial, embedded: Embedded, levels: Thresholds) -> Side:
    drawn = trial.split.genuine if goal == "dodging" else trial.split.impostor
    chosen, clean = readable_pairs(trial.pairs, drawn, embedded.embeddings, goal)
    aim = Aim(goal=goal, threshold=levels.main.threshold, line=levels.hardest(goal))
    return Side(aim=aim, chosen=chosen, clean=clean)


def _check(prepared: _Prepared, results: Results) -> tuple[list[Check], list[dict[str, Any]]]:
    """The masking checks, and the surfaces to draw."""
    bench, battery, sides = prepared.bench, prepared.battery, prepared.sides
    gradients = bench.victim.differentiable
    tried = [
        Tried(
            aim=side.aim,
            radii=tuple(one.radius for one in battery.balls),
            found=results.attacked[goal].found,
            far=attacking.broken_far(bench, side) if gradients else None,
            again=attacking.attacked_again(bench, battery, side, results.attacked[goal]) if gradients else None,
        )
        for goal, side in sides.items()
    ]
    checks = masking_checks(
        tried,
        impostor_mean=prepared.impostor_mean,
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
