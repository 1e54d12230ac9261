"""The white-box table of RobFR (Yang et al., RobFR: Benchmarking Adversarial Robustness on Face Recognition, 2020) for
given weights: median distances by BIM, dodging and impersonation, linf and l2.

    python benchmarks/robfr_table.py --weights FILE FILE --images DIR --pairs pairs.txt --out OUT

After the authors' published code rather than the paper:

    BIM         x_{k+1} = project(x_k + 1.5 eps / 20 steepest(grad)), 20 steps from the source; the last one counts
    search      eps = 16 grey levels, doubled up to 4 times until BIM succeeds, then 10 bisections
    distance    of the success at the smallest eps, in grey levels: max |delta|, or ||delta||_2 / sqrt(d), d = 3 H W
    median      over pairs that BIM broke, those left out that are wrong unperturbed
    threshold   of the highest accuracy on the same pairs; FMR 1e-2 on other people with ``--fmr 0.01``
    pairs       genuine ones of LFW's list to dodge, impostor ones to impersonate: 3000 each

Where fewer than 3000 pairs are asked for, they are drawn at random. The interval of a median is that of Clopper and
Pearson, 95 %, on the order statistics.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor

from attacked import Attacked, Networks, attacked_pairs, lengths_of_successes, load_networks
from steadface.attacks import Norm, Score, ball, crafting, score_and_gradient
from steadface.attacks.distances import shortened
from steadface.report.text import with_interval
from steadface.workflows.report import versions

STEPS = 20
WAY = 1.5
"""So many radii all steps together cover."""
FIRST, TRIALS = 16.0, 5
"""The first radius in grey levels, and how many are tried, each twice the one before."""
GREY = 255.0
NORMS: tuple[Norm, ...] = ("linf", "l2")
HEADING = """| weights | image | threshold | norm | goal | median distance, grey levels | broken |
|---|---|---|---|---|---|---|"""

Row = dict[str, Any]


def bim(score: Score, images: Tensor, radii: Tensor, norm: Norm) -> Tensor:
    """The last of `STEPS` iterates, each sample within its own radius ``(n,)``."""
    x_adv, unit = images, ball(norm, 1.0)
    for _ in range(STEPS):
        way = unit.steepest(score_and_gradient(score, x_adv)[1])
        moved = x_adv + (WAY / STEPS * radii).view(-1, 1, 1, 1) * way
        x_adv = (images + shortened(moved - images, radii, norm)).clamp(0, 1)
    return x_adv


def smallest(networks: Networks, batch: Attacked, norm: Norm, bisections: int) -> list[float]:
    """Distances in grey levels of the successes at the smallest radii; infinity where there is none."""
    # eps grey levels of l2 are that much root mean square.
    unit = (math.sqrt(batch.images[0].numel()) if norm == "l2" else 1.0) / GREY
    low, high = torch.zeros(len(batch)), torch.full((len(batch),), FIRST * unit)
    distance = torch.full_like(high, torch.inf)

    def succeeds(radii: Tensor) -> Tensor:
        with crafting(networks.fast):
            images = bim(batch.score(networks.fast), batch.images, radii, norm)
        length = lengths_of_successes(networks.plain, batch, images, norm)
        reached = length.isfinite()
        distance[reached] = length[reached]
        return reached

    for _ in range(TRIALS):
        reached = succeeds(high)
        low, high = torch.where(reached, low, high), torch.where(reached, high, 2 * high)
        if reached.all():
            break
    for _ in range(bisections):
        middle = (low + high) / 2
        reached = succeeds(middle)
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    found: list[float] = (distance / unit).tolist()
    return found


def summary(distances: list[float]) -> Row:
    """The median of what was broken, its interval, and how many of the pairs that is."""
    found = sorted(distance for distance in distances if math.isfinite(distance))
    rank = int(binom.ppf(0.025, len(found), 0.5))
    return {
        "pairs": len(distances),
        "broken": len(found),
        "median": statistics.median(found) if found else None,
        "interval": [found[max(rank - 1, 0)], found[min(len(found) - rank, len(found) - 1)]] if found else None,
    }


def rows_of(weights: Path, options: argparse.Namespace) -> list[Row]:
    """Both goals under both norms against one network."""
    networks = load_networks(weights)
    goals = attacked_pairs(
        networks,
        images=options.images,
        pairs_file=options.pairs,
        max_pairs=options.max_pairs,
        seed=options.seed,
        fmr=options.fmr,
    )
    rows: list[Row] = []
    for norm in NORMS:
        for attacked in goals:
            began, distances = time.process_time(), []
            for batch in attacked.batches(options.batch):
                distances += smallest(networks, batch, norm, options.bisections)
            rows.append(
                {
                    "weights": weights.name,
                    "image_size": networks.plain.size,
                    "threshold": attacked.threshold,
                    "norm": norm,
                    "goal": attacked.goal,
                    **summary(distances),
                    "seconds": time.process_time() - began,
                    "distances": distances,
                }
            )
            print(line(rows[-1]), flush=True)
    return rows


def line(row: Row) -> str:
    low, high = row["interval"] or (math.nan, math.nan)
    median = "" if row["median"] is None else with_interval(row["median"], low, high, digits=2)
    size = " x ".join(map(str, row["image_size"]))
    cells = [row["weights"], size, f"{row['threshold']:.3f}", row["norm"], row["goal"], median]
    return f"| {' | '.join(cells)} | {row['broken']} of {row['pairs']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, nargs="+", required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder of aligned faces for each person")
    parser.add_argument("--pairs", type=Path, required=True, help="LFW's pairs.txt or alike")
    parser.add_argument("--out", type=Path, required=True, help="a folder for robfr.md and robfr.json")
    parser.add_argument("--max-pairs", type=int, default=20, help="genuine pairs, and as many impostor ones")
    parser.add_argument("--fmr", type=float, help="take the threshold from here instead")
    parser.add_argument("--bisections", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(HEADING, flush=True)
    rows = [row for weights in options.weights for row in rows_of(weights, options)]
    content = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions(), "results": rows}
    (options.out / "robfr.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (options.out / "robfr.md").write_text("\n".join([HEADING, *map(line, rows)]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
