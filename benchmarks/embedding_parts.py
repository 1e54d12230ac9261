"""How fast `steadface embed` makes parts with one worker and with two, and what a kill costs.

    OMP_NUM_THREADS=1 python benchmarks/embedding_parts.py FACES MODEL --part-size 256 --parts 8 --seed 0

FACES is a folder of aligned faces per person. So many parts of it, drawn by the seed, are embedded in processes of
`steadface embed` into new folders: by one, by two at once, and by one that is killed (SIGKILL) at a moment drawn by the
seed and started again. Python's start and the opening of the model lie before the first part, so that the speed is told
with them and behind it. A kill costs the time of what was done of its part, and a start. CPU seconds, of all workers
with their starts, are nearly the same on a machine that is busy with other things.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def command(options: argparse.Namespace, faces: Path, out: Path, shard: str) -> "subprocess.Popen[str]":
    words = [faces, "--model", options.model, "--aligned", "--out", out, "--part-size", options.part_size]
    words += ["--threads", options.threads, "--shard", shard, "--json"]
    line = [sys.executable, "-m", "steadface", "embed", *map(str, words)]
    return subprocess.Popen(line, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def parts_in(folder: Path) -> int:
    return len(list(folder.glob("part-*.parquet")))


def wait_for(folder: Path, parts: int, *workers: "subprocess.Popen[str]") -> float:
    """When that many are there."""
    while parts_in(folder) < parts:
        if all(one.poll() is not None for one in workers) and parts_in(folder) < parts:
            raise SystemExit("the workers have ended before")
        time.sleep(0.01)
    return time.perf_counter()


def cpu() -> float:
    """Seconds of those workers that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(options: argparse.Namespace, faces: Path, workers: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as out:
        began, before = time.perf_counter(), cpu()
        started = [command(options, faces, Path(out), f"{number}/{workers}") for number in range(1, workers + 1)]
        first = wait_for(Path(out), 1, *started)
        ended = wait_for(Path(out), options.parts, *started)
        for one in started:
            one.communicate()
        return {
            "workers": workers,
            "images/s, start included": options.parts * options.part_size / (ended - began),
            "images/s behind the first part": (options.parts - 1) * options.part_size / (ended - first),
            "seconds until the first part": first - began,
            "seconds": ended - began,
            "CPU seconds": cpu() - before,
        }


def killed(options: argparse.Namespace, faces: Path, random: np.random.Generator, whole: dict[str, float]) -> object:
    with tempfile.TemporaryDirectory() as out:
        began, before = time.perf_counter(), cpu()
        one = command(options, faces, Path(out), "1/1")
        wait_for(Path(out), options.parts // 2, one)
        time.sleep(random.random() * options.part_size / whole["images/s behind the first part"])
        one.send_signal(signal.SIGKILL)
        one.wait()
        there = parts_in(Path(out))
        again = command(options, faces, Path(out), "1/1")
        told = json.loads(again.communicate()[0])
        seconds = time.perf_counter() - began
        return {
            "parts there when killed": there,
            "made anew": told["made"],
            "missing in the end": len(told["missing"]),
            "seconds": seconds,
            "more than without a kill": seconds - whole["seconds"],
            "CPU seconds more": cpu() - before - whole["CPU seconds"],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--part-size", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    files = sorted(options.faces.glob("*/*"))
    with tempfile.TemporaryDirectory() as folder:
        for place in sorted(random.choice(len(files), options.parts * options.part_size, replace=False)):
            file = files[place]
            person = Path(folder, file.parent.name)
            person.mkdir(exist_ok=True)
            (person / file.name).symlink_to(file.resolve())
        for _ in range(options.repeats):
            one = run(options, Path(folder), 1)
            print(json.dumps(one), flush=True)
            print(json.dumps(run(options, Path(folder), 2)), flush=True)
            print(json.dumps(killed(options, Path(folder), random, one)), flush=True)


if __name__ == "__main__":
    main()
