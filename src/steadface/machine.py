"""The cores that this process may use, and how its threads wait for each other on them.

OpenMP's threads spin while they wait, some milliseconds each time, before they sleep. On cores of their own that saves
the waking; on shared ones they burn what the thread that they wait for could have used (`docs/performance.md` has
both measured). The runtime that comes with PyTorch, libgomp in the builds for CPUs on Linux, decides once, when it is
loaded.
"""

import math
import os
import sys
from pathlib import Path

from steadface.errors import Conflict

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Setting one of these is a choice made: libgomp reads the first two, Intel's and LLVM's libomp first and last."""


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
