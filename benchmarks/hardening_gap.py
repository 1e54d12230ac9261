"""What a hardened recogniser loses on people that it was trained on, and on people held out.

    python benchmarks/hardening_gap.py RUN ...

RUNs are finished ones of `steadface harden`; their last weights are judged, not the chosen ones. Ten faces each of
thirty people from either side; clean FNMR at the FMR of the run, by a threshold of their own, before and after, and the
mean cosine to the embedding that they had before.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadface.backbones import load_backbone
from steadface.backbones.frozen import frozen
from steadface.data.faces import FaceSource
from steadface.evaluation.compatibility import compatibility
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.report.text import percent
from steadface.training import checkpoint
from steadface.training.assembly.faces import open_recipe_faces
from steadface.training.assembly.trainer import load_start
from steadface.training.averaging import between
from steadface.training.runfolder import read_run_recipe
from steadface.workflows.harden import ORIGINAL

PEOPLE, FACES = 30, 10


def drawn(faces: FaceSource, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices and people of the faces to measure by."""
    labels, rng = np.asarray(faces.labels, dtype=np.int64), np.random.default_rng(seed)
    people = rng.permutation(np.unique(labels))[:PEOPLE]
    chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == person))[:FACES] for person in people])
    return chosen, labels[chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    options = parser.parse_args()
    print("| run | people | FNMR before % | FNMR after % | cosine to the old embedding |\n|---|---|---:|---:|---:|")
    for run in options.runs:
        recipe = read_run_recipe(run)
        faces = open_recipe_faces(recipe)
        assert faces.validation is not None  # hardening chooses by them
        start = load_start(recipe, run / "start.safetensors")
        last = between(start, start.state_dict() | checkpoint.load_newest(run).part("average"), 1)
        embedders = [MirrorEmbedder(frozen(one), mirror=False) for one in (load_backbone(run / ORIGINAL), last)]
        for side, some in {"trained on": faces.training, "held out": faces.validation}.items():
            chosen, people = drawn(some, recipe.run.seed)
            old, new = (embed_faces(embedder, some, chosen) for embedder in embedders)
            before = compatibility(old, new, people, fmr=recipe.evaluation.fmr)
            after = compatibility(new, old, people, fmr=recipe.evaluation.fmr)
            print(
                f"| {run.name} | {side} | {percent(before.old.fnmr, 1)} | {percent(after.old.fnmr, 1)} | "
                f"{before.drift:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
