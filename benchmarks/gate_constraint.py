"""The gate as a constraint: runs that are asked for a clean level, beside always-open runs whose weights are searched.

    python benchmarks/gate_constraint.py scratch --faces DIR --out OUT --minutes 3 --seeds 3
    python benchmarks/gate_constraint.py harden --weights FILE --faces DIR --out OUT --minutes 10 --seeds 3

Levels (1 - EER on the people that a run holds out) are asked for in points below what clean training of the same length
comes to with the same seed, ``--below 1 3 6``. For each level every form of the gate (``--forms``) has one run, whose
bound follows from the level (`training/constraint.py`), without any search. Beside them stands the same recipe with
its gate always open, and alpha and lambda multiplied by a weight that is searched for each level as somebody would who
has no gate: 1, then times or by 4 until two weights enclose the level, then between them where a line through both,
over the logarithm of the weight, meets it; until a run is within ``--tolerance`` or ``--search`` runs are made.

All runs have the same minutes (or ``--steps``), and are judged on the people held out: the clean level, and the worse
goal's error under PGD, its mean over the radii. Difference to always open "at equal clean": minus the attacked error of
the always-open runs of that seed, clean training among them, interpolated between neighbours at the clean level that
the gated run has reached, with the 95 % interval over people (the jackknife leaves a group of them out on both sides,
and interpolates anew); where there are several seeds the t-interval of the seeds' differences.

Runs in OUT are not repeated and those stopped go on. ``--only NAME ...`` makes these alone (`clean`, `open` and the
forms); the table is of what is there.
"""

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure as Picture
from scipy import stats

import steadface as sf
from compare_training import RECIPES, SETTINGS, Overrides
from steadface.attacks import PGD, ball
from steadface.backbones import Backbone, load_backbone
from steadface.backbones.frozen import frozen
from steadface.evaluation.intervals import Difference, Figure, jackknife_interval, paired_difference
from steadface.evaluation.labelled import validation_metrics
from steadface.evaluation.robustness import AttackPlan
from steadface.report.style import STYLE, line, svg
from steadface.report.text import with_interval
from steadface.training.constraint import PAIRS
from steadface.training.recipe import Recipe
from steadface.workflows.report import versions
from steadface.workflows.train import train_or_resume

RECIPE_OF = {"scratch": "gated", "harden": "harden"}
ANNEAL = {"times": 8, "over": 0.8}
FORMS: dict[str, Overrides] = {
    "threshold": {"method.gate.kind": "loss"},
    "annealed": {"method.gate.kind": "loss", "method.gate.anneal": ANNEAL},
    "annealed slack": {
        "method.gate.kind": "slack",
        "method.gate.drives": "weight",
        "method.gate.most": 4,
        "method.gate.anneal": ANNEAL,
    },
    "slack radius": {"method.gate.kind": "slack", "method.gate.drives": "radius"},
    "slack weight": {"method.gate.kind": "slack", "method.gate.drives": "weight", "method.gate.most": 4},
}
"""One verdict on the batch loss each, and what becomes of it."""
FURTHER = 4.0
HELD_OUT_STEPS, HELD_OUT_RESTARTS = 20, 1


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What the people held out say of a run."""

    clean: Figure
    attacked: Figure
    steps: int
    seconds: float
    duty: float
    weight: float = 1.0

    @property
    def level(self) -> float:
        return 1 - self.clean.value


def recipe_of(options: argparse.Namespace, seed: int, name: str, overrides: Overrides) -> Recipe:
    setting = SETTINGS[options.setting]
    length = {"run.epochs": None, "run.minutes": options.minutes, "run.steps": options.steps}
    values: Overrides = {
        **setting.overrides,
        "data.images": None if options.faces is None else str(options.faces),
        "data.validation": options.validation,
        "evaluation.mirror": False,
        "run.seed": seed,
        "run.threads": options.threads,
        "run.tensorboard": False,
        "run.validate_every": 0,
        "run.out": str(options.out / f"{name}-{seed}".replace(" ", "_")),
        "name": name,
        **length,
        **overrides,
    }
    if options.faces is None:
        values["data.synthetic"] = {"people": options.people, "images_per_person": 12}
    if options.weights is not None:
        values["model.start"] = str(options.weights)
    written = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    return sf.load_recipe(RECIPES / f"{RECIPE_OF[options.setting]}.yaml", [*written, *options.set])


def run(recipe: Recipe, pairs: int) -> Ended:
    """A run to its end, and what the people held out say of it; what is there is read."""
    kept = recipe.run.out / "constraint.json"
    if not kept.exists():
        trained = train_or_resume(recipe)
        if not trained.finished or trained.faces.validation is None:
            raise KeyboardInterrupt
        evaluation = recipe.evaluation
        balls = [ball(evaluation.norm, eps) for eps in evaluation.eps]
        attack = PGD(ball=balls[0], steps=HELD_OUT_STEPS, restarts=HELD_OUT_RESTARTS)
        seen = validation_metrics(
            cast(Backbone, frozen(load_backbone(trained.folder))),
            trained.faces.validation,
            fmr=evaluation.fmr,
            max_pairs=PAIRS,
            mirror=evaluation.mirror,
            attack=AttackPlan(attacks={"pgd": attack}, balls=balls, examples=0),
            attacked_pairs=pairs,
            compared=True,
            seed=recipe.run.seed,
        )
        assert seen.clean is not None
        assert seen.attacked is not None
        figures = {"clean": vars(seen.clean), "attacked": vars(seen.attacked)}
        facts = {"steps": trained.steps, "seconds": trained.seconds, "duty": trained.duty_cycle}
        kept.write_text(json.dumps({**figures, **facts, "attacks": [one.to_json() for one in seen.attacks]}) + "\n")
        print(f"{recipe.run.out.name}: clean {100 * (1 - seen.clean.value):.2f} %, attacked {seen.attacked.value:.1%}")
    found = json.loads(kept.read_text(encoding="utf-8"))
    clean, attacked = (Figure(value=found[key]["value"], without=tuple(found[key]["without"])) for key in FIGURES)
    return Ended(clean=clean, attacked=attacked, **{key: found[key] for key in ("steps", "seconds", "duty")})


FIGURES = ("clean", "attacked")
Weighted = Callable[[float], Ended | None]


def search(level: float, at: Weighted, *, tolerance: float, most: int) -> Iterator[Ended]:
    """Always-open runs by falling ignorance of the weight that leaves `level`; ends where one is near enough."""
    seen: list[Ended] = []
    weight = 1.0
    while len(seen) < most and (ended := at(weight)) is not None:
        seen.append(ended)
        yield ended
        if abs(ended.level - level) <= tolerance:
            return
        cleaner = [one for one in seen if one.level > level]
        lower = [one for one in seen if one.level <= level]
        if not cleaner or not lower:
            weight = weight / FURTHER if not cleaner else weight * FURTHER
            continue
        a, b = max(cleaner, key=lambda one: one.weight), min(lower, key=lambda one: one.weight)
        share = (a.level - level) / (a.level - b.level)
        between = math.log(a.weight) + min(0.8, max(0.2, share)) * (math.log(b.weight) - math.log(a.weight))
        weight = float(f"{math.exp(between):.2g}")
        if any(one.weight == weight for one in seen):
            return


@dataclass(frozen=True, kw_only=True)
class Seed:
    """All runs of a seed: clean training, gated ones by (form, points below), always open by weight."""

    clean: Ended
    gated: dict[tuple[str, float], Ended]
    opened: dict[float, Ended]
    needed: dict[float, tuple[int, float]]
    """By points below: always-open runs made for that level, and how near the nearest of them comes."""


def runs_of(options: argparse.Namespace, seed: int) -> Seed | None:
    """Makes what is missing of a seed; None where clean training, which levels are counted from, is."""

    def made(name: str, kind: str, overrides: Overrides) -> Ended | None:
        recipe = recipe_of(options, seed, name, overrides)
        wanted = options.only is None or kind in options.only
        return run(recipe, options.pairs) if wanted or (recipe.run.out / "constraint.json").exists() else None

    clean = made("clean", "clean", {"method.gate.kind": "never"})
    if clean is None:
        return None
    gated = {}
    for below in options.below:
        level = round(clean.level - below / 100, 4)
        for form in options.forms:
            asked = {"method.gate.clean": {"level": level, "every": options.every}}
            ended = made(f"{form} {below:g}", form, {**FORMS[form], **asked})
            if ended is not None:
                gated[form, below] = ended
    opened: dict[float, Ended] = {}

    def at(weight: float) -> Ended | None:
        method = recipe_of(options, seed, "open", {}).method
        scaled = {"method.alpha": weight * method.alpha, "method.weight": weight * method.weight}
        ended = made(f"open {weight:g}", "open", {"method.gate.kind": "always", **scaled})
        if ended is not None:
            opened[weight] = replace(ended, weight=weight)
        return opened.get(weight)

    needed = {}
    for below in options.below:
        level = clean.level - below / 100
        tried = list(search(level, at, tolerance=options.tolerance / 100, most=options.search))
        if tried:
            needed[below] = len(tried), min((one.level - level for one in tried), key=abs)
    return Seed(clean=clean, gated=gated, opened=opened, needed=needed)


def interpolated(found: Seed, at: Figure) -> Figure | None:
    """The attacked error of always-open runs at the clean error `at`; None beyond the weakest of them."""
    sweep = sorted([found.clean, *found.opened.values()], key=lambda one: one.clean.value)
    if not found.opened or not sweep[0].clean.value <= at.value <= sweep[-1].clean.value:
        return None

    def between(error: float, clean: list[float], attacked: list[float]) -> float:
        order = np.argsort(clean, kind="stable")
        return float(np.interp(error, np.array(clean)[order], np.array(attacked)[order]))

    without = [
        between(error, [one.clean.without[group] for one in sweep], [one.attacked.without[group] for one in sweep])
        for group, error in enumerate(at.without)
    ]
    value = between(at.value, [one.clean.value for one in sweep], [one.attacked.value for one in sweep])
    return Figure(value=value, without=tuple(without))


def cell(values: list[float], *, signed: bool = False, digits: int = 1) -> str:
    """Per cent: the mean, and the range where there are several."""
    values = [100 * value for value in values]
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:{'+' if signed else ''}.{digits}f}"
    return with_interval(mean, min(values), max(values), digits=digits, signed=signed)


def differences(found: Seed, keys: Sequence[tuple[str, float]]) -> list[Difference]:
    """Gated minus always open at equal clean level, of those of the gated runs that lie within the sweep."""
    there = [found.gated[key] for key in keys if key in found.gated]
    expected = [(one, interpolated(found, one.clean)) for one in there]
    return [paired_difference(one.attacked, other) for one, other in expected if other is not None]


def difference(seeds: list[Seed], keys: Sequence[tuple[str, float]]) -> str:
    """Gated minus always open at equal clean level, in points: the mean over the gated runs `keys` of each seed."""
    found = [of_seed for one in seeds if (of_seed := differences(one, keys))]
    if not found:
        return "-"
    if len(found) == len(found[0]) == 1:
        only = found[0][0]
        return with_interval(*(100 * x for x in (only.value, only.low, only.high)), signed=True)
    values = [statistics.mean(one.value for one in of_seed) for of_seed in found]
    if len(values) == 1:
        return f"{100 * values[0]:+.1f}"
    mean, n = statistics.mean(values), len(values)
    half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(values) / math.sqrt(n)
    return with_interval(100 * mean, 100 * (mean - half), 100 * (mean + half), signed=True) + f" ({n} seeds)"


HEADS = (
    "points below clean",
    "form",
    "reached minus asked",
    "gate open %",
    "attacked error %",
    "at equal clean",
    "runs",
)


def table(seeds: list[Seed], options: argparse.Namespace) -> str:
    lines = [f"| {' | '.join(HEADS)} |", "|---:|---|" + "---:|" * (len(HEADS) - 2)]
    clean = [one.clean for one in seeds]
    cells = [cell([one.level for one in clean]), "0", cell([one.attacked.value for one in clean]), "", "1"]
    lines.append(f"| 0 | clean training, its level | {' | '.join(cells)} |")
    for below in options.below:
        for form in options.forms:
            there = [one for one in seeds if (form, below) in one.gated]
            if not there:
                continue
            ended = [one.gated[form, below] for one in there]
            missed = [run.level - (one.clean.level - below / 100) for run, one in zip(ended, there, strict=True)]
            cells = [
                cell(missed, signed=True, digits=2),
                cell([one.duty for one in ended], digits=0),
                cell([one.attacked.value for one in ended]),
                difference(there, [(form, below)]),
                "1",
            ]
            lines.append(f"| {below:g} | {form} | {' | '.join(cells)} |")
        searched = [one.needed[below] for one in seeds if below in one.needed]
        if searched:
            tried = statistics.mean(count for count, _ in searched)
            unmet = sum(abs(near) > options.tolerance / 100 for _, near in searched)
            runs = f"{tried:.3g}" + (f", and not met in {unmet} of {len(searched)} seeds" if unmet else "")
            cells = [cell([near for _, near in searched], signed=True, digits=2), "100", "", "0", runs]
            lines.append(f"| {below:g} | always open, searched | {' | '.join(cells)} |")
    for form in options.forms:
        over = difference(seeds, [(form, below) for below in options.below])
        lines.append(f"| all | {form} | | | | {over} | |")
    return "\n".join(lines)


def plot(seeds: list[Seed], options: argparse.Namespace) -> str:
    """Attacked error against clean level, a panel a seed."""
    with mpl.rc_context(STYLE):
        picture = Picture(figsize=(4.4 * len(seeds) + 1.2, 3.8), layout="constrained")
        for panel, (number, found) in zip(
            picture.subplots(1, len(seeds), squeeze=False, sharey=True)[0], enumerate(seeds), strict=True
        ):
            sweep = sorted([found.clean, *found.opened.values()], key=lambda one: one.level)
            _points(panel, sweep, 0, "always open, and clean training", joined=True)
            for index, form in enumerate(options.forms, start=1):
                _points(panel, [one for (name, _), one in found.gated.items() if name == form], index, form)
            for below in options.below:
                panel.axvline(100 * found.clean.level - below, color="#999999", lw=0.8, ls=":")
            panel.set(xlabel="clean level, 1 - EER (%)", title=f"seed {number}")
            if number == 0:
                panel.set_ylabel("error under attack (%)")
                panel.legend(fontsize=8)
        return svg(picture)


def _points(panel: Any, ended: list[Ended], index: int, name: str, *, joined: bool = False) -> None:
    if not ended:
        return
    low, high = np.transpose([jackknife_interval(one.attacked) for one in ended])
    value = np.array([one.attacked.value for one in ended])
    style = line(index) | ({} if joined else {"ls": ""})
    spread = 100 * np.maximum(0.0, np.stack([value - low, high - value]))
    panel.errorbar(
        [100 * one.level for one in ended], 100 * value, yerr=spread, elinewidth=0.6, capsize=2, label=name, **style
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=tuple(RECIPE_OF))
    parser.add_argument("--faces", type=Path, help="identity folders; without it synthetic faces")
    parser.add_argument("--people", type=int, default=200, help="synthetic, with twelve images each")
    parser.add_argument("--weights", type=Path, help="harden: the trained weights")
    parser.add_argument("--out", type=Path, required=True)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="of training, for every run")
    length.add_argument("--steps", type=int, help="in place of minutes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--below", type=float, nargs="+", help="points below clean training (1 3 6; hardening .5 1 2)")
    parser.add_argument("--forms", nargs="+", choices=tuple(FORMS), default=list(FORMS))
    parser.add_argument("--every", type=int, default=20, help="steps between looks of the outer loop")
    parser.add_argument("--search", type=int, default=6, help="always-open runs for a level, at most")
    parser.add_argument("--tolerance", type=float, default=0.5, help="points within which such a run is near enough")
    parser.add_argument("--validation", type=float, default=0.2, help="share of the people held out")
    parser.add_argument("--pairs", type=int, default=150, help="of each kind that are attacked")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--only", nargs="+", help="make these alone: clean, open, and names of forms")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    options = parser.parse_args()
    if options.setting == "harden" and options.weights is None:
        parser.error("harden needs --weights")
    options.below = options.below or ([1, 3, 6] if options.setting == "scratch" else [0.5, 1, 2])
    return options


def main() -> None:
    options = parse()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        made = list(pool.map(runs_of, [options] * options.seeds, range(options.seeds)))
    seeds = [one for one in made if one is not None]
    if not seeds:
        raise SystemExit("clean training has not been made, which the levels are counted from: add clean to --only")
    text = table(seeds, options)
    print(text)
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    (options.out / "constraint.svg").write_text(plot(seeds, options), encoding="utf-8")
    results = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions()}
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
