"""How fast our adversarial training is beside ART's AdversarialTrainerMadryPGD, in images trained on a second.

    make bench
    .venv-bench/bin/python benchmarks/trainer_speed.py --weights FILE --json out.json

The same network, softmax head, batch, radius and number of PGD steps for both, SGD, training on adversarial samples
alone, BatchNorms that take the statistics of every training batch. Ours climbs minus the cosine to the clean embedding,
theirs the cross-entropy: a pass forwards and backwards a step either way. ``eager`` is the network as loaded, and
``channels last`` in that memory format; ``compiled`` is torch.compile, theirs in float32, the only precision that ART
has without a GPU, ours in bf16. ``folded`` is how `steadface harden` trains: compiled, BatchNorms folded. Rounds are
interleaved, and what each needed at best is compared. The images are noise: what is timed does not depend on them.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from art.defences.trainer import AdversarialTrainerMadryPGD  # type: ignore[import-not-found]
from art.estimators.classification import PyTorchClassifier  # type: ignore[import-not-found]
from torch import Tensor, nn

from steadface.backbones import load_backbone
from steadface.data.faces import ArrayFaces
from steadface.data.loading import Batch
from steadface.heads import Softmax
from steadface.training.assembly.faces import Faces
from steadface.training.assembly.trainer import assemble
from steadface.training.compute import compute_on
from steadface.training.recipe import make_recipe
from steadface.workflows.report import versions

EPS = 4 / 255
RATE = 1e-4
"""Noise is no face: the weights should stay sane over the rounds."""


class Classifier(nn.Module):
    """Images to the logits of a head, as ART wants them."""

    def __init__(self, backbone: nn.Module, head: Softmax) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.backbone(images) @ self.head.weight.T
        return logits


def theirs(options: argparse.Namespace, images: Tensor, labels: Tensor, form: str) -> Callable[[], object]:
    """A batch through ART's trainer."""
    backbone = load_backbone(options.weights)
    model: nn.Module = Classifier(backbone, Softmax(options.people, backbone.architecture.embedding_size))
    if form == "channels last":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9)
    classifier = PyTorchClassifier(
        torch.compile(model) if form == "compiled" else model,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        input_shape=tuple(images.shape[1:]),
        nb_classes=options.people,
        clip_values=(0.0, 1.0),
        device_type="cpu" if options.device == "cpu" else "gpu",
    )
    trainer = AdversarialTrainerMadryPGD(
        classifier,
        nb_epochs=1,
        batch_size=options.batch,
        eps=EPS,
        eps_step=2.5 * EPS / options.steps,
        max_iter=options.steps,
    )
    pixels, wanted = images.numpy(), np.eye(options.people, dtype=np.float32)[labels.numpy()]
    return partial(trainer.fit, pixels, wanted)


def ours(options: argparse.Namespace, images: Tensor, labels: Tensor, form: str) -> Callable[[], object]:
    """A batch through our trainer, its gate always open."""
    compiled = form in ("compiled", "folded")
    recipe = make_recipe(
        {
            "name": "speed",
            "data": {"images": ".", "size": list(images.shape[2:]), "batch": options.batch, "validation": 0},
            "model": {"start": str(options.weights), "imprint": False},
            "head": {"kind": "softmax"},
            "method": {
                "timing": "next",
                "source": 0,
                "weight": 0,
                "gate": {"kind": "always"},
                "targets": {"kind": "none"},
                "regularizer": {"triplet": 0, "pull": 0},
                "attack": {"kind": "pgd", "steps": options.steps, "eps": EPS, "goal": "dodge"},
                "batchnorm": "folded" if form == "folded" else "joint",
            },
            "optimizer": {"rate": RATE},
            "run": {
                "steps": 1,
                "device": options.device,
                "compile": "on" if compiled else "off",
                "precision": "bf16" if compiled else "fp32",
                "channels_last": "on" if form == "channels last" else "off",
            },
        }
    )
    people = tuple(str(label) for label in range(options.people))
    pixels = np.zeros((options.people, *images.shape[2:], 3), dtype=np.uint8)
    faces = ArrayFaces(pixels, np.arange(options.people), people)
    device = torch.device(options.device)
    parts = assemble(
        recipe,
        Faces(training=faces, validation=None),
        compute_on(device, recipe.run),
        fresh=False,
        start=options.weights,
    )
    for group in parts.trainer.optimizer.param_groups:
        group["lr"] = RATE
    batch = Batch(images=images.to(device), labels=labels.to(device))
    return partial(parts.trainer.step, batch)


ENTRANTS: tuple[tuple[str, Callable[..., Callable[[], object]], tuple[str, ...]], ...] = (
    ("ART", theirs, ("eager", "channels last", "compiled")),
    ("steadface", ours, ("eager", "channels last", "compiled", "folded")),
)


def measure(options: argparse.Namespace) -> dict[tuple[str, str], float]:
    """Images a second of the fastest round of each."""
    size = load_backbone(options.weights).image_size
    images = torch.rand(options.batch, 3, *size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(options.batch) % options.people
    calls = {(who, form): make(options, images, labels, form) for who, make, forms in ENTRANTS for form in forms}
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(options.rounds + 2):  # the first two compile and warm up
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if torch.device(options.device).type == "cuda":
                torch.cuda.synchronize()
            if turn > 1:
                best[name] = min(best[name], time.perf_counter() - began)
    return {name: options.batch / seconds for name, seconds in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3, help="of PGD")
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates = measure(options)
    print("| trainer | form | images/s |\n|---|---|---:|")
    for (who, form), rate in rates.items():
        print(f"| {who} | {form} | {rate:.1f} |")
    best = {who: max(rate for (entrant, _), rate in rates.items() if entrant == who) for who, _, _ in ENTRANTS}
    print(f"\neager against eager {rates['steadface', 'eager'] / rates['ART', 'eager']:.2f} x; ", end="")
    print(f"best against best {best['steadface'] / best['ART']:.2f} x")
    if options.json is not None:
        content = {
            "options": {key: str(value) for key, value in vars(options).items()},
            "versions": {**versions(), "adversarial-robustness-toolbox": version("adversarial-robustness-toolbox")},
            "images_per_second": {f"{who}, {form}": rate for (who, form), rate in rates.items()},
        }
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
