"""Which cores may be used, and that the choice of how threads wait is the user's first."""

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from steadface.errors import SteadfaceError
from steadface.machine import allowed_cores, share_cores, usable_cores

OLD = "cpu__cpu_dot_cfs"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def groups(root: Path, lines: str, **files: str) -> Path:
    """A file system that says so; ``files`` are named with ``__`` for ``/`` and ``_dot_`` for ``.``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steadface.machine.allowed_cores", lambda: frozenset(range(16)))


@pytest.mark.usefixtures("sixteen")
@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("0::/\n", {"cpu_dot_max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu_dot_max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu_dot_max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu_dot_max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu_dot_max": "6400000 100000\n"}, 16),
        ("0::/\n", {"cpu_dot_max": "nonsense\n"}, 16),
        ("0::/\n", {}, 16),
        ("0::/pod/job\n", {"pod__job__cpu_dot_max": "max 100000", "pod__cpu_dot_max": "300000 100000"}, 3),
        ("4:cpu,cpuacct:/docker/x\n", {f"{OLD}_quota_us": "400000\n", f"{OLD}_period_us": "100000\n"}, 4),
        ("4:cpu,cpuacct:/\n", {f"{OLD}_quota_us": "-1\n", f"{OLD}_period_us": "100000\n"}, 16),
        ("4:cpuset:/\n3:memory:/\n", {f"{OLD}_quota_us": "100000", f"{OLD}_period_us": "100000"}, 16),
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, lines: str, files: dict[str, str], cores: int) -> None:
    assert usable_cores(groups(tmp_path, lines, **files)) == cores


@pytest.mark.usefixtures("sixteen")
def test_without_control_groups_all_allowed_cores_are_usable(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 16


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_affinity_counts() -> None:
    one = min(os.sched_getaffinity(0))
    code = "from steadface.machine import allowed_cores, usable_cores; print(sorted(allowed_cores()), usable_cores())"
    said = python(code, before=lambda: os.sched_setaffinity(0, {one}))
    assert said == f"[{one}] 1"
    assert allowed_cores() == os.sched_getaffinity(0)


Done = subprocess.CompletedProcess[str]
CHOSEN = f"import os; print({{name: os.environ[name] for name in {WAITING} if name in os.environ}})"


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ({}, {"OMP_WAIT_POLICY": "passive"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"KMP_BLOCKTIME": "9"}, {"KMP_BLOCKTIME": "9"}),
    ],
)
def test_threads_sleep_while_they_wait_unless_the_user_says_otherwise(
    given: dict[str, str], chosen: dict[str, str]
) -> None:
    assert python(f"from steadface.machine import share_cores; share_cores(); {CHOSEN}", **given) == str(chosen)


def test_a_quota_bounds_the_threads_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr("steadface.machine.usable_cores", lambda: 3)
    monkeypatch.setattr("steadface.machine.allowed_cores", lambda: frozenset(range(16)))
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    share_cores()
    assert os.environ["OMP_NUM_THREADS"] == "5"
    monkeypatch.delenv("OMP_NUM_THREADS")
    share_cores()
    assert os.environ["OMP_NUM_THREADS"] == "3"


def test_once_torch_is_loaded_it_is_too_late_and_said() -> None:
    assert "torch" in sys.modules
    with pytest.raises(SteadfaceError, match="before torch is imported"):
        share_cores()


FRESH = """
import ctypes, resource
import numpy as np
from steadface.machine import keep_memory
keep_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24, np.float32)  # freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc is told to keep memory"
)
def test_memory_that_was_freed_is_taken_again_without_touching_new_pages() -> None:
    pages = 4 * 2**24 // resource.getpagesize()
    assert int(python(FRESH)) < pages / 100


LOOK = """
import sys
from steadface import machine
class Torch:
    def find_spec(self, name, *_):
        if name == "torch":
            raise SystemExit
sys.meta_path.insert(0, Torch())
machine.share_cores = lambda: print("torch" in sys.modules)
sys.argv = ["steadface", "train", "--help"]
from steadface.__main__ import main
main()
print("torch is not needed at all")
"""


def test_the_command_chooses_before_torch_is_loaded() -> None:
    assert python(LOOK) == "False"


@pytest.mark.skipif(sys.platform != "linux", reason="reads what libgomp says of itself")
def test_libgomp_takes_what_was_chosen() -> None:
    libraries = Path(find_spec("torch").origin).parent.joinpath("lib").glob("libgomp*")  # type: ignore[union-attr, arg-type]
    load = "".join(f"import ctypes; ctypes.CDLL({str(library)!r})\n" for library in libraries)
    done = run(f"from steadface.machine import share_cores; share_cores()\n{load}", OMP_DISPLAY_ENV="verbose")
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this build of torch brings another OpenMP runtime")
    assert "GOMP_SPINCOUNT = '0'" in done.stderr


def python(code: str, **options: Any) -> str:
    return run(code, **options).stdout.strip()


def run(
    code: str, *, before: Callable[[], None] | None = None, **environment: str
) -> "subprocess.CompletedProcess[str]":
    clean = {name: value for name, value in os.environ.items() if name not in (*WAITING, "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        preexec_fn=before,
        capture_output=True,
        text=True,
        check=True,
    )
