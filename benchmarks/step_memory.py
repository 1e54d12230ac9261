"""Peak memory of a training step, and how it grows with the batch and the number of identities.

    python benchmarks/step_memory.py --size 112 --width 1 --json out.json

Every point is a process of its own: the peak of its resident memory over what it held before the first step (on a GPU
the peak of allocated memory). Random images, one clean and one open N-FGSM step after a warm-up.
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

from steadface import heads
from steadface.attacks import NFGSM, ball
from steadface.backbones import Architecture
from steadface.data.loading import Batch
from steadface.heads.heads import MarginObjective
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import FixedGate
from steadface.training.performance import negative_loss
from steadface.training.regularizers import PullRepel
from steadface.training.step import Ramp, Trainer
from steadface.training.targets import Nearest, OtherFace
from steadface.workflows.report import versions


def trainer(options: argparse.Namespace, *, opened: bool) -> Trainer:
    """The method around a network of the asked size, without data."""
    architecture = Architecture(
        name="mobilefacenet", width=options.width, embedding_size=128, image_size=(options.size, options.size)
    )
    seeds = torch.Generator().manual_seed(0)
    backbone = architecture.build(seeds).to(options.device).train()
    objective = MarginObjective(heads.ArcFace(options.people, 128, s=32, m=0.3, generator=seeds)).to(options.device)
    parameters = [*backbone.parameters(), *objective.parameters()]
    return Trainer(
        backbone=backbone,
        network=backbone,
        objective=objective,
        optimizer=torch.optim.SGD(parameters, lr=1e-4, momentum=0.9),
        gate=FixedGate(is_open=opened),
        performance=negative_loss,
        batchnorm=BatchNormPasses(backbone, "clean"),
        generator=torch.Generator(options.device).manual_seed(0),
        attack=NFGSM(ball=ball("linf", 4 / 255)),
        targets=OtherFace(designate=Nearest()),
        regularizer=PullRepel(),
        timing="next",
        ramp=Ramp(),
    )


def peak(options: argparse.Namespace) -> float:
    """MiB that a few steps add to this process (or hold on the GPU)."""
    cuda = torch.device(options.device).type == "cuda"
    images = torch.rand(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        images=images.to(options.device), labels=(torch.arange(options.batch) % options.people).to(options.device)
    )
    method = trainer(options, opened=options.step == "open")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        method.step(batch)
    if cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--identities", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--people", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:  # the process of one point
        print(peak(options))
        return
    points = [(b, options.identities[0]) for b in options.batches]
    points += [(options.batches[0], people) for people in options.identities[1:]]
    rows = []
    print("| batch | identities | clean step, MiB | open step, MiB |\n|---:|---:|---:|---:|")
    for batch, people in points:
        row: dict[str, float] = {"batch": batch, "identities": people}
        for step in ("clean", "open"):
            command = [sys.executable, __file__, "--size", str(options.size), "--width", str(options.width)]
            command += ["--device", options.device, "--batch", str(batch), "--people", str(people), "--step", step]
            row[step] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append(row)
        print(f"| {batch} | {people:,} | {row['clean']:.0f} | {row['open']:.0f} |", flush=True)
    if options.json is not None:
        content = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions(), "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
