"""How strong our attacks are beside those of foolbox, ART and torchattacks: the same pairs, budgets, steps and starts.

    make bench
    .venv-bench/bin/python benchmarks/attack_strength.py --weights FILE --images DIR --pairs pairs.txt --out OUT

All raise the same raw cosine (see ``peers/objective.py``) on the same network, and every image they return is judged
anew: the cosine by the network as loaded, the pixel range, and the distance. PGD and MI-FGSM begin at the source and
make steps of one size; with ``--rounds`` one search bisects the radius of them all for the smallest that succeeds. C&W
has the same steps, rate and first constant. Square and HopSkipJump have the same queries, HopSkipJump the same starts.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attacked import ROUNDING, Attacked, Networks, attacked_pairs, lengths_of_successes, load_networks
from peers import with_art, with_foolbox, with_torchattacks
from peers.objective import Counting, Peer, Run
from steadface.attacks import (
    MIFGSM,
    PGD,
    Attack,
    Ball,
    CarliniWagnerL2,
    HopSkipJump,
    Norm,
    Score,
    Square,
    ball,
    minimum_distance,
)
from steadface.attacks.gradients import crafting
from steadface.evaluation.intervals import clopper_pearson
from steadface.report.text import with_interval
from steadface.workflows.report import versions

WIDEST: dict[Norm, float] = {"linf": 16 / 255, "l2": 100.0}
"""Nothing further away is looked for."""
PGD_WAY, MIFGSM_WAY = 2.5, 1.0
"""So many radii all steps together cover."""
CONSTANT = 10.0
"""The first of C&W."""
PEERS = ("foolbox", "adversarial-robustness-toolbox", "torchattacks")

Row = dict[str, Any]

Make = Callable[[Attacked], Attack]
"""The attack on a batch: starting points belong to its pairs."""


@dataclass(frozen=True, kw_only=True)
class Contest:
    """One attack as each library has it. Where it ``minimises`` it looks for the nearest success at once, and the
    budgets only count what it found; else it is run within each, and ``bisected`` for the distance.
    """

    name: str
    norm: Norm
    entrants: dict[str, Make]
    minimises: bool = False
    bisected: bool = False


@dataclass(frozen=True, kw_only=True)
class FromStarts:
    """Our HopSkipJump from given starting points, as an `Attack`."""

    attack: HopSkipJump
    starts: Tensor

    @property
    def ball(self) -> Ball:
        return self.attack.ball

    def within(self, ball: Ball) -> "FromStarts":
        return replace(self, attack=self.attack.within(ball))

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        return self.attack(score, images, generator=generator, starts=self.starts)


def always(attack: Attack) -> Make:
    return lambda _: attack


def peer(run: Run, queries: int | None = None) -> Make:
    return always(Peer(run=run, ball=ball("linf", 0.0), queries=queries))


def from_starts(run: Callable[[Tensor], Run], queries: int) -> Make:
    return lambda batch: Peer(run=run(batch.starts), ball=ball("l2", 0.0), queries=queries)


def contests(options: argparse.Namespace) -> list[Contest]:
    linf, steps, queries = ball("linf", 1.0), options.steps, options.queries
    adam = {"searches": options.searches, "steps": options.cw_steps, "rate": options.rate, "constant": CONSTANT}
    every = [
        Contest(
            name=f"PGD, {steps} steps",
            norm="linf",
            bisected=True,
            entrants={
                "steadface": always(PGD(ball=linf, steps=steps, random_start=False)),
                "foolbox": peer(with_foolbox.pgd(steps=steps, step=PGD_WAY / steps)),
                "ART": peer(with_art.pgd(steps=steps, step=PGD_WAY / steps)),
                "torchattacks": peer(with_torchattacks.pgd(steps=steps, step=PGD_WAY / steps)),
            },
        ),
        Contest(
            name=f"MI-FGSM, {steps} steps",
            norm="linf",
            bisected=True,
            entrants={
                "steadface": always(MIFGSM(ball=linf, steps=steps)),
                "foolbox": peer(with_foolbox.mifgsm(steps=steps, step=MIFGSM_WAY / steps)),
                "ART": peer(with_art.mifgsm(steps=steps, step=MIFGSM_WAY / steps)),
                "torchattacks": peer(with_torchattacks.mifgsm(steps=steps, step=MIFGSM_WAY / steps)),
            },
        ),
        Contest(
            name=f"C&W, {options.searches} x {options.cw_steps} steps",
            norm="l2",
            minimises=True,
            entrants={
                "steadface": always(CarliniWagnerL2(ball=ball("l2", 1.0), **adam)),
                "foolbox": peer(with_foolbox.carlini_wagner(**adam)),
                "ART": peer(with_art.carlini_wagner(**adam)),
                "torchattacks": peer(with_torchattacks.carlini_wagner(**adam)),
            },
        ),
        Contest(
            name=f"Square, {queries} queries",
            norm="linf",
            entrants={
                "steadface": always(Square(ball=linf, queries=queries)),
                "ART": peer(with_art.square(queries=queries), queries),
                "torchattacks": peer(with_torchattacks.square(queries=queries), queries),
            },
        ),
        Contest(
            name=f"HopSkipJump, {queries} queries",
            norm="l2",
            minimises=True,
            entrants={
                "steadface": lambda batch: FromStarts(
                    attack=HopSkipJump(ball=ball("l2", 1.0), queries=queries), starts=batch.starts
                ),
                "foolbox": from_starts(with_foolbox.hopskipjump, queries),
                "ART": from_starts(with_art.hopskipjump, queries),
            },
        ),
    ]
    return [contest for contest in every if any(contest.name.lower().startswith(name) for name in options.attacks)]


def measure(contest: Contest, make: Make, attacked: Attacked, networks: Networks, options: argparse.Namespace) -> Row:
    """What one library's attack does to the pairs: successes in each budget, distances, and what it cost."""
    network, generator, seconds = Counting(networks.fast), torch.Generator().manual_seed(options.seed), 0.0
    budgets: list[float] = options.eps if contest.norm == "linf" else options.l2
    radii = [WIDEST[contest.norm]] if contest.minimises else budgets
    reach: dict[float, list[float]] = {radius: [] for radius in radii}
    for batch in attacked.batches(options.batch):
        for radius in radii:
            made = make(batch).within(ball(contest.norm, radius))
            began = time.process_time()
            with crafting(network):
                images = made(batch.score(network), batch.images, generator=generator)
            seconds += time.process_time() - began
            reach[radius] += judged(networks, batch, images, contest.norm)
    costs = {"gradients": network.gradients, "forwards": network.forwards, "seconds": seconds}
    distances = reach[radii[0]] if contest.minimises else bisected(contest, make, attacked, networks, options)
    return {
        "pairs": len(attacked),
        "successes": {
            f"{budget:.6f}": sum(length <= budget + ROUNDING for length in reach.get(budget, distances))
            for budget in budgets
        },
        "outside": sum(ROUNDING + radius < length < inf for radius in radii for length in reach[radius]),
        "median_distance": statistics.median(distances) if distances else None,
        **{f"{name}_per_image": cost / len(attacked) for name, cost in costs.items()},
    }


def bisected(
    contest: Contest, make: Make, attacked: Attacked, networks: Networks, options: argparse.Namespace
) -> list[float]:
    """The smallest distances at which the attack succeeds, by one search for every library; none where not asked."""
    distances: list[float] = []
    generator = torch.Generator().manual_seed(options.seed)
    for batch in attacked.batches(options.batch) if contest.bisected and options.rounds else ():
        made, score = make(batch).within(ball(contest.norm, WIDEST[contest.norm])), batch.score(networks.fast)
        with crafting(networks.fast):
            found = minimum_distance(made, score, batch.images, generator=generator, rounds=options.rounds)
        distances += judged(networks, batch, found.images, contest.norm)
    return distances


def judged(networks: Networks, batch: Attacked, images: Tensor, norm: Norm) -> list[float]:
    lengths: list[float] = lengths_of_successes(networks.plain, batch, images.detach(), norm).tolist()
    return lengths


def line(goal: str, contest: Contest, library: str, row: Row) -> str:
    """A row of the table: per cent of pairs with the interval, grey levels under linf."""
    cells = []
    for successes in row["successes"].values():
        low, high = clopper_pearson(successes, row["pairs"])
        share = successes / row["pairs"]
        cells.append(with_interval(100 * share, 100 * low, 100 * high, unit=" %"))
    distance, unit = row["median_distance"], 255 if contest.norm == "linf" else 1
    median = "" if distance is None else f"{unit * distance:.2f}" + ("/255" if unit == 255 else "")
    costs = [f"{row[key]:.0f}" for key in ("pairs", "gradients_per_image", "forwards_per_image")]
    cells += [median, *costs, f"{row['seconds_per_image']:.2f}"]
    return f"| {goal} | {contest.name} | {library} | {' | '.join(cells)} |"


def heading(norm: Norm, options: argparse.Namespace, pairs: int) -> str:
    budgets = [f"{255 * eps:g}/255" for eps in options.eps] if norm == "linf" else [f"{eps:g}" for eps in options.l2]
    columns = ["goal", "attack", "library", *(f"success at {norm} {budget}" for budget in budgets)]
    columns += ["median distance", "pairs", "gradients", "forward passes", "CPU s"]
    said = f"Of {pairs} pairs those that the clean verifier gets right; costs are those of one image."
    return f"\n{said}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder of aligned faces for each person")
    parser.add_argument("--pairs", type=Path, required=True, help="LFW's pairs.txt or alike")
    parser.add_argument("--out", type=Path, required=True, help="a folder for table.md and results.json")
    parser.add_argument("--max-pairs", type=int, default=20, help="genuine pairs, and as many impostor ones")
    parser.add_argument("--fmr", type=float, default=1e-2, help="of the threshold, on other people")
    parser.add_argument("--eps", type=float, nargs="+", default=[1, 2, 4], metavar="GREY LEVELS")
    parser.add_argument("--l2", type=float, nargs="+", default=[0.5, 1.0])
    parser.add_argument("--attacks", nargs="+", default=["pgd", "mi-fgsm", "c&w", "square", "hopskipjump"])
    parser.add_argument("--libraries", nargs="+", default=["steadface", "foolbox", "ART", "torchattacks"])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=0, help="bisections of the radius of PGD and MI-FGSM")
    parser.add_argument("--searches", type=int, default=4, help="constants that C&W tries")
    parser.add_argument("--cw-steps", type=int, default=50)
    parser.add_argument("--rate", type=float, default=0.01, help="of C&W's Adam")
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.eps = sorted(eps / 255 for eps in options.eps)
    options.l2 = sorted(options.l2)
    return options


def main() -> None:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    networks = load_networks(options.weights)
    goals = attacked_pairs(
        networks,
        images=options.images,
        pairs_file=options.pairs,
        max_pairs=options.max_pairs,
        seed=options.seed,
        fmr=options.fmr,
    )
    results: list[Row] = []
    lines: list[str] = []
    norm: Norm | None = None
    for contest in sorted(contests(options), key=lambda contest: contest.norm, reverse=True):
        if contest.norm != norm:
            norm = contest.norm
            lines.append(heading(norm, options, options.max_pairs))
            print(lines[-1])
        for attacked in goals:
            for library in [name for name in contest.entrants if name in options.libraries]:
                row = measure(contest, contest.entrants[library], attacked, networks, options)
                lines.append(line(attacked.goal, contest, library, row))
                print(lines[-1], flush=True)
                results.append({"goal": attacked.goal, "attack": contest.name, "norm": norm, "library": library, **row})
    content = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "threshold": goals[0].threshold,
        "versions": {**versions(), **{name: version(name) for name in PEERS}},
        "results": results,
    }
    (options.out / "results.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (options.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
