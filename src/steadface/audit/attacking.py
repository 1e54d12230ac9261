"""Runs a battery on the pairs of one goal, batch by batch, each batch kept once it is done."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from steadface.attacks import APGD, ball
from steadface.audit.battery import GRADIENT, Battery, Component
from steadface.audit.bench import Bench, Side
from steadface.audit.checks import FAR, Again, attack_again, holding, loss_surface
from steadface.audit.chunks import Arrays
from steadface.audit.figures import Attacked
from steadface.audit.running import Found
from steadface.evaluation.series import Aim, Outcome, cosines, joined

FAR_STEPS = 20


def price(bench: Bench, battery: Battery) -> float:
    """The most that a pair costs, in forward passes, besides `again_cost`."""
    far = GRADIENT * FAR_STEPS if bench.victim.differentiable else 0
    return far + sum(component.cost for component in battery.components)


def attack_side(bench: Bench, battery: Battery, side: Side) -> Attacked:
    """Every component on every pair of a side."""
    return Attacked(
        aim=side.aim,
        balls=battery.balls,
        clean=side.clean,
        found={one.name: _component(bench, one, side) for one in battery.components},
        worst=tuple(one.name for one in battery.components if one.worst),
        radius=battery.largest.radius,
    )


def _component(bench: Bench, one: Component, side: Side) -> Found:
    def make(rows: NDArray[np.int64], generator: torch.Generator) -> Arrays:
        batch = bench.batch(side, rows, surrogates=one.name == "transfer")
        return arrays_of(one.run(side.aim, batch, generator))

    return _all([_found(arrays) for arrays in bench.by_batches(one.name, side, one.cost, make)])


def broken_far(bench: Bench, side: Side) -> NDArray[np.bool_]:
    """(n,) the pairs that break in a ball so large that all must."""
    norm = bench.request.norm
    attack = APGD(ball=ball(norm, FAR[norm]), steps=FAR_STEPS)
    aim = Aim(goal=side.aim.goal, threshold=side.aim.threshold)

    def make(rows: NDArray[np.int64], generator: torch.Generator) -> Arrays:
        batch = bench.batch(side, rows)
        crafted = attack(aim.score(bench.victim.crafts, batch.references), batch.images, generator=generator)
        cosine = cosines(bench.networks.embedder, crafted, batch.references)
        return {"broken": (aim.broken(cosine) | aim.broken(batch.clean)).cpu().numpy()}

    parts = bench.by_batches("huge radius", side, GRADIENT * FAR_STEPS, make)
    return np.concatenate([part["broken"] for part in parts])


def again_cost(bench: Bench) -> float:
    """What attacking some pairs again costs at most, for one goal."""
    preset = bench.request.preset
    passes = GRADIENT * preset.apgd_steps * (preset.checked_starts + 2) * preset.checked_pairs
    return passes if bench.victim.differentiable else 0.0


def attacked_again(bench: Bench, battery: Battery, side: Side, attacked: Attacked) -> Again | None:
    """Attacks pairs that held again, with more steps and from other starts; None where too few held."""
    preset, what = bench.request.preset, f"again, {side.aim.goal}"
    bench.meter.advance(what)
    number, rows = holding(side.aim, attacked.found["APGD"], preset.checked_pairs // 2, preset.checked_pairs)
    kept: Arrays = {}
    if len(rows):
        kept = bench.chunks.get(
            f"again-{side.aim.goal}",
            lambda: attack_again(
                bench.victim,
                side.aim,
                bench.batch(side, rows),
                battery.balls[number],
                steps=preset.apgd_steps,
                starts=preset.checked_starts,
                seed=bench.request.seed,
            ),
        )
    bench.meter.advance(what, again_cost(bench))
    return Again(radius=float(kept["radius"][0]), starts=kept["starts"], longer=kept["longer"]) if kept else None


def surfaces(bench: Bench, battery: Battery, side: Side) -> list[dict[str, Any]]:
    """The cosine around the first two pairs, for a picture."""
    one = battery.balls[0]
    batch = bench.batch(side, np.arange(min(2, len(side.chosen))))
    drawn = loss_surface(bench.victim, batch, one, bench.generator(f"surface-{side.aim.goal}"))
    return [{"goal": side.aim.goal, "norm": one.norm, "eps": one.radius, **surface} for surface in drawn]


def arrays_of(found: Found) -> dict[str, NDArray[Any]]:
    """What is kept of an attack on a batch."""
    outcome = found.outcome
    arrays: dict[str, NDArray[Any]] = {
        "cosine": outcome.cosine,
        "cosine_8bit": outcome.cosine_8bit,
        "own": outcome.own,
        "images": outcome.images,
    }
    optional = {"distance": found.distance, "censored": found.censored, "queries": found.queries}
    return arrays | {name: value for name, value in optional.items() if value is not None}


def _found(arrays: Arrays) -> Found:
    outcome = Outcome(**{name: arrays[name] for name in ("cosine", "cosine_8bit", "own", "images")})
    return Found(
        outcome=outcome,
        distance=arrays.get("distance"),
        censored=arrays.get("censored"),
        queries=arrays.get("queries"),
    )


def _all(parts: Sequence[Found]) -> Found:
    def column(get: Callable[[Found], NDArray[Any] | None]) -> NDArray[Any] | None:
        values = [value for part in parts if (value := get(part)) is not None]
        return np.concatenate(values) if values else None

    return Found(
        outcome=joined([part.outcome for part in parts]),
        distance=column(lambda part: part.distance),
        censored=column(lambda part: part.censored),
        queries=column(lambda part: part.queries),
    )
