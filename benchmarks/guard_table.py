"""How much of a guard is left against whom: false alarms, and attacks that succeed and go unnoticed.

    python benchmarks/guard_table.py MODEL --images LFW_ALIGNED --pairs pairs.txt --out OUT

    verifier    threshold of FMR 1e-3 on clean pairs of people who are not attacked
    guard       calibrated on clean genuine pairs of people who are not attacked; false alarms counted on others
    unaware     PGD and APGD go as far beyond the threshold as the radius allows, FMN only a little
    knowing     expectation over the guard's views, against verifier and guard at once (`guard_attack.py`)

Every attack is judged as a file of 8 bits, by the plain network, and then by several looks of the guard with fresh
views each. Succeeded: the verifier is wrong. Unnoticed: it is, and the guard does not flag the image; the mean over the
looks. Rates are of all pairs attacked, which the clean verifier gets right and whose clean images the guard may flag.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacked import CALIBRATION_IMAGES, Attacked, attacked_pairs, load_networks
from guard_attack import KnowingAttack, on_grid, reached
from steadface.attacks import APGD, FMN, PGD, Linf, crafting
from steadface.attacks.rounding import as_bytes
from steadface.data.loading import load_images
from steadface.data.pairs import PairSet, read_pairs
from steadface.evaluation.calibration import split_for_attack
from steadface.evaluation.intervals import clopper_pearson
from steadface.recognizers import open_recognizer
from steadface.recognizers.guard import Embed, Faces, Guard, calibrate, disagreement, write_guard
from steadface.report.text import with_interval
from steadface.workflows.report import versions

FMR = 1e-3
STEPS = 10
"""Of the unaware attacks."""

BEYOND = 0.1
"""By how much FMN goes beyond the threshold, so that rounding to 8 bits does not undo it."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Shares of `pairs` attacked: the verifier is `wrong`, and wrong `unnoticed`, with a 95 % interval."""

    attack: str
    goal: str
    eps: float
    pairs: int
    wrong: float
    unnoticed: float
    unnoticed_ci: tuple[float, float]


def embedder(network: nn.Module) -> Embed:
    def embed(faces: Faces) -> NDArray[np.float32]:
        parts = [torch.from_numpy(faces[start : start + 16]) for start in range(0, len(faces), 16)]
        with torch.inference_mode():
            return torch.cat([network(part.permute(0, 3, 1, 2).float() / 255) for part in parts]).numpy()

    return embed


def as_faces(images: Tensor) -> Faces:
    faces: Faces = as_bytes(images).permute(0, 2, 3, 1).contiguous().numpy()
    return faces


def clean_pairs(
    pairs: PairSet, *, max_pairs: int, count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Twice at most `count` genuine pairs: to calibrate on and to count false alarms on, of different people, none of
    them attacked.
    """
    assert pairs.people is not None
    split = split_for_attack(pairs, fmr=FMR, max_pairs=max_pairs, seed=seed, most_images=CALIBRATION_IMAGES)
    chosen = np.concatenate([split.genuine, split.impostor])
    attacked = np.union1d(pairs.people[pairs.first[chosen]], pairs.people[pairs.second[chosen]])
    owner = pairs.people[pairs.first]
    free = np.flatnonzero(pairs.same & ~np.isin(owner, attacked))
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.unique(owner[free]))
    first, second = (rng.permutation(free[np.isin(owner[free], half)]) for half in np.array_split(people, 2))
    return first[:count], second[:count]


def sides(
    embed: Embed, pairs: PairSet, chosen: NDArray[np.int64], size: tuple[int, int]
) -> tuple[Faces, NDArray[np.float32]]:
    """Probes (n, H, W, 3), and the embeddings of what they are compared with."""
    probes, others = (as_faces(load_images(pairs.faces, side[chosen], size)) for side in (pairs.first, pairs.second))
    return probes, embed(others)


def unaware(
    network: nn.Module, radii: list[float], seed: int
) -> Iterator[tuple[str, float, Callable[[Attacked], Tensor]]]:
    """(name, radius, attack) of attacks that do not know of the guard."""

    def furthest(attack: PGD | APGD) -> Callable[[Attacked], Tensor]:
        return lambda attacked: attack(
            replace(attacked.score(network), enough=None),
            attacked.images,
            generator=torch.Generator().manual_seed(seed),
        )

    def nearest(attacked: Attacked) -> Tensor:
        score = attacked.score(network)
        assert score.enough is not None
        attack = FMN(attack=PGD(ball=Linf(radii[-1]), steps=STEPS), steps=STEPS, refinements=4)
        beyond = replace(score, enough=score.enough + BEYOND)
        return attack(beyond, attacked.images, generator=torch.Generator().manual_seed(seed))

    for eps in radii:
        yield "PGD", eps, furthest(PGD(ball=Linf(eps), steps=STEPS))
        yield "APGD", eps, furthest(APGD(ball=Linf(eps), steps=STEPS))
    yield "FMN", radii[-1], nearest


def judged(
    name: str,
    eps: float,
    attacked: Attacked,
    images: Tensor,
    embed: Embed,
    guard: Guard,
    rng: np.random.Generator,
    looks: int,
) -> Row:
    faces, references = as_faces(on_grid(images)), attacked.references.numpy()
    wrong = reached(attacked, torch.from_numpy(embed(faces))).numpy()
    flagged = np.stack([guard.look(embed, faces, references, rng=rng).flagged for _ in range(looks)])
    unnoticed = float((wrong & ~flagged).mean())
    return Row(
        attack=name,
        goal=attacked.goal,
        eps=eps,
        pairs=len(attacked),
        wrong=float(wrong.mean()),
        unnoticed=unnoticed,
        unnoticed_ci=clopper_pearson(round(unnoticed * len(attacked)), len(attacked)),
    )


def say(row: Row) -> None:
    low, high = row.unnoticed_ci
    print(
        f"| {row.attack} | {row.goal} | {255 * row.eps:g}/255 | {row.pairs} | {100 * row.wrong:.0f} | "
        f"{with_interval(100 * row.unnoticed, 100 * low, 100 * high, digits=0)} |",
        flush=True,
    )


def calibrated(embed: Embed, pairs: PairSet, size: tuple[int, int], asked: argparse.Namespace) -> Guard:
    """A guard for the asked rate; prints its false alarms on other people."""
    rng = np.random.default_rng(asked.seed)
    first, second = clean_pairs(pairs, max_pairs=asked.max_pairs, count=asked.clean, seed=asked.seed)
    probes, references = sides(embed, pairs, first, size)
    model = open_recognizer(asked.model).fingerprint
    guard = calibrate(Guard(), embed, probes, references, model=model, rate=asked.rate, rng=rng)
    print(f"guard: {guard}")
    probes, references = sides(embed, pairs, second, size)
    for name, flagged in false_alarms(guard, embed, probes, references, rng).items():
        low, high = clopper_pearson(int(flagged.sum()), len(flagged))
        alarms = with_interval(100 * flagged.mean(), 100 * low, 100 * high, digits=2, unit=f" % of {len(flagged)}")
        print(f"false alarms, {name}: {alarms}", flush=True)
    return guard


def false_alarms(
    guard: Guard, embed: Embed, probes: Faces, references: NDArray[np.float32], rng: np.random.Generator
) -> dict[str, NDArray[np.bool_]]:
    """(n,) which clean probes are flagged, compared with their own person, with nobody and with somebody else."""
    assert guard.limits is not None
    plain, seen = guard.embedded(embed, probes, rng=rng)
    return {
        "genuine": disagreement(plain, seen, references) >= guard.limits.compared,
        "alone": disagreement(plain, seen, None) >= guard.limits.alone,
        "impostor": disagreement(plain, seen, np.roll(references, 1, axis=0)) >= guard.limits.compared,
    }


def attempts(
    fast: nn.Module, guard: Guard, sets: list[Attacked], asked: argparse.Namespace
) -> Iterator[tuple[str, float, Attacked, Tensor]]:
    """(name, radius, what is attacked, adversarial images) of every attack and goal."""
    radii, rng = sorted(eps / 255 for eps in asked.eps), np.random.default_rng(asked.seed + 1)
    for name, eps, attack in unaware(fast, radii, asked.seed):
        yield from ((name, eps, attacked, attack(attacked)) for attacked in sets)
    for eps in radii:
        knowing = KnowingAttack(guard=guard, radius=eps, steps=asked.steps, views=asked.views)
        for attacked in sets:
            few = attacked.take(torch.arange(min(asked.knowing_pairs, len(attacked))))
            yield "knowing", eps, few, knowing(fast, few, rng)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--out", type=Path, help="folder for guard.json and table.json")
    parser.add_argument("--max-pairs", type=int, default=40, help="genuine, and as many impostor, pairs attacked")
    parser.add_argument("--clean", type=int, default=300, help="clean pairs to calibrate on, and as many to judge")
    parser.add_argument("--rate", type=float, default=1e-2, help="false-alarm rate that the guard is calibrated to")
    parser.add_argument("--eps", type=float, nargs="+", default=[2, 4, 8], help="grey levels")
    parser.add_argument("--knowing-pairs", type=int, default=20, help="pairs of each goal for the attack that knows")
    parser.add_argument("--steps", type=int, default=30, help="of the attack that knows")
    parser.add_argument("--views", type=int, default=2, help="of every image in each of these steps")
    parser.add_argument("--looks", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    asked, started = parsed(), time.perf_counter()
    torch.set_num_threads(1)
    networks, rows = load_networks(asked.model), []
    embed, rng = embedder(networks.plain), np.random.default_rng(asked.seed + 2)
    sets = attacked_pairs(
        networks, images=asked.images, pairs_file=asked.pairs, max_pairs=asked.max_pairs, seed=asked.seed, fmr=FMR
    )
    guard = calibrated(embed, read_pairs(asked.pairs, asked.images), networks.plain.size, asked)
    print("| attack | goal | radius | pairs | verifier wrong % | and unnoticed % |\n|---|---|---|---|---|---|")
    with crafting(networks.plain, networks.fast):
        for name, eps, attacked, images in attempts(networks.fast, guard, sets, asked):
            rows.append(judged(name, eps, attacked, images, embed, guard, rng, asked.looks))
            say(rows[-1])
    minutes = (time.perf_counter() - started) / 60
    print(f"{minutes:.1f} minutes; threshold {sets[0].threshold:.4f}, seed {asked.seed}")
    if asked.out is not None:
        settings = {key: str(value) for key, value in vars(asked).items()}
        told = {"rows": [asdict(row) for row in rows], "settings": settings, "versions": versions()}
        write_guard(asked.out / "guard.json", guard)
        (asked.out / "table.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
