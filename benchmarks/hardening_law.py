"""What a face is worth in hardening: the same run on more and more faces, judged on people held out of all of them.

    steadface harden WEIGHTS --images FACES --out LAW/2k --set data.most=2000 --set run.minutes=null --set run.steps=600
    steadface harden WEIGHTS --images FACES --out LAW/9k --set run.minutes=null --set run.steps=600
    steadface harden WEIGHTS --images FACES --extra MORE --out LAW/26k --set run.minutes=null --set run.steps=600
    python benchmarks/hardening_law.py LAW/2k LAW/9k LAW/26k [--out law.svg]

RUNs are of one seed, and so hold out the same people; each is judged at its last moment. Clean EER and the error under
PGD with ten steps, and how far each lies from the first run's, or in the picture from the recogniser as it came: paired
95 % intervals over people.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

from steadface.evaluation.intervals import Difference, paired_difference
from steadface.report.style import STYLE, look
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.recipe.sections import MOST
from steadface.training.runfolder import read_run_recipe
from steadface.training.selection.candidates import Candidates
from steadface.training.selection.rules import Candidate, Verdict, told, verdict


@dataclass(frozen=True, kw_only=True)
class Point:
    """A run: on how many faces, how many passes over an image, and what its last moment is worth."""

    name: str
    faces: int
    passes: int
    seen: Candidate
    compared: Verdict
    """With the recogniser as it came."""
    held_out: str


def point(run: Path) -> Point:
    recipe = read_run_recipe(run)
    faces = open_recipe_faces(recipe)
    assert recipe.run.select is not None  # hardening's
    assert faces.validation is not None
    candidates = Candidates(run, recipe.run.select, until=MOST)
    seen = candidates.named(f"step {candidates.last_look}")
    assert candidates.reference is not None  # there is a look
    passes = seen.step * recipe.data.batch
    held_out = faces.validation.fingerprint()
    compared = verdict(seen, candidates.reference)
    return Point(
        name=run.name, faces=len(faces.training), passes=passes, seen=seen, compared=compared, held_out=held_out
    )


def table(points: list[Point]) -> str:
    names = [
        "run",
        "faces",
        "passes",
        "clean EER %",
        "less than the first",
        "error under attack %",
        "less than the first",
    ]
    lines = ["| " + " | ".join(names) + " |", "|---" + "|---:" * (len(names) - 1) + "|"]
    first = points[0].seen
    for one in points:
        cells = [one.name, f"{one.faces:,}", f"{one.passes:,}"]
        for figure, other in ((one.seen.clean, first.clean), (one.seen.attacked, first.attacked)):
            less = "" if figure is other else told(paired_difference(other, figure))
            cells += [f"{100 * figure.value:.2f}", less]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(points: list[Point], out: Path) -> None:
    with mpl.rc_context(STYLE):
        figure = mpl.figure.Figure(figsize=(9.6, 3.4), layout="constrained")
        panels = figure.subplots(1, 2)
        for panel, title, kind in zip(
            panels, ("clean EER lost, points", "gained under attack, points"), ("lost", "gained"), strict=True
        ):
            seen: list[Difference] = [getattr(one.compared, kind) for one in points]
            middle = [100 * one.value for one in seen]
            around = [
                [100 * (one.value - one.low) for one in seen],
                [100 * (one.high - one.value) for one in seen],
            ]
            shown = look(0)
            panel.errorbar(
                [one.faces for one in points], middle, around, color=shown.color, marker=shown.marker, capsize=3
            )
            panel.set(title=title, xlabel="faces trained on", xscale="log", ylim=(0, None))
            panel.set_xticks([one.faces for one in points], [f"{one.faces:,}" for one in points])
            panel.minorticks_off()
        figure.savefig(out, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="an .svg file")
    options = parser.parse_args()
    points = [point(run) for run in options.runs]
    if len({one.held_out for one in points}) > 1:
        parser.error("these runs hold out different people; give runs of one seed and one folder of faces")
    print(table(points))
    if options.out is not None:
        draw(points, options.out)


if __name__ == "__main__":
    main()
