"""Trains several recipes for the same minutes and several seeds, judges them on LFW, and sets them side by side.

    python benchmarks/compare_training.py full --faces DIR --out OUT --minutes 10 --arms clean gated
    python benchmarks/compare_training.py scratch --faces DIR --lfw DIR --out OUT --minutes 4 --seeds 3
    python benchmarks/compare_training.py start --weights FILE --faces DIR --lfw DIR --out OUT --minutes 8 --seeds 1
    python benchmarks/compare_training.py harden --weights FILE --faces DIR --out OUT --minutes 2 --seeds 3

``full`` trains recipes from nothing as they are, which wants a GPU, and ``scratch`` a small network at 56 px; ``start``
goes on from trained weights at their own size, and ``harden`` as `steadface harden` does, the last moment of each run
being its model.
``gated`` stands beside the baselines, beside itself with the gate always open, and beside two controls of equal duty:
always open with alpha and lambda scaled by the duty cycle, and a gate that opens at random as often.

Without ``--lfw`` each run is judged by its own report, on the people that it held out.

Runs and evaluations that are already in OUT are not repeated, so a comparison that was stopped goes on. Training people
are split as the recipes say; choices are made on the held-out ones. Every evaluation on LFW is logged in
OUT/lfw_evaluations.jsonl.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from scipy import stats

import steadface as sf
from steadface.backbones import read_metadata
from steadface.report.text import with_interval
from steadface.workflows.report import versions

RECIPES = Path(__file__).parents[1] / "recipes"
Overrides = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A named recipe with overrides; ``needs_duty`` ones are made from the gated run of the same seed."""

    name: str
    recipe: str
    overrides: Overrides
    needs_duty: bool = False


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all arms share, which arms there are, and how they are judged."""

    overrides: Overrides
    arms: tuple[Arm, ...]
    fmr: float
    eps: tuple[str, ...]
    mirror: bool
    pairs: int


def arm(recipe: str, **overrides: object) -> Arm:
    return Arm(name=recipe, recipe=recipe, overrides={key.replace("__", "."): v for key, v in overrides.items()})


def controls(recipe: str) -> tuple[Arm, ...]:
    always: Overrides = {"method.gate.kind": "always"}
    return (
        Arm(name="always_open", recipe=recipe, overrides=always),
        Arm(name="always_scaled", recipe=recipe, overrides=always, needs_duty=True),
        Arm(name="random_gate", recipe=recipe, overrides={"method.gate.kind": "random"}, needs_duty=True),
    )


FULL = Setting(
    overrides={},
    arms=(arm("clean"), arm("pgd_at"), arm("trades"), arm("gated"), arm("gated_generator"), *controls("gated")),
    fmr=0.01,
    eps=("2/255", "4/255"),
    mirror=False,
    pairs=50,
)
SCRATCH = Setting(
    overrides={
        "data.size": [56, 56],
        "data.workers": 0,
        "model.architecture.width": 0.5,
        "model.architecture.blocks": [1, 2, 3, 1],
        "head.kind": "cosface",
        "head.m": 0.15,
        "method.gate.loss": "0.85 chance",
        "evaluation.fmr": 0.1,
        "evaluation.eps": ["2/255", "4/255"],
    },
    arms=(arm("clean"), arm("pgd_at"), arm("gated"), *controls("gated")),
    fmr=0.1,
    eps=("2/255", "4/255"),
    mirror=False,
    pairs=50,
)
START = Setting(
    overrides={
        "data.workers": 0,
        "data.batch": 16,
        "method.batchnorm": "frozen",
        "method.attack.ramp": 20,
        "method.gate.loss": 1.0,
        "optimizer.rate": 0.01,
        "evaluation.eps": ["2/255"],
        "evaluation.restarts": 1,
        "evaluation.steps": 10,
    },
    arms=(
        arm("clean"),
        arm("pgd_at"),
        arm("trades"),
        arm("gated_literal"),
        arm("gated"),
        arm("gated_no_targets"),
        arm("gated_generator"),
    ),
    fmr=0.01,
    eps=("2/255",),
    mirror=False,
    pairs=40,
)
HARDEN = Setting(
    overrides={
        "data.workers": 0,
        "method.gate.loss": 0.08,
        "method.attack.steps": 2,
        "method.attack.ramp": 40,
        "method.attack.probe": None,
        "optimizer.average": 0.98,
        "run.validate_every": 0,
        "run.select": None,
    },
    arms=(Arm(name="gated", recipe="harden", overrides={}), *controls("harden")),
    fmr=0.01,
    eps=("2/255", "4/255"),
    mirror=False,
    pairs=50,
)
SETTINGS = {"full": FULL, "scratch": SCRATCH, "start": START, "harden": HARDEN}


def overrides_of(setting: Setting, arm: Arm, options: argparse.Namespace, seed: int, out: Path) -> Overrides:
    """Every key in which this run differs from its recipe."""
    found = {
        **setting.overrides,
        **arm.overrides,
        "data.images": str(options.faces),
        "run.epochs": None,
        "run.minutes": options.minutes,
        "run.seed": seed,
        "run.threads": options.threads,
        "run.out": str(out / f"{arm.name}-{seed}"),
        **dict(map(_given, options.set)),
    }
    if options.weights is not None:
        found["model.start"] = str(options.weights)
    if arm.needs_duty:
        duty = float(read_metadata(out / f"gated-{seed}")["duty_cycle"])
        if arm.name == "random_gate":
            found["method.gate.probability"] = duty
        else:
            recipe = sf.load_recipe(RECIPES / f"{arm.recipe}.yaml", ["data.images=x", "model.start=x"])
            found |= {"method.alpha": duty * recipe.method.alpha, "method.weight": duty * recipe.method.weight}
    return found


def train(arm: Arm, overrides: Overrides, threads: int) -> None:
    """One run in a process of its own, unless it is there already."""
    folder = Path(str(overrides["run.out"]))
    if (folder / "model.safetensors").exists():
        return
    command = [sys.executable, "-m", "steadface"]
    if list(folder.glob("checkpoints/step-*.safetensors")):
        command += ["resume", str(folder)]
    else:
        command += ["train", str(RECIPES / f"{arm.recipe}.yaml")]
        for key, value in {**overrides, "name": arm.name}.items():
            command += ["--set", f"{key}={json.dumps(value)}"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.log").open("a", encoding="utf-8") as log:
        log.write(" ".join(command) + "\n")
        log.flush()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run(command, stdout=log, stderr=log, env=environment, check=True)
    print(f"trained {folder.name}", flush=True)


def judge(folder: Path, setting: Setting, lfw: Path | None, log: Path) -> dict[str, Any]:
    """The run on LFW, clean and under attack; each look is written down. Without LFW as its own report has it."""
    if lfw is None:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return dict(report["arms"][0])
    kept = folder / "lfw.json"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
        return found
    began = time.strftime("%Y-%m-%dT%H:%M:%S")
    evaluation = sf.evaluate(
        sf.load_backbone(folder),
        sf.read_pairs(lfw / "pairs.txt", lfw / "aligned112"),
        mirror=setting.mirror,
        attack=sf.pgd_plan(eps=[_radius(eps) for eps in setting.eps], steps=20, restarts=2),
        fmr=setting.fmr,
        max_pairs=setting.pairs,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    figures = {
        **evaluation.to_json(),
        **{key: read_metadata(folder)[key] for key in ("steps", "seconds", "duty_cycle")},
    }
    kept.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    with log.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": began, "run": folder.name, "accuracy": figures["accuracy"]}) + "\n")
    print(f"judged {folder.name}: {100 * figures['accuracy']:.2f} %", flush=True)
    return figures


def measures(figures: dict[str, Any], setting: Setting) -> dict[str, float]:
    """The figures that are compared, in per cent where they are rates."""
    point = min(figures["operating_points"], key=lambda p: abs(math.log(p["fmr"] / setting.fmr)))
    found = {
        "steps": figures["steps"],
        "gate open %": 100 * figures["duty_cycle"],
        "accuracy %": 100 * figures["accuracy"],
        "EER %": 100 * figures["eer"],
        "impostor cosine": figures["impostor_mean"],
        "FNMR clean %": 100 * (1 - point["tar"]),
    }
    for attack in figures["attacks"]:
        error = "FNMR" if attack["goal"] == "dodging" else "FMR"
        found[f"{error} {attack['goal']} {round(attack['eps'] * 255)}/255 %"] = 100 * attack["error_rate"]
    return found


def table(rows: dict[str, list[dict[str, float]]]) -> str:
    """Arms as columns; the mean over seeds, and the range where there are several."""
    names = list(rows)
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for measure in next(iter(rows.values()))[0]:
        cells = []
        for name in names:
            values = [row[measure] for row in rows[name]]
            mean = statistics.mean(values)
            digits = 0 if measure == "steps" else 2 if "cosine" in measure else 1
            several = len(values) > 1
            cells.append(
                with_interval(mean, min(values), max(values), digits=digits) if several else f"{mean:.{digits}f}"
            )
        lines.append(f"| {measure} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def paired(rows: dict[str, list[dict[str, float]]], against: Sequence[str]) -> str:
    """Gated minus each other arm, seed by seed: the mean difference and its 95 % t-interval."""
    measured = [m for m in rows["gated"][0] if m.startswith(("accuracy", "EER", "FNMR", "FMR"))]
    lines = ["| gated minus | " + " | ".join(measured) + " |", "|---|" + "---:|" * len(measured)]
    for name in against:
        cells = []
        for measure in measured:
            pairs = zip(rows["gated"], rows[name], strict=True)
            differences = [one[measure] - other[measure] for one, other in pairs]
            mean, n = statistics.mean(differences), len(differences)
            half = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
            cells.append(with_interval(mean, mean - half, mean + half, signed=True))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _given(pair: str) -> tuple[str, object]:
    key, _, value = pair.partition("=")
    with contextlib.suppress(ValueError):
        return key, json.loads(value)
    return key, value


def _radius(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=tuple(SETTINGS))
    parser.add_argument("--faces", type=Path, required=True, help="identity folders to train on")
    parser.add_argument("--lfw", type=Path, help="holds pairs.txt and aligned112/")
    parser.add_argument("--weights", type=Path, help="start and harden: the trained weights")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True, help="of training, for every run")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--arms", nargs="+", help="only these")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for every run")
    options = parser.parse_args()
    if options.setting in ("start", "harden") and options.weights is None:
        parser.error(f"{options.setting} needs --weights")
    return options


def main() -> None:
    options = parse()
    setting = SETTINGS[options.setting]
    arms = [a for a in setting.arms if options.arms is None or a.name in options.arms]
    for needs_duty in (False, True):  # the controls are made from what the gated runs turn out to be
        with ThreadPoolExecutor(options.jobs) as pool:
            waiting = [
                pool.submit(train, a, overrides_of(setting, a, options, seed, options.out), options.threads)
                for seed in range(options.seeds)
                for a in arms
                if a.needs_duty == needs_duty
            ]
            for done in waiting:
                done.result()
    rows: dict[str, list[dict[str, float]]] = {}
    for a in arms:
        folders = [options.out / f"{a.name}-{seed}" for seed in range(options.seeds)]
        log = options.out / "lfw_evaluations.jsonl"
        rows[a.name] = [measures(judge(folder, setting, options.lfw, log), setting) for folder in folders]
    text = table(rows)
    if options.seeds > 1 and "gated" in rows:
        text += "\n\n" + paired(rows, [name for name in rows if name != "gated"])
    print(text)
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    results = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions(), "rows": rows}
    (options.out / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
