"""What it costs that several processes train one model: ranks beside one with as many threads, and memory of each.

    python benchmarks/ranks_cost.py --json out.json
    python benchmarks/ranks_cost.py --ways 1x2 2x1 --rounds 5          # ranks x threads of each

Every round starts each way anew, one after the other, with torchrun where it has several ranks, so that a machine that
is busy for a while slows all of them; the batch is that of all ranks together. A process takes closed and open steps
(timing next, N-FGSM) of random images after a warm-up, in turn, and gives the median of each. The table has images a
second (the best round's, and the median of the rounds' ratios to the first way), and the memory of a rank for each
number of ``--identities``: bytes of tensors that are alive at once in an open step, counted, beside the plan, and what
the process itself has grown to.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from steadface.data.faces import ArrayFaces
from steadface.data.loading import Batch
from steadface.ranks import Ranks, joined
from steadface.training.assembly.faces import Faces
from steadface.training.assembly.trainer import assemble
from steadface.training.compute import compute_on
from steadface.training.planning.activations import traced
from steadface.training.planning.memory import memory_of
from steadface.training.planning.workload import Workload
from steadface.training.recipe import Recipe, make_recipe
from steadface.training.step import Trainer
from steadface.workflows.report import versions
from step_memory import alive

GATES = {"clean": "never", "open": "always"}


def recipe_of(options: argparse.Namespace, step: str) -> Recipe:
    return make_recipe(
        {
            "name": step,
            "data": {"images": ".", "size": [options.size, options.size], "batch": options.batch, "validation": 0},
            "model": {
                "architecture": {
                    "name": options.backbone,
                    "width": options.width,
                    "embedding_size": options.embedding,
                }
            },
            "head": {"sample_rate": options.rate},
            "method": {
                "timing": "next",
                "gate": {"kind": GATES[step]},
                "attack": {"kind": "nfgsm"},
                "targets": {"kind": "other_face"},
            },
            "run": {"steps": 1, "precision": options.precision, "compile": "off", "device": options.device},
        }
    )


def trainer(options: argparse.Namespace, step: str, ranks: Ranks) -> tuple[Trainer, Batch]:
    """The method of a rank and its slots of a batch of noise."""
    recipe = recipe_of(options, step)
    size = options.size
    faces = ArrayFaces(
        np.broadcast_to(np.zeros((), np.uint8), (options.people, size, size, 3)),
        np.arange(options.people),
        tuple(map(str, range(options.people))),
    )
    compute = compute_on(torch.device(options.device), recipe.run)
    method = assemble(recipe, Faces(training=faces, validation=None), compute, fresh=True, ranks=ranks).trainer
    for group in method.optimizer.param_groups:
        group["lr"] = 1e-4  # noise is no face: the weights should stay sane over the rounds
    images = torch.rand(options.batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(options.batch) % options.people
    own = ranks.slots(options.batch)
    return method, Batch(
        images=images[own].to(compute.device), labels=labels[own].to(compute.device), whole=options.batch
    )


def speeds(options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each step, of one rank among all."""
    with joined() as ranks:
        steps = {step: trainer(options, step, ranks) for step in GATES}
        seconds: dict[str, list[float]] = {step: [] for step in GATES}
        for turn in range(options.steps + 2):  # the first two warm up
            for step, (method, batch) in steps.items():
                began = time.perf_counter()
                method.step(batch)
                if batch.images.is_cuda:
                    torch.cuda.synchronize()
                if turn > 1:
                    seconds[step].append(time.perf_counter() - began)
        return {step: statistics.median(found) for step, found in seconds.items()} if ranks.first else {}


def held(options: argparse.Namespace) -> dict[str, float]:
    """Bytes of one rank in an open step: `alive` and `resident`."""
    with joined() as ranks:
        counted = alive(*trainer(options, "open", ranks))
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
        return {"alive": counted, "resident": resident} if ranks.first else {}


def planned(options: argparse.Namespace, people: int, ranks: int) -> int:
    workload = Workload(
        architecture=recipe_of(options, "open").model.architecture.model_copy(
            update={"image_size": (options.size, options.size)}
        ),
        identities=people,
        ranks=ranks,
        batch=-(-options.batch // ranks),
        sample_rate=options.rate,
        precision="fp32",
        duty=1.0,
    )
    return memory_of(workload, traced(workload.architecture), reserve=0).total


def started(options: argparse.Namespace, what: str, ranks: int, threads: int, *, people: int) -> dict[str, Any]:
    """What processes of this script find, started as somebody would who trains."""
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    command += [__file__, "--what", what, "--people", str(people)]
    for name in ("batch", "size", "width", "backbone", "embedding", "rate", "steps", "device", "precision"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, Any] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return found


def main() -> None:
    options = _options()
    if options.what is not None:  # one of the processes
        if found := {"speed": speeds, "memory": held}[options.what](options):
            print(json.dumps(found), flush=True)
        return
    content: dict[str, Any] = {"options": {k: str(v) for k, v in vars(options).items()}, "versions": versions()}
    content["speed"] = list(speed_table(options))
    content["memory"] = list(memory_table(options))
    if options.json is not None:
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def speed_table(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    ways = [(int(ranks), int(threads)) for ranks, threads in (way.split("x") for way in options.ways)]
    rounds = [
        [started(options, "speed", ranks, threads, people=options.identities[0]) for ranks, threads in ways]
        for _ in range(options.rounds)
    ]
    print("| ranks | threads each | clean, images/s | of the first | open, images/s | of the first |")
    print("|---:|---:|---:|---:|---:|---:|")
    for place, (ranks, threads) in enumerate(ways):
        one: dict[str, Any] = {"ranks": ranks, "threads": threads}
        for step in GATES:
            one[step] = options.batch / min(found[place][step] for found in rounds)
            one[f"{step}_ratio"] = statistics.median(found[0][step] / found[place][step] for found in rounds)
        cells = [f"{one[step]:.1f} | {one[f'{step}_ratio']:.2f}" for step in GATES]
        print(f"| {ranks} | {threads} | {' | '.join(cells)} |", flush=True)
        yield {**one, "rounds": [found[place] for found in rounds]}


def memory_table(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    print("\n| identities | ranks | tensors alive, MiB | planned | planned / alive | process, MiB |")
    print("|---:|---:|---:|---:|---:|---:|")
    for people in options.identities:
        for ranks in options.sizes:
            found = started(options, "memory", ranks, 1, people=people)
            plan = planned(options, people, ranks)
            mib = [value / 2**20 for value in (found["alive"], plan, found["resident"])]
            cells = f"{mib[0]:,.0f} | {mib[1]:,.0f} | {mib[1] / mib[0]:.2f} | {mib[2]:,.0f}"
            print(f"| {people:,} | {ranks} | {cells} |", flush=True)
            yield {"identities": people, "ranks": ranks, "planned": plan, **found}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", default=["1x2", "2x1", "1x1"], metavar="RANKSxTHREADS")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="timed, of each kind")
    parser.add_argument("--backbone", default="mobilefacenet")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--embedding", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32, help="of all ranks together")
    parser.add_argument("--rate", type=float, default=1.0)
    parser.add_argument("--identities", type=int, nargs="+", default=[1_000, 100_000, 400_000])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks for the memory")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--what", help=argparse.SUPPRESS)
    parser.add_argument("--people", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
