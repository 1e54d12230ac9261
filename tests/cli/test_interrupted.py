"""Ctrl-C before a command has begun: one line, its exit code, and nothing of what it was in the midst of."""

import subprocess
import sys
from pathlib import Path

import pytest

from ..forks import Ended, Forks

PRESSED = """
import os, signal, sys

place = sys.argv.pop(1)

class Press:
    def find_spec(self, name, *_):
        if name == place:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
sys.meta_path.insert(0, Press())
from steadface.__main__ import main
main()
"""


def run(*words: str) -> Ended:
    return subprocess.run([sys.executable, "-c", PRESSED, *words], capture_output=True, text=True, check=False)


def run_where_torch_is_loaded(place: str, *words: str) -> None:
    """In a process of its own."""
    sys.modules.pop(place, None)
    sys.argv = ["-c", place, *words]
    exec(PRESSED, {})


@pytest.mark.parametrize("place", ["typer", "numpy", "torch._C", "steadface.workflows.train"])
def test_ctrl_c_while_modules_are_imported(in_a_fork: Forks, tmp_path: Path, place: str) -> None:
    words = (place, "resume", str(tmp_path / "run"))
    done = in_a_fork(run_where_torch_is_loaded, *words) if place.startswith("steadface") else run(*words)
    assert (done.returncode, done.stderr, done.stdout) == (130, "error: interrupted\n", "")
    assert not list(tmp_path.iterdir())


AFTERWARDS = """
import signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)
from steadface import __main__
sys.argv = ["steadface", "--version"]
def late():
    threading.main_thread().join()
    signal.raise_signal(signal.SIGINT)
threading.Thread(target=late).start()
__main__.main()
"""


def test_ctrl_c_when_all_is_said_shows_no_traceback() -> None:
    done = subprocess.run([sys.executable, "-c", AFTERWARDS], capture_output=True, text=True, check=False)
    assert "steadface " in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
