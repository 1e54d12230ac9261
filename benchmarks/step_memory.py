"""Peak memory of a training step, and how it grows with the batch and the number of identities.

    python benchmarks/step_memory.py --size 112 --width 1 --json out.json

Every point is a process of its own: the peak of its resident memory over what it held before the first step (on a GPU
the peak of allocated memory). Random images, one clean and one open N-FGSM step after a warm-up. Beside it the bytes of
tensors that are alive at once in such a step, counted one by one, and what `steadface plan` says of it.
"""

import argparse
import json
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from steadface import heads
from steadface.attacks import NFGSM, ball
from steadface.backbones import Architecture
from steadface.data.loading import Batch
from steadface.heads.heads import MarginObjective
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import FixedGate
from steadface.training.performance import negative_loss
from steadface.training.planning.activations import traced
from steadface.training.planning.memory import memory_of
from steadface.training.planning.workload import Workload
from steadface.training.recompute import recomputing
from steadface.training.regularizers import PullRepel
from steadface.training.step import Ramp, Trainer
from steadface.training.targets import Nearest, OtherFace
from steadface.workflows.report import versions


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all tensors that are alive within, and the `peak`; what an operation holds inside is not seen."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[torch.UntypedStorage, int] = weakref.WeakKeyDictionary()

    def add(self, tensors: Iterable[Any]) -> None:
        for value in tensors:
            if not isinstance(value, Tensor) or (storage := value.untyped_storage()) in self._seen:
                continue
            size = self._seen[storage] = storage.nbytes()
            weakref.finalize(storage, self._freed, size)
            self.now += size
        self.peak = max(self.peak, self.now)

    def _freed(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, operation: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        made = operation(*given, **(named or {}))
        self.add(tree_leaves(made))
        return made


def alive(method: Trainer, batch: Batch) -> int:
    """The most bytes of tensors at once in a step that is not the first, the trainer's own among them."""
    method.step(batch)
    counted = Alive()
    with counted:
        modules = (method.backbone, method.objective)
        states = method.optimizer.state.values()
        counted.add(
            value for module in modules if isinstance(module, nn.Module) for value in module.state_dict().values()
        )
        counted.add(value for state in states for value in state.values())
        counted.add((batch.images, batch.labels))
        method.step(batch)
    return counted.peak


def architecture_of(options: argparse.Namespace) -> Architecture:
    return Architecture(
        name=options.backbone,
        width=options.width,
        blocks=options.blocks,
        embedding_size=128,
        image_size=(options.size, options.size),
    )


def planned(options: argparse.Namespace, *, opened: bool) -> int:
    """The bytes of the plan of such a step, without what is there whatever is trained."""
    workload = Workload(
        architecture=architecture_of(options),
        identities=options.people,
        batch=options.batch,
        precision="fp32",
        recompute=options.recompute,
        duty=float(opened),
    )
    return memory_of(workload, traced(workload.architecture), reserve=0).total


def trainer(options: argparse.Namespace, *, opened: bool) -> Trainer:
    """The method around a network of the asked size, without data."""
    seeds = torch.Generator().manual_seed(0)
    backbone = architecture_of(options).build(seeds).to(options.device).train()
    if options.recompute:
        recomputing(backbone)
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


def batch_of(options: argparse.Namespace) -> Batch:
    images = torch.rand(options.batch, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(options.batch) % options.people
    return Batch(images=images.to(options.device), labels=labels.to(options.device))


def peak(options: argparse.Namespace) -> float:
    """MiB that a few steps add to this process (or hold on the GPU)."""
    batch, method = batch_of(options), trainer(options, opened=options.step == "open")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(3):
        method.step(batch)
    if torch.device(options.device).type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10


def figures(options: argparse.Namespace) -> dict[str, float]:
    """In MiB: `resident`, `alive` (on a CPU) and `planned`."""
    opened = options.step == "open"
    found = {"resident": peak(options), "planned": planned(options, opened=opened) / 2**20}
    if torch.device(options.device).type == "cpu":
        found["alive"] = alive(trainer(options, opened=opened), batch_of(options)) / 2**20
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mobilefacenet")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--blocks", type=int, nargs=4)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 32, 64])
    parser.add_argument("--identities", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--people", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step is not None:  # the process of one point
        print(json.dumps(figures(options)))
        return
    points = [(b, options.identities[0]) for b in options.batches]
    points += [(options.batches[0], people) for people in options.identities[1:]]
    rows = []
    print("| step | batch | identities | resident, MiB | tensors alive | planned | planned / alive |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for batch, people in points:
        for step in ("clean", "open"):
            command = [sys.executable, __file__, "--backbone", options.backbone, "--size", str(options.size)]
            command += ["--width", str(options.width), "--device", options.device, "--batch", str(batch)]
            command += ["--people", str(people), "--step", step, *(["--recompute"] if options.recompute else [])]
            command += ["--blocks", *map(str, options.blocks)] if options.blocks else []
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append({"step": step, "batch": batch, "identities": people, **found})
            cells = [f"{found['resident']:.0f}", "", f"{found['planned']:.0f}", ""]
            if "alive" in found:
                cells[1::2] = f"{found['alive']:.0f}", f"{found['planned'] / found['alive']:.2f}"
            print(f"| {step} | {batch} | {people:,} | {' | '.join(cells)} |", flush=True)
    if options.json is not None:
        content = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions(), "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
