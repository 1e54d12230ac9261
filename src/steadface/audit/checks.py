"""Whether the attacks of an audit can be believed: the checks of Carlini et al., On Evaluating Adversarial Robustness,
2019 (their section 3 and 5), on what was found.

A model that hides its gradients (masking) makes gradient attacks fail without resisting anything. Each check states
what must hold if that is not the case; one that fails is a warning in the report.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.arguments import SEEDS
from steadface.attacks import APGD, Ball, CosineScore, ball, crafting
from steadface.audit.execution import GRADIENT, Arrays, Batch, Found
from steadface.audit.session import Session, Side
from steadface.audit_record import Check
from steadface.evaluation.findings import COLLAPSED, RETREAT
from steadface.evaluation.series import Aim, cosines

SLACK = 0.02
"""By how much a weaker attack's rate may exceed a stronger one's, and what more steps or other starts may add in mean
cosine."""
MORE_PAIRS = 0.1
"""The share of pairs that more steps may break besides."""
FAR: dict[str, float] = {"linf": 64 / 255, "l2": 30.0}
"""A radius at which nothing recognisable need be left: every pair must break inside."""
FAR_STEPS = 20


@dataclass(frozen=True, kw_only=True)
class Tried:
    """All that was found for one goal: attacks by name, the pairs broken at a `FAR` radius (n,), and the runs again."""

    aim: Aim
    radii: tuple[float, ...]
    found: Mapping[str, Found]
    far: NDArray[np.bool_] | None
    again: "Again | None"

    def rates(self, *names: str) -> NDArray[np.float64] | None:
        """(K,) share of pairs broken by any of the named attacks up to each radius; None where none was run."""
        cosines = [self.found[name].outcome.cosine for name in names if name in self.found]
        if not cosines:
            return None
        broken = np.stack([self.aim.broken(cosine) for cosine in cosines]).any(0)
        rates: NDArray[np.float64] = broken.mean(1)
        return rates


@dataclass(frozen=True, kw_only=True)
class Again:
    """m pairs that held, attacked to the end: `starts` (S, m) cosines from S starts, `longer` (m,) with twice the steps
    from the first.
    """

    radius: float
    starts: NDArray[np.float32]
    longer: NDArray[np.float32]


def cost(session: Session) -> float:
    """The most that a pair costs, in forward passes, besides `again_cost`."""
    return GRADIENT * FAR_STEPS if session.victim.differentiable else 0.0


def again_cost(session: Session) -> float:
    """What attacking some pairs again costs at most, for one goal."""
    preset = session.request.preset
    passes = GRADIENT * preset.apgd_steps * (preset.checked_starts + 2) * preset.checked_pairs
    return passes if session.victim.differentiable else 0.0


def broken_far(session: Session, side: Side) -> NDArray[np.bool_]:
    """(n,) the pairs that break in a ball so large that all must."""
    norm = session.request.norm
    attack = APGD(ball=ball(norm, FAR[norm]), steps=FAR_STEPS)
    aim = Aim(goal=side.aim.goal, threshold=side.aim.threshold)

    def make(rows: NDArray[np.int64], generator: torch.Generator) -> Arrays:
        batch = session.batch(side, rows)
        crafted = attack(aim.score(session.victim.crafts, batch.references), batch.images, generator=generator)
        cosine = cosines(session.networks.embedder, crafted, batch.references)
        return {"broken": (aim.broken(cosine) | aim.broken(batch.clean)).cpu().numpy()}

    parts = session.by_batches("huge radius", side, GRADIENT * FAR_STEPS, make)
    return np.concatenate([part["broken"] for part in parts])


def attacked_again(session: Session, balls: Sequence[Ball], side: Side, apgd: Found) -> Again | None:
    """Attacks pairs that held against `apgd` again, with more steps and from other starts; None where too few held."""
    preset, what = session.request.preset, f"again, {side.aim.goal}"
    session.meter.advance(what)
    number, rows = holding(side.aim, apgd, preset.checked_pairs // 2, preset.checked_pairs)
    kept: Arrays = {}
    if len(rows):
        kept = session.chunks.get(
            f"again-{side.aim.goal}", lambda: _again_arrays(session, side.aim, session.batch(side, rows), balls[number])
        )
    session.meter.advance(what, again_cost(session))
    return Again(radius=float(kept["radius"][0]), starts=kept["starts"], longer=kept["longer"]) if kept else None


def _again_arrays(session: Session, aim: Aim, batch: Batch, ball: Ball) -> Arrays:
    """Those of `Again`: APGD without an end, from several starts and with twice the steps from the first."""
    victim, preset = session.victim, session.request.preset
    sign = torch.full_like(batch.clean, float(aim.sign))
    score = CosineScore(embed=victim.crafts, anchors=batch.references, signs=sign)

    def reached(steps: int, start: int) -> NDArray[np.float32]:
        generator = torch.Generator().manual_seed((session.request.seed + start) % SEEDS)
        with crafting(victim.embedder, victim.crafts):
            crafted = APGD(ball=ball, steps=steps)(score, batch.images, generator=generator)
            with torch.no_grad():
                values: NDArray[np.float32] = (sign * score(crafted)).cpu().numpy()
        return values

    return {
        "starts": np.stack([reached(preset.apgd_steps, start) for start in range(preset.checked_starts)]),
        "longer": reached(2 * preset.apgd_steps, 0),
        "radius": np.array([ball.radius], dtype=np.float32),
    }


def holding(aim: Aim, found: Found, least: int, most: int) -> tuple[int, NDArray[np.int64]]:
    """The largest radius at which at least `least` pairs hold, and `most` of those; no pairs where there is none."""
    held = ~aim.broken(found.outcome.cosine)
    for number in range(len(held) - 1, -1, -1):
        rows = np.flatnonzero(held[number])
        if len(rows) >= least:
            return number, rows[:most]
    return 0, np.empty(0, dtype=np.int64)


def shown(radius: float) -> str:
    """`2/255` for a radius below 1, which is one of linf; the number for a longer one."""
    return f"{255 * radius:.3g}/255" if radius < 1 else f"{radius:.3g}"


def masking_checks(tried: Sequence[Tried], *, impostor_mean: float, norm: str, differentiable: bool) -> list[Check]:
    """Every check, also those that could not be judged."""
    collapsed = Check(
        name="different people look different",
        passed=impostor_mean <= COLLAPSED,
        finding=f"mean cosine of different people {impostor_mean:.2f}"
        + ("" if impostor_mean <= COLLAPSED else ": the embedding has collapsed, and seeming robust means nothing"),
    )
    if not differentiable:
        why = "the model gives no gradients; only score and decision attacks were run"
        return [collapsed, Check(name="gradients", passed=None, finding=why)]
    return [
        _single_step(tried),
        _rises(tried),
        _far(tried, norm),
        _beats(tried, "Square", "white-box beats black-box (Square)"),
        _beats(tried, "transfer", "white-box beats transfer"),
        _longer(tried),
        _starts(tried),
        collapsed,
    ]


def _single_step(tried: Sequence[Tried]) -> Check:
    return _compared(
        tried, "iterative beats single step", ("APGD",), ("FGSM",), "APGD", "FGSM", "the steps lose their way"
    )


def _beats(tried: Sequence[Tried], weaker: str, name: str) -> Check:
    why = "gradients lead astray: the model masks them, and the white-box figures are too low"
    return _compared(tried, name, ("APGD", "FMN"), (weaker,), "white-box", weaker, why)


def _compared(
    tried: Sequence[Tried],
    name: str,
    strong: tuple[str, ...],
    weak: tuple[str, ...],
    strong_name: str,
    weak_name: str,
    meaning: str,
) -> Check:
    worst: tuple[float, str] | None = None
    for one in tried:
        more, less = one.rates(*strong), one.rates(*weak)
        if more is None or less is None:
            continue
        at = int((less - more).argmax())
        gap = float(less[at] - more[at])
        told = f"{one.aim.goal} at {shown(one.radii[at])}: {strong_name} {more[at]:.0%}, {weak_name} {less[at]:.0%}"
        if worst is None or gap > worst[0]:
            worst = gap, told
    if worst is None:
        return Check(name=name, passed=None, finding=f"{weak_name} was not run")
    passed = worst[0] <= SLACK
    return Check(name=name, passed=passed, finding=worst[1] + ("" if passed else f"; {meaning}"))


def _rises(tried: Sequence[Tried]) -> Check:
    name = "a larger radius is never worse"
    told, passed, judged = [], True, False
    for one in tried:
        own = one.aim.sign * one.found["APGD"].outcome.own
        for number in range(1, len(own)):
            both = np.isfinite(own[number]) & np.isfinite(own[number - 1])
            if not both.any():
                continue
            judged = True
            change = float((own[number] - own[number - 1])[both].mean())
            passed &= change >= -RETREAT
            told.append(
                f"{one.aim.goal}: {change:+.3f} in cosine from {shown(one.radii[number - 1])} to "
                f"{shown(one.radii[number])}"
            )
    if not judged:
        return Check(name=name, passed=None, finding="every pair broke at the smallest radius, or there is only one")
    return Check(name=name, passed=passed, finding="; ".join(told))


def _far(tried: Sequence[Tried], norm: str) -> Check:
    name = "a huge radius breaks every pair"
    shares = [(one.aim.goal, float(one.far.mean())) for one in tried if one.far is not None]
    told = "; ".join(f"{goal} {share:.0%} at {norm} {shown(FAR[norm])}" for goal, share in shares)
    passed = all(share == 1 for _, share in shares)
    return Check(
        name=name,
        passed=passed,
        finding=told + ("" if passed else "; what fails even there is the attack, not the eye"),
    )


def _longer(tried: Sequence[Tried]) -> Check:
    name = "twice the steps add little"
    told, passed = [], True
    for one in tried:
        if one.again is None:
            continue
        first, longer = one.again.starts[0], one.again.longer
        gain = float((one.aim.sign * (longer - first)).mean())
        more = int((one.aim.broken(longer) & ~one.aim.broken(first)).sum())
        passed &= gain <= SLACK and more <= max(1.0, MORE_PAIRS * len(first))
        told.append(
            f"{one.aim.goal} at {shown(one.again.radius)}: {gain:+.3f} in cosine, {more} of {len(first)} pairs more"
        )
    return _again(name, told, passed, "the steps were too few: believe the next preset")


def _starts(tried: Sequence[Tried]) -> Check:
    name = "random starts matter little"
    told, passed = [], True
    for one in tried:
        if one.again is None or len(one.again.starts) < 2:
            continue
        spread = float(one.again.starts.std(0, ddof=1).mean())
        passed &= spread <= SLACK
        told.append(f"{one.aim.goal}: standard deviation {spread:.3f} in cosine over {len(one.again.starts)} starts")
    return _again(name, told, passed, "the surface is rough: more restarts would find more")


def _again(name: str, told: list[str], passed: bool, meaning: str) -> Check:
    if not told:
        return Check(name=name, passed=None, finding="too few pairs held at any radius to be attacked again")
    return Check(name=name, passed=passed, finding="; ".join(told) + ("" if passed else f"; {meaning}"))
