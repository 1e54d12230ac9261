"""The certification from beginning to end: a frozen threshold, the draws of every pair, and the attack on what follows.

Work is cut into chunks that are kept on the disk, as that of audits.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from steadface.attacks import crafting
from steadface.audit.session import Chunks, Meter, Progress, contents
from steadface.audit_record import GOALS
from steadface.certificate_record import Certificate
from steadface.certification import results, sandwich
from steadface.certification.request import TEMPLATE_DRAWS, Request
from steadface.certification.results import Example
from steadface.certification.side import Side
from steadface.certification.threshold import calibrated, listed
from steadface.certification.verifier import SmoothedVerifier
from steadface.certification.work import Work
from steadface.errors import InvalidInput
from steadface.evaluation.calibration import split_for_attack
from steadface.evaluation.embedding import Blurred, MirrorEmbedder
from steadface.evaluation.series import Aim, Goal
from steadface.evaluation.witness import Witness
from steadface.recognizers.embedder import compiled, quickened

RECORD = "certificate.json"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The record, but for versions and command, and some pairs as pictures."""

    record: Certificate
    examples: tuple[Example, ...]


def perform_certification(request: Request, folder: Path, *, progress: Progress | None = None) -> Findings:
    """Runs, or goes on with, the certification of `request` in `folder`.

    Raises `SteadfaceError` before any draw for pairs that do not support the FMR, too few draws, a folder in use, and a
    network that does not behave like a recogniser; `Contradicted` where an attack shows a certificate to be wrong.
    """
    began = time.monotonic()
    work, witness, alpha = _prepared(request, folder, progress or _silent)
    fault = witness.gradient_fault(work.verifier.embedder)
    attacks = bool(request.attacked) and fault is None and work.verifier.embedder.differentiable
    work.meter.expect(_cost(work, attacks))
    with crafting(work.verifier.embedder):
        calibration = calibrated(work)
        sides = {goal: _side(work, goal, calibration.threshold, alpha) for goal in GOALS}
        found = sandwich.sandwiched(work, sides) if attacks else None
    witness.confirm(work.verifier.embedder)
    unchecked = f"no attack on the smoothed verifier checks these certificates: {fault or 'it has no gradients'}"
    record = results.record(
        work,
        calibration,
        sides,
        found,
        statements=request.statements(len(work.split.genuine) + len(work.split.impostor)),
        seconds=time.monotonic() - began,
        notes=[unchecked] if request.attacked and not attacks else [],
    )
    return Findings(record=record, examples=tuple(results.examples(work, sides)))


def _silent(what: str, done: float, total: float) -> None: ...


def _prepared(request: Request, folder: Path, report: Progress) -> tuple[Work, Witness, float]:
    """What is known before the first draw, and how probably a statement about a pair may be wrong."""
    pairs = request.pairs
    split = split_for_attack(
        pairs,
        fmr=request.fmr,
        max_pairs=request.max_pairs,
        seed=request.seed,
        most_images=request.calibration_images,
        checked=request.threshold is None,
    )
    certified = np.concatenate([split.genuine, split.impostor])
    alpha = request.alpha(len(certified))
    network = quickened(request.model.network).to(request.device)
    embedder = MirrorEmbedder(Blurred(network, request.blur) if request.blur else network, request.mirror)
    images = np.union1d(pairs.first[certified], pairs.second[certified])
    witness = Witness.of(embedder, pairs.faces, images, name=request.model.name)
    seen = contents(pairs.faces, images, request.seed)
    run = compiled(embedder, request.device) if request.compile else embedder
    verifier = SmoothedVerifier(
        embedder=embedder, run=run, sigma=request.sigma, batch=request.batch, device=request.device
    )
    work = Work(
        request=request,
        split=split,
        verifier=verifier,
        chunks=Chunks(folder, request.identity(), seen, record=RECORD),
        meter=Meter(report),
    )
    return work, witness, alpha


def _cost(work: Work, attacks: bool) -> float:
    """Images to embed in all, at most."""
    request, split = work.request, work.split
    pairs = len(split.genuine) + len(split.impostor)
    calibrating = 2 * len(listed(split, request.calibration_pairs)) if split.images is None else len(split.images)
    attacking = 2 * request.attacked * sandwich.COST if attacks else 0
    return calibrating * TEMPLATE_DRAWS + pairs * (TEMPLATE_DRAWS + request.draws) + attacking


def _side(work: Work, goal: Goal, threshold: float, alpha: float) -> Side:
    """The draws of a goal's pairs: the second image is enrolled, the first one is what is certified."""
    planned, pairs = work.planned(goal), work.request.pairs
    enrolled = work.enrolled(f"enrolled {goal}", pairs.second[planned])
    cosines = work.cosines(goal, enrolled)
    known = np.isfinite(cosines).all(1)
    if not known.any():
        raise InvalidInput(f"none of the pairs drawn for {goal} can be read; bring more pairs")
    return Side(
        aim=Aim(goal=goal, threshold=threshold),
        chosen=planned[known],
        enrolled=enrolled[known],
        cosines=cosines[known],
        sigma=work.request.sigma,
        alpha=alpha,
    )
