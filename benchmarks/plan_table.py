"""What fits into small GPUs: the most faces a step, by the formulas of `steadface plan`.

    python benchmarks/plan_table.py

One GPU, float32 weights, SGD with momentum, ArcFace over all identities. `-`: not even two faces fit.
"""

import argparse
from typing import Any

from steadface.backbones import Architecture
from steadface.training.planning.activations import Network, traced
from steadface.training.planning.memory import GIB, memory_of
from steadface.training.planning.plan import largest_batch
from steadface.training.planning.workload import Workload

MOST = 4096
KINDS: dict[str, dict[str, Any]] = {
    "clean": {},
    "clean, recomputed": {"recompute": True},
    "open": {"duty": 1.0},
    "open, recomputed": {"duty": 1.0, "recompute": True},
}


def faces(workload: Workload, network: Network, available: int) -> str:
    most = largest_batch(workload, lambda other: memory_of(other, network).total <= available)
    return "-" if most is None else f"{most:,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["mobilefacenet", "iresnet18", "iresnet50", "iresnet100"])
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--identities", type=int, default=100_000)
    parser.add_argument("--gib", type=float, nargs="+", default=[4, 8, 16, 24])
    options = parser.parse_args()
    print(f"| backbone | step | {' | '.join(f'{gib:g} GB' for gib in options.gib)} |")
    print("|---|---|" + "---:|" * len(options.gib))
    for name in options.backbones:
        architecture = Architecture(name=name)
        network = traced(architecture, options.precision)
        for kind, given in KINDS.items():
            workload = Workload(
                architecture=architecture,
                identities=options.identities,
                batch=MOST,
                precision=options.precision,
                **given,
            )
            cells = [faces(workload, network, int(gib * GIB)) for gib in options.gib]
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
