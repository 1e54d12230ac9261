"""Hostile inputs, made and tried: what an attacker without a key, and a careless user, give to Steadface.

    .venv/bin/python benchmarks/hostile.py --mutations 20 --seed 0

Each is read in a process of its own, with as much memory and time as `--memory` and `--seconds` say. It is right to
refuse it, with an error that says what is wrong, or to take it where nothing bad follows; anything else is a failure:
another exception, a crash, no end, too much memory, or taking what must be refused. Prints a table by kind, with the
longest and the largest, and then every failure; ends with 1 where there is one.
"""

import argparse
import json
import os
import platform
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for work are not there after a fork

import torch
from rich.console import Console
from rich.table import Table

from hostile_inputs import Hostile, all_inputs
from steadface.errors import SteadfaceError

Outcome = Literal["refused", "taken", "failed"]


@dataclass(frozen=True, kw_only=True)
class Tried:
    """How one input ended: in so many CPU `seconds`, and at most so many `bytes` of memory above the start."""

    kind: str
    name: str
    outcome: Outcome
    why: str
    seconds: float
    bytes: int


def tried(hostile: Hostile, *, memory: int, seconds: int) -> Tried:
    """Reads it in a child of this process, which has everything loaded."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        (Path(folder) / "input").mkdir()
        if not (child := os.fork()):
            try:
                _read(hostile, Path(folder) / "input", answer, memory=memory, seconds=seconds)
            except BaseException:
                Path(f"{answer}.error").write_text(traceback.format_exc())
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not answer.exists():
            code = os.waitstatus_to_exitcode(status)
            if (error := Path(f"{answer}.error")).exists():
                raise RuntimeError(f"{hostile.name} could not be made: {error.read_text()}")
            why = f"no end within {seconds} s" if code == -signal.SIGALRM else f"the process ended with {code}"
            return Tried(kind=hostile.kind, name=hostile.name, outcome="failed", why=why, seconds=seconds, bytes=0)
        return Tried(kind=hostile.kind, name=hostile.name, **json.loads(answer.read_text()))


def _read(hostile: Hostile, folder: Path, answer: Path, *, memory: int, seconds: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    hostile.make(folder)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory counts from here
    before = _kibibytes("VmHWM")
    limit = _kibibytes("VmSize") * 1024 + memory
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    signal.alarm(seconds)
    began = time.process_time()
    outcome, why = _outcome(hostile, folder)
    spent = time.process_time() - began
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    peak = 1024 * max(0, _kibibytes("VmHWM") - before)
    told = {"outcome": outcome, "why": why[:500], "seconds": spent, "bytes": peak}
    partial = answer.with_suffix(".partial")
    partial.write_text(json.dumps(told))
    partial.replace(answer)


def _outcome(hostile: Hostile, folder: Path) -> tuple[Outcome, str]:
    try:
        hostile.read(folder)
    except SteadfaceError as error:
        return "refused", str(error)
    except BaseException as error:
        return "failed", f"{type(error).__name__}: {error}"
    return ("failed", "it was taken, and must be refused") if hostile.refused else ("taken", "")


def _kibibytes(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what))


def table(found: Sequence[Tried]) -> Table:
    """One row for each kind, and their sum."""
    kinds: dict[str, list[Tried]] = defaultdict(list)
    for one in found:
        kinds[one.kind].append(one)
    shown = Table("kind", "tried", "refused", "taken", "failed", "seconds, longest", "MiB, most")
    for name, those in [*kinds.items(), ("all", list(found))]:
        counts = (sum(one.outcome == outcome for one in those) for outcome in ("refused", "taken", "failed"))
        longest, most = max(one.seconds for one in those), max(one.bytes for one in those)
        shown.add_row(name, str(len(those)), *map(str, counts), f"{longest:.1f}", f"{most / 2**20:.0f}")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=20, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0, help="draws the mutations")
    parser.add_argument("--memory", type=int, default=4096, help="MiB above what is loaded")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--only", action="append", help="inputs whose kind or name holds this; may be repeated")
    parser.add_argument("--json", action="store_true", help="each input as a line of JSON, as it is done")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = []
    for hostile in all_inputs(mutations=given.mutations, seed=given.seed):
        if any(part in f"{hostile.kind}: {hostile.name}" for part in given.only or [""]):
            found.append(one := tried(hostile, memory=given.memory * 2**20, seconds=given.seconds))
            if given.json:
                print(json.dumps(asdict(one)), flush=True)
    if not found:
        parser.error("there is no such input")
    failed = [one for one in found if one.outcome == "failed"]
    if not given.json:
        show(found, failed, given.seed)
    sys.exit(bool(failed))


def show(found: Sequence[Tried], failed: Sequence[Tried], seed: int) -> None:
    console = Console(markup=False)
    console.print(table(found))
    console.print(f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, seed {seed}")
    for one in failed:
        console.print(f"FAILED {one.kind}: {one.name!a}: {one.why!a}", soft_wrap=True)


if __name__ == "__main__":
    main()
