"""The audit from beginning to end: what can be done to a recogniser at the threshold that it is used with.

Work is cut into chunks (an attack, a goal, a batch of pairs) that are kept on the disk, so that an audit that was
stopped goes on; randomness depends on the seed and the name of the chunk alone, so it ends where it would have.
"""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

import numpy as np

from steadface.attacks import crafting
from steadface.audit import checks, figures, results
from steadface.audit.battery import Battery, standard_battery
from steadface.audit.corruptions import PASSES, corruption_rates
from steadface.audit.identification import identification_rates
from steadface.audit.patches import patch_cost, patch_rates
from steadface.audit.pictures import pair_pictures, surfaces
from steadface.audit.plan import Embedded, Plan, Thresholds, embed_plan, make_plan, thresholds
from steadface.audit.request import Request
from steadface.audit.results import Results
from steadface.audit.session import STATE, Chunks, Meter, Networks, Progress, Session, Side, contents
from steadface.audit_record import GOALS, Audit, Check, Surface
from steadface.errors import Unsupported
from steadface.evaluation.findings import AttackExample
from steadface.evaluation.identification import Identifier, open_gallery
from steadface.evaluation.robustness import readable_pairs
from steadface.evaluation.series import Aim, Goal
from steadface.evaluation.witness import Witness
from steadface.recognizers.adapters import without_gradients


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The record, but for versions and command, and the pairs that tell most as pictures."""

    record: Audit
    examples: tuple[AttackExample, ...]


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """All that is known before the first attack."""

    session: Session
    battery: Battery
    sides: Mapping[Goal, Side]
    levels: Thresholds
    identifier: Identifier | None
    impostor_mean: float
    witness: Witness


def perform_audit(request: Request, folder: Path, *, progress: Progress | None = None) -> Findings:
    """Runs, or goes on with, the audit of `request` in `folder`.

    Raises `SteadfaceError` before any attack for pairs that do not support the FMR, a folder in use, and a network that
    does not behave like a recogniser (`Witness`); and after them for one that has changed meanwhile.
    """
    began = time.monotonic()
    prepared = _prepare(request, folder, progress or _silent)
    session, battery, sides = prepared.session, prepared.battery, prepared.sides
    attacked = {goal: battery.on(session, side) for goal, side in sides.items()}
    found = Results(attacked=attacked, unions={goal: figures.union(one) for goal, one in attacked.items()})
    judged = _check(prepared, found)
    drawn = _surfaces(prepared)
    corrupted = [entry for side in sides.values() for entry in corruption_rates(session, side)]
    patches = [entry for side in sides.values() for entry in patch_rates(session, side)]
    prepared.witness.confirm(session.networks.embedder, session.victim.crafts)  # and not only as it began
    session.meter.advance("writing pictures")
    pairs, examples = pair_pictures(session, folder, sides, found)
    record = results.record(
        session,
        prepared.levels,
        found,
        checks=judged,
        identification=identification_rates(session, prepared.identifier, sides, found),
        corruptions=corrupted,
        patches=patches,
        surfaces=drawn,
        pairs=pairs,
        seconds=time.monotonic() - began,
    )
    return Findings(record=record, examples=tuple(examples))


def finish_audit(folder: Path) -> None:
    """Remove what an audit kept to be able to go on; for when its report is written."""
    shutil.rmtree(folder / STATE, ignore_errors=True)


def _silent(what: str, done: float, total: float) -> None: ...


def _prepare(request: Request, folder: Path, report: Progress) -> _Prepared:
    plan = make_plan(
        request.pairs,
        preset=request.preset,
        fmr=request.fmr,
        threshold=request.threshold,
        max_pairs=request.max_pairs,
        seed=request.seed,
        calibration=request.calibration,
    )
    request, networks, witness = _examined(request, plan)
    chunks = Chunks(folder, request.identity(), contents(plan.pairs.faces, plan.images(), request.seed))
    embedded = embed_plan(
        networks.victim.crafts,
        plan,
        batch_size=request.batch,
        progress=lambda done, total: report("embedding", done, total),
    )
    witness.confirm(networks.embedder, rows=embedded.embeddings[list(witness.indices)])
    identifier = None
    if plan.identification is not None:
        identifier = open_gallery(plan.identification, plan.pairs, embedded.embeddings)
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
    sides = {goal: _side(goal, plan, embedded, levels) for goal in GOALS}
    session = Session(
        request=request,
        plan=plan,
        networks=networks,
        embeddings=embedded.embeddings,
        chunks=chunks,
        meter=Meter(report),
    )
    each = battery.cost + checks.cost(session) + PASSES + patch_cost(session)
    again = len(sides) * checks.again_cost(session)
    session.meter.expect(again + each * sum(len(side.chosen) for side in sides.values()))
    return _Prepared(
        session=session,
        battery=battery,
        sides=sides,
        levels=levels,
        identifier=identifier,
        impostor_mean=float(embedded.impostors.similarity.mean(dtype=np.float64)),
        witness=witness,
    )


def _examined(request: Request, plan: Plan) -> tuple[Request, Networks, Witness]:
    """The networks, and what they make of a few faces; where gradients cannot be followed the recogniser is declared to
    have none, which a note says.

    Raises `SteadfaceError` for what does not behave like a recogniser, and for surrogates without gradients.
    """
    networks, model = Networks.of(request), request.model
    witness = Witness.of(networks.embedder, plan.pairs.faces, plan.images(), name=model.name)
    for surrogate, own in zip(request.surrogates, networks.surrogates, strict=True):
        if (fault := witness.gradient_fault(own)) is not None:
            raise Unsupported(f"nothing can be crafted on the surrogate {surrogate.name}: {fault}; name another")
    fault = witness.gradient_fault(networks.embedder)
    if fault is None:
        return request, networks, witness
    note = f"{model.name}: {fault}, so that only attacks without gradients are run, and stronger ones may exist"
    declared = replace(model, network=without_gradients(model.network), notes=(*model.notes, note))
    request = replace(request, model=declared)
    return request, Networks.of(request), witness


def _side(goal: Goal, plan: Plan, embedded: Embedded, levels: Thresholds) -> Side:
    match goal:
        case "dodging":
            drawn = plan.split.genuine
        case "impersonation":
            drawn = plan.split.impostor
        case _:
            assert_never(goal)
    chosen, clean = readable_pairs(plan.pairs, drawn, embedded.embeddings, goal)
    aim = Aim(goal=goal, threshold=levels.main.threshold, line=levels.hardest(goal))
    return Side(aim=aim, chosen=chosen, clean=clean)


def _check(prepared: _Prepared, found: Results) -> list[Check]:
    session, balls = prepared.session, prepared.battery.balls
    gradients = session.victim.differentiable
    tried = [
        checks.Tried(
            aim=side.aim,
            radii=tuple(one.radius for one in balls),
            found=found.attacked[goal].found,
            far=checks.broken_far(session, side) if gradients else None,
            again=checks.attacked_again(session, balls, side, found.attacked[goal].found["APGD"])
            if gradients
            else None,
        )
        for goal, side in prepared.sides.items()
    ]
    return checks.masking_checks(
        tried, impostor_mean=prepared.impostor_mean, norm=session.request.norm, differentiable=gradients
    )


def _surfaces(prepared: _Prepared) -> list[Surface]:
    session, smallest = prepared.session, prepared.battery.balls[0]
    if not session.victim.differentiable:
        return []
    with crafting(session.networks.embedder, session.victim.crafts):
        return [surface for side in prepared.sides.values() for surface in surfaces(session, smallest, side)]
