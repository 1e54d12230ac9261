"""Embeddings of any number of pictures under Ray Data: every worker makes whole parts of one folder that all can see.

    pip install 'steadface[ray]'
    python examples/embed_with_ray.py PICTURES MODEL FOLDER --workers 8 [--aligned] [--device cuda]

What is there already is not made again: run the same after whatever has gone wrong. Ray itself makes a part anew whose
worker was lost.
"""

import argparse
from pathlib import Path
from typing import Any

import ray

from steadface.workflows.embed_parts import open_job


class Worker:
    """Opens listing and model once, then makes one part after the other."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.job = open_job(**given)

    def __call__(self, row: dict[str, int]) -> dict[str, int]:
        self.job.embed(row["part"])
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", type=lambda path: [Path(path)], metavar="PICTURES")
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--aligned", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--part-size", type=int)
    parser.add_argument("--workers", type=int, default=2)
    given = vars(parser.parse_args())
    workers = given.pop("workers")
    job = open_job(**given)
    missing = [{"part": part} for part in job.found(range(job.manifest.parts)).missing]
    print(f"{len(missing)} of {job.manifest.parts} parts are missing", flush=True)
    if missing:
        pool, gpus = ray.data.ActorPoolStrategy(size=workers), int(given["device"] != "cpu")
        parts = ray.data.from_items(missing, override_num_blocks=len(missing))
        for row in parts.map(Worker, fn_constructor_args=[given], compute=pool, num_gpus=gpus).iter_rows():
            print(job.manifest.name(row["part"]), flush=True)


if __name__ == "__main__":
    main()
