"""What waiting threads cost a training on a shared machine: policies and thread counts, alone and beside others.

    python benchmarks/busy_machine.py --rounds 5 --json out.json

One process for each setting of libgomp (the OpenMP runtime that PyTorch's CPU build brings) holds a training of the
demonstration's network and faces with the gate open. They take their steps in turns, one at a time, alone and beside
one and two processes that only count, so that a machine which is busy for a while slows all of them; ratios are medians
over rounds of a round's own ratios. What else ran is measured too (Linux): the share of all cores that neither the
step nor our busy processes took. With ``--idle S`` a step taken alone waits up to S seconds for an idle machine.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SETTINGS: dict[str, dict[str, str]] = {
    # 300,000 is what libgomp takes where nothing is set; named here, lest the package's own choice come in.
    "default, 2 threads": {"GOMP_SPINCOUNT": "300000", "OMP_NUM_THREADS": "2"},
    "10,000 spins, 2 threads": {"GOMP_SPINCOUNT": "10000", "OMP_NUM_THREADS": "2"},
    "passive, 2 threads": {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "2"},
    "1 thread": {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"},
}
BASE = "default, 2 threads"
CORES = os.cpu_count() or 1
POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
IDLE = 0.05
"""The share of all cores below which nobody else is said to compute."""


def train() -> None:
    """In a process of its own: a training step for each line read, answered with its wall and CPU seconds."""
    from steadface.training.assembly.faces import make_loader, open_recipe_faces
    from steadface.training.assembly.trainer import assemble
    from steadface.training.compute import resolve_compute
    from steadface.training.recipe import load_recipe
    from steadface.training.recipe.recipe import recipe_path

    changed = ("data.synthetic.people=8", "data.synthetic.images_per_person=4", "data.validation=0", "data.batch=16")
    recipe = load_recipe(recipe_path(Path("demo")), [*changed, "method.gate.kind=always", "run.device=cpu"])
    faces, compute = open_recipe_faces(recipe), resolve_compute(recipe.run)
    parts = assemble(recipe, faces, compute, fresh=True)
    with contextlib.closing(make_loader(recipe, faces.training, compute.device).batches()) as batches:
        for batch in batches:
            if not sys.stdin.readline():
                return
            began, used = time.perf_counter(), time.process_time()
            parts.trainer.step(batch)
            print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}), flush=True)


class Training:
    """A process that trains under a setting, one step at a time."""

    def __init__(self, setting: dict[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in POLICY}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--train"],
            env={**clean, **setting},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self) -> dict[str, float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, float] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextlib.contextmanager
def busy(processes: int) -> Iterator[list[int]]:
    """So many processes that compute without a pause, each on one thread; their ids."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()


def used_by_all() -> float | None:
    """CPU seconds that all programs have taken since the machine started; None where the system does not say."""
    try:
        user, nice, system = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4])
    except (OSError, ValueError):
        return None
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def used_by(pids: list[int]) -> float:
    """CPU seconds that these processes have taken."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids)
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def wait_for_idle(seconds: float) -> None:
    """Returns when nobody computes, or after so many seconds."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        before, began = used_by_all(), time.perf_counter()
        time.sleep(0.3)
        after = used_by_all()
        if before is None or after is None or after - before < IDLE * (time.perf_counter() - began) * CORES:
            return


def measured(training: Training, pids: list[int]) -> dict[str, float | None]:
    """A step, and the share of all cores that went to programs which are not ours meanwhile."""
    began, all_before, ours_before = time.perf_counter(), used_by_all(), used_by(pids) if pids else 0.0
    step = training.step()
    wall, all_after = time.perf_counter() - began, used_by_all()
    others = None
    if all_before is not None and all_after is not None:
        ours = (used_by(pids) if pids else 0.0) - ours_before + step["cpu"]
        others = max(0.0, all_after - all_before - ours) / (wall * CORES)
    return {**step, "others": others}


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each step: who, beside how many, in which round, how long, what share others had."""
    trainings = {name: Training(setting) for name, setting in SETTINGS.items()}
    rows: list[dict[str, Any]] = []
    try:
        for training in trainings.values():
            training.step()  # the first is slower
        for round_, beside in itertools.product(range(options.rounds), options.beside):
            with busy(beside) as pids:
                for name, training in trainings.items():
                    if not beside:
                        wait_for_idle(options.idle)
                    row = {"setting": name, "beside": beside, "round": round_, **measured(training, pids)}
                    rows.append(row)
                    print(json.dumps(row), file=sys.stderr, flush=True)
    finally:
        for training in trainings.values():
            training.close()
    return rows


def table(rows: list[dict[str, Any]], images: int) -> str:
    """Images a second and their ratio to the default's of the same rounds, in Markdown."""
    lines = [
        "| beside | setting | images/s | times default | CPU s a step | others' share |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for beside in sorted({row["beside"] for row in rows}):
        base = {row["round"]: row["seconds"] for row in rows if (row["beside"], row["setting"]) == (beside, BASE)}
        for name in SETTINGS:
            taken = [row for row in rows if (row["beside"], row["setting"]) == (beside, name)]
            seconds = statistics.median(row["seconds"] for row in taken)
            ratio = statistics.median(base[row["round"]] / row["seconds"] for row in taken)
            cpu = statistics.median(row["cpu"] for row in taken)
            shares = [row["others"] for row in taken if row["others"] is not None]
            others = f"{statistics.median(shares):.0%}" if shares else "?"
            lines.append(f"| {beside} | {name} | {images / seconds:.1f} | {ratio:.2f} | {cpu:.2f} | {others} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 2], help="busy processes beside the training")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds that a step alone waits for an idle machine")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train()
        return
    rows = measure(options)
    print(table(rows, images=16))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
