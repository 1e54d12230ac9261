"""The cores that this process may use, how its threads wait for each other on them, what other programs take, and that
memory is kept.

OpenMP's threads spin while they wait, some milliseconds each time, before they sleep. On cores of their own that saves
the waking; on shared ones they burn what the thread that they wait for could have used (`docs/performance.md` has
both measured). The runtime that comes with PyTorch, libgomp in the builds for CPUs on Linux, decides once, when it is
loaded.

What a training loses to others, for the line that the person watching it sees:

    lost = max(0, others + wanted - cores) / wanted      all in cores, over the last seconds

where `others` is what the machine computed less what this process and its children did, and `cores` are those that the
process may run on: on a large machine others may take what nobody here would have used.
"""

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from steadface.errors import Conflict

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Setting one of these is a choice made: libgomp reads the first two, Intel's and LLVM's libomp first and last."""

WINDOW = 5.0
"""Seconds that a share is taken over: the kernel counts in hundredths, and a step may take a second or two."""
SAID_FROM, SAID_TO = 0.2, 0.1
"""The shares from which and down to which a machine counts as shared: two, so that the note does not flicker."""

Stat = Callable[[], "Used | None"]


def share_cores() -> None:
    """Lets this process's OpenMP threads sleep while they wait, and starts no more of them than it may use cores.

    Sets `OMP_WAIT_POLICY` (unless the environment says anything about waiting) and, where a container's quota is
    below the number of cores, `OMP_NUM_THREADS` (unless set). The `steadface` command does this by itself; in
    Python call it before anything imports torch. Raises Conflict where torch is there already, and nothing would
    change.
    """
    if "torch" in sys.modules:
        raise Conflict(
            "torch is loaded, and with it how its threads wait is settled: call share_cores() before torch is "
            "imported, or start Python with OMP_WAIT_POLICY=passive in its environment"
        )
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    if (usable := usable_cores()) < len(allowed_cores()):
        os.environ.setdefault("OMP_NUM_THREADS", str(usable))


_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Parameters of `mallopt`, by their numbers in glibc's malloc.h."""
_KEEPING = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
"""Setting one of these is a choice made."""


def keep_memory() -> None:
    """Lets glibc keep what was freed for the arrays to come, where the environment says nothing about that.

    By default it gives every array above 32 MiB back to the system and takes it anew, and the first touch of each page
    costs about as much as the arithmetic on it: a batch's feature maps are such arrays, in every layer of every pass
    (`docs/performance.md`). The process stays as large as it has been. Does nothing on other systems.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _KEEPING):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 2**30)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def usable_cores(root: Path = Path("/")) -> int:
    """How many cores this process may keep busy: those it may run on, or fewer where a container's quota says so.

    A quota of a core and a half is two: two threads get more of it done than one. `root` is where /proc and /sys are.
    """
    quota = min((_quota(folder) for folder in _control_groups(root)), default=math.inf)
    return max(1, min(len(allowed_cores()), math.ceil(quota) if math.isfinite(quota) else sys.maxsize))


def allowed_cores() -> frozenset[int]:
    """The numbers of the cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return frozenset(affinity(0) if affinity else range(os.cpu_count() or 1))


def _control_groups(root: Path) -> list[Path]:
    """The folders of this process's control groups, as far up as they can be seen: every one may set a quota."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 is one hierarchy; of version 1 the one of "cpu", which usually has that name or a link of it.
        top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = top / path.lstrip("/")
        folders += [group, *(above for above in group.parents if above.is_relative_to(top))]
    return folders


def _quota(folder: Path) -> float:
    """In cores; infinite where the group sets none, or cannot be read."""
    try:
        if (both := folder / "cpu.max").exists():
            quota, period = both.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        cores = float(quota) / float(period) if quota != "max" else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
    return cores if cores > 0 else math.inf  # version 1 says -1 for none


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
