"""What a margin head costs by identities, with all rows and with a share of them, whole and as one shard of several.

    python benchmarks/head_cost.py --json out.json

Every point is a process of its own: a closed step of the method with ArcFace around embeddings that are given, so that
nothing is paid but the head: the loss forth and back, the gradient's norm and the update by SGD with momentum. A shard
``C / R`` has the rows of one of R ranks and meets the faces of all of them, this one's repeated; nothing is sent.

Beside it the formulas of `steadface plan`: 6 R B s D operations, with the time that they take at the speed of the first
point, and the speed that explains the measured time; and the bytes of the head, beside the peak of the process's
resident memory over what it held before there was a head (on a GPU of allocated memory).
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from steadface.backbones import Architecture
from steadface.data.loading import Batch
from steadface.heads import ArcFace
from steadface.heads.heads import MarginObjective
from steadface.heads.sharded import DrawnRows
from steadface.ranks import Ranks
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import FixedGate
from steadface.training.performance import negative_loss
from steadface.training.planning.activations import traced
from steadface.training.planning.memory import memory_of
from steadface.training.planning.workload import Workload
from steadface.training.step import Ramp, Trainer
from steadface.workflows.report import versions

SMALLEST = Architecture(name="mobilefacenet", width=0.125, blocks=(1, 1, 1, 1), image_size=(32, 32))
"""For a plan of which the head's parts alone are looked at."""


@dataclass(frozen=True, kw_only=True)
class OneOfSeveral(Ranks):
    """The first of several ranks, of whom the others have the same faces and nobody is asked."""

    def sums(self, values: Sequence[float]) -> list[float]:
        return list(values)

    def sum(self, value: Tensor) -> Tensor:
        return value

    def maximum(self, value: Tensor) -> Tensor:
        return value

    def gather(self, part: Tensor, count: int) -> Tensor:  # noqa: ARG002
        return self.together(part)[0][0]

    def together(self, *parts: Tensor) -> tuple[list[Tensor], slice]:
        return [part.repeat(self.size, *[1] * (part.ndim - 1)) for part in parts], slice(0, len(parts[0]))


class Given(nn.Module):
    """Embeddings (B, D) that learn, whatever the images."""

    def __init__(self, faces: int, size: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(torch.randn(faces, size, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:  # noqa: ARG002
        return self.embeddings.clone()


def trainer(options: argparse.Namespace, ranks: Ranks) -> Trainer:
    """The method around the head of a point."""
    seeds = torch.Generator().manual_seed(0)
    backbone = Given(options.batch, options.embedding).to(options.device)
    head = ArcFace(options.point, options.embedding, generator=seeds, rows=ranks.rows(options.point))
    head.rate = options.rate
    objective = MarginObjective(head.to(options.device), ranks)
    optimizer = torch.optim.SGD([*backbone.parameters(), *objective.parameters()], lr=1e-3, momentum=0.9)
    return Trainer(
        backbone=backbone,
        network=backbone,
        objective=objective,
        optimizer=optimizer,
        gate=FixedGate(is_open=False),
        performance=negative_loss,
        batchnorm=BatchNormPasses(backbone, "clean"),
        generator=torch.Generator(options.device).manual_seed(0),
        timing="next",
        ramp=Ramp(),
        goal="dodge",
        ranks=ranks,
        drawn=None if options.rate == 1 else DrawnRows(head=objective.head, optimizer=optimizer, rate=options.rate),
    )


def figures(options: argparse.Namespace) -> dict[str, float]:
    """Median `seconds` of a step and the `peak` in bytes."""
    labels = torch.randint(options.point, (options.batch,), generator=torch.Generator().manual_seed(1))
    batch = Batch(
        images=torch.zeros(options.batch, 1, 1, 1, device=options.device),
        labels=labels.to(options.device),
        whole=options.ranks * options.batch,
    )
    cuda = torch.device(options.device).type == "cuda"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    method = trainer(options, OneOfSeveral(size=options.ranks))
    seconds = []
    for _ in range(options.steps + 1):
        began = time.perf_counter()
        method.step(batch)
        if cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 2**10
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak": torch.cuda.max_memory_allocated() if cuda else grown,
    }


def planned(options: argparse.Namespace, identities: int, rate: float, ranks: int) -> tuple[int, int]:
    """Operations of a step, and bytes of the head's parts, by formula."""
    workload = Workload(
        architecture=SMALLEST.model_copy(update={"embedding_size": options.embedding}),
        identities=identities,
        ranks=ranks,
        batch=options.batch,
        sample_rate=rate,
        precision="fp32",
    )
    memory = memory_of(workload, traced(workload.architecture), reserve=0)
    held = memory.head + memory.head_optimizer + memory.head_work + memory.embeddings
    return 6 * workload.faces * workload.sampled * options.embedding, held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--identities", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rates", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 8], metavar="R")
    parser.add_argument("--batch", type=int, default=64, help="faces of a rank")
    parser.add_argument("--embedding", type=int, default=512)
    parser.add_argument("--steps", type=int, default=7, help="timed, of which the median is taken")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--point", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--ranks", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point is not None:  # the process of one point
        print(json.dumps(figures(options)))
        return
    rows: list[dict[str, Any]] = []
    print("| identities | shards | rate | step, ms | by formula, ms | 10^9 operations/s | peak, MiB | planned, MiB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for identities, ranks, rate in itertools.product(options.identities, options.shards, options.rates):
        rows.append(one := row(options, identities, rate, ranks, rows))
        cells = [f"{1e3 * one['seconds']:.0f}", f"{1e3 * one['formula']:.0f}"]
        cells += [f"{one['operations'] / one['seconds'] / 1e9:.0f}"]
        cells += [f"{one[name] / 2**20:,.0f}" for name in ("peak", "planned")]
        print(f"| {identities:,} | {ranks} | {rate:g} | {' | '.join(cells)} |", flush=True)
    if options.json is not None:
        content = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions(), "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def row(
    options: argparse.Namespace, identities: int, rate: float, ranks: int, before: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A point, measured, and by formula at the speed of the first one."""
    command = [sys.executable, __file__, "--point", str(identities), "--rate", str(rate), "--ranks", str(ranks)]
    for name in ("batch", "embedding", "steps", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    operations, held = planned(options, identities, rate, ranks)
    found |= {"identities": identities, "shards": ranks, "rate": rate, "operations": operations, "planned": held}
    first = before[0] if before else found
    return {**found, "formula": operations * first["seconds"] / first["operations"]}


if __name__ == "__main__":
    main()
