"""What lies between the weights that hardening starts from and its last ones, with and without normalisation or mirror.

    python benchmarks/hardening_line.py RUN --share 0.5 0.75 1 --within 0 0.5
    python benchmarks/hardening_line.py RUN RUN --share 0.75
    python benchmarks/hardening_line.py RUN --share 1 --mirror 0 1

RUNs are finished ones of `steadface harden` from the same weights; the last weights of several are averaged. Every
point is judged on the people that the first one holds out, under PGD with ten steps at half of its radius. ``within``
is the strength of within-class covariance normalisation, by the people that it trained on, of a network of ours; with
``mirror`` an image and its mirror image are embedded and summed, and attacked so.
"""

import argparse
import itertools
from pathlib import Path

import torch

from steadface.attacks import PGD, ball
from steadface.backbones import Backbone
from steadface.evaluation.labelled import validation_metrics
from steadface.evaluation.robustness import AttackPlan
from steadface.report.text import percent
from steadface.training import checkpoint
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.assembly.trainer import load_start
from steadface.training.averaging import between
from steadface.training.networks import judged, kept_file
from steadface.training.runfolder import read_run_recipe
from steadface.training.selection.looks import CHOOSING, STEPS
from steadface.training.within_class import normalise_within


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--share", nargs="+", type=float, default=[0.5, 0.75, 1])
    parser.add_argument("--within", nargs="+", type=float, default=[0])
    parser.add_argument("--mirror", nargs="+", type=int, choices=[0, 1], default=[0])
    parser.add_argument("--pairs", type=int, default=150, help="attacked, of each kind")
    options = parser.parse_args()
    recipe = read_run_recipe(options.runs[0])
    faces = open_recipe_faces(recipe)
    held_out = faces.validation
    assert held_out is not None  # hardening chooses by them
    start = kept_file(options.runs[0], "start")
    assert start is not None  # every run keeps its own
    first = load_start(recipe, start)
    ends = [checkpoint.load_newest(run).part("average") for run in options.runs]
    last = {
        name: torch.stack([end[name] for end in ends]).mean(0) if value.is_floating_point() else value
        for name, value in first.state_dict().items()
    }
    around = ball("linf", min(recipe.evaluation.eps))
    plan = AttackPlan(attacks={"pgd": PGD(ball=around, steps=STEPS)}, balls=[around], examples=0)
    names = ["share", "within", "mirror", "EER %", "FNMR %", "dodging %", "impersonation %"]
    print("| " + " | ".join(names) + " |\n|" + "---:|" * len(names))
    for share, within, mirror in itertools.product(options.share, options.within, options.mirror):
        network = between(first, last, share)
        if within and isinstance(network, Backbone):
            normalise_within(network, faces.training, within)
        found = validation_metrics(
            judged(network),
            held_out,
            fmr=recipe.evaluation.fmr,
            max_pairs=CHOOSING,
            mirror=bool(mirror),
            attack=plan,
            attacked_pairs=options.pairs,
            seed=recipe.run.seed,
        )
        rates = {result.goal: percent(result.error_rate, 1) for result in found.attacks}
        print(
            f"| {share:g} | {within:g} | {mirror} | {percent(found.eer, 2)} | {percent(1 - found.tar, 1)} | "
            f"{rates['dodging']} | {rates['impersonation']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
