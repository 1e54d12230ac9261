"""Tiny runs that train in a fraction of a second, and what makes two of them equal."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import torch

from steadface.data.synthetic import synthetic_faces
from steadface.training import checkpoint
from steadface.training.recipe import Recipe, make_recipe

from ..few import SMALLEST

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "synthetic": {"people": 6, "images_per_person": 4},
        "size": [16, 16],
        "batch": 4,
        "validation": 0,
        "augmentation": {"mirror": 0.5, "colour": 0.5},
        "workers": 0,
    },
    "model": {"architecture": {"name": SMALLEST.name, "embedding_size": 8}},
    "head": {"kind": "cosface", "s": 8, "m": 0.1},
    "method": {"gate": {"kind": "never"}},
    "evaluation": {"fmr": 0.2, "eps": ["4/255"], "steps": 2, "restarts": 1, "max_pairs": 2},
    "run": {
        "steps": 6,
        "log_every": 1,
        "checkpoint_every": 2,
        "threads": 1,
        "device": "cpu",
        "tensorboard": False,
    },
}

GATED = [
    "method.gate.kind=smoothed",
    "method.gate.loss=1.6 chance",
    "method.gate.decay=0.5",
    "method.attack.kind=generator",
    "method.attack.ramp=6",
    "method.targets.kind=perturbed",
    "method.targets.designate=random",
    "method.targets.steps=1",
    "method.regularizer.target_pull=0.5",
]
"""A smoothed gate that opens after a while, the network that attacks, targets built on the source, and a ramp."""

WALL_CLOCK = ("seconds", "images_per_second")


def tiny(out: Path, *overrides: str) -> Recipe:
    """The tiny recipe with ``overrides``, to run in ``out``."""
    return make_recipe(TINY, [f"run.out={out}", *overrides])


def write_faces(root: Path, *, people: int = 6, images: int = 4, size: int = 16) -> Path:
    """Identity folders of small synthetic faces."""
    faces = synthetic_faces(people=people, images_per_person=images, size=(size, size), seed=3)
    for index, label in enumerate(faces.labels):
        path = root / faces.people[label] / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), faces.read(index)[:, :, ::-1])
    return root


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def steps(run: Path) -> list[int]:
    """The logged training steps, in order."""
    return [line["step"] for line in metrics(run) if "loss" in line]


def assert_same_run(one: Path, other: Path, *, parts: Iterable[str] = ("backbone", "objective", "optimiser")) -> None:
    """Both ended with bitwise the same tensors and state, and logged the same, wall-clock times apart.

    ``parts`` are prefixes that must be among the tensors: a comparison of nothing would hold too.
    """
    first, second = (checkpoint.load(checkpoint.paths(run)[-1]) for run in (one, other))
    assert first.tensors.keys() == second.tensors.keys()
    assert all(first.part(part) for part in parts), f"{parts} expected among {sorted(first.tensors)}"
    # torch's own generator is as the process had it: kept for what a user's function draws, unused by ours.
    names = first.tensors.keys() - {"random.torch"}
    different = [name for name in sorted(names) if not torch.equal(first.tensors[name], second.tensors[name])]
    assert not different, f"not bitwise equal: {different}"
    changed = checkpoint.difference(_timeless(first.state), _timeless(second.state))
    assert not changed, "; ".join(changed)
    assert [_timeless(line) for line in metrics(one)] == [_timeless(line) for line in metrics(other)], "other metrics"


def _timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in WALL_CLOCK}
