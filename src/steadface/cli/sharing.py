"""Whether other programs take the cores that a training wants, for the line that the person watching it sees.

    lost = max(0, others + wanted - cores) / wanted      all in cores, over the last seconds

where `others` is what the machine computed less what this process and its children did, and `cores` are those that the
process may run on: on a large machine others may take what nobody here would have used.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from steadface.machine import allowed_cores

WINDOW = 5.0
"""Seconds that a share is taken over: the kernel counts in hundredths, and a step may take a second or two."""
SAID_FROM, SAID_TO = 0.2, 0.1
"""The shares from which and down to which a machine counts as shared: two, so that the note does not flicker."""

Stat = Callable[[], "Used | None"]


@dataclass(frozen=True, kw_only=True)
class Used:
    """Seconds of CPU time that were used up to a moment: by everybody on our cores, and by us wherever."""

    at: float
    everybody: float
    us: float


class Sharing:
    """What others take of the machine, looked at every few seconds; says nothing where the system does not tell."""

    def __init__(self, stat: Stat | None = None, *, cores: int | None = None) -> None:
        self._stat = stat or used
        self._cores = cores or len(allowed_cores())
        self._before = self._stat()
        self._lost = 0.0
        self._shared = False

    def note(self, wanted: int) -> str:
        """``machine shared: 40 % of 2 cores to others`` for a process with ``wanted`` busy threads, or nothing."""
        now = self._stat()
        if now is not None and self._before is not None and now.at - self._before.at >= WINDOW:
            wanted = min(wanted, self._cores)
            self._lost = lost(self._before, now, cores=self._cores, wanted=wanted)
            self._shared = self._lost >= (SAID_TO if self._shared else SAID_FROM)
            self._before = now
        return f"machine shared: {self._lost:.0%} of {wanted} cores to others" if self._shared else ""


def lost(before: Used, now: Used, *, cores: int, wanted: int) -> float:
    """The share in [0, 1] of the ``wanted`` cores that others had between two moments."""
    others = (now.everybody - before.everybody - (now.us - before.us)) / (now.at - before.at)
    return min(1.0, max(0.0, others + wanted - cores) / wanted)


def used(proc: Path = Path("/proc")) -> Used | None:
    """Up to now; None where the system does not say (anywhere but on Linux)."""
    try:
        everybody = _ticks_of_cores((proc / "stat").read_text())
        us = _ticks_of_family(proc, os.getpid())
        return Used(at=time.monotonic(), everybody=everybody / _per_second(), us=us / _per_second())
    except (OSError, ValueError, IndexError):
        return None


def _per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _ticks_of_cores(stat: str) -> int:
    """Of all programs on the cores that we may run on, and of what the host of a virtual machine took from them."""
    rows = (line.split() for line in stat.splitlines() if line.startswith("cpu"))
    ours = {f"cpu{number}" for number in allowed_cores()}
    # user, nice, system, (idle, iowait,) irq, softirq, steal
    return sum(sum(map(int, row[1:4])) + sum(map(int, row[6:9])) for row in rows if row[0] in ours)


def _ticks_of_family(proc: Path, root: int) -> int:
    """Of a process and its descendants, with those that have ended and been waited for."""
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append(int(folder.name))
        ticks[int(folder.name)] = sum(map(int, fields[11:15]))  # user and system, of itself and of children waited for
    family = [root]
    for process in family:
        family += children.get(process, [])
    return sum(ticks.get(process, 0) for process in family)
