"""Whatever happens, the command ends with its documented exit code and one clean line, never with "no match"."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import steadface

from ..forks import Forks
from .endings import run_all

UNFORESEEN = "a fault of the program or the machine; STEADFACE_DEBUG=1 shows where"

CASES: dict[str, tuple[dict[str, Any], int, str]] = {
    "a user's error": ({"words": ["misbehave", "user"]}, 2, "error: there is no such thing; name another"),
    "wrong usage": ({"words": ["fly"]}, 2, "No such command 'fly'"),
    "no match": ({"words": ["misbehave", "no match"]}, 1, ""),
    "nothing wrong": ({"words": ["misbehave", "nothing"]}, 0, ""),
    "help": ({"words": ["--help"]}, 0, ""),
    "a bug": ({"words": ["misbehave", "bug"]}, 70, UNFORESEEN),
    "no memory": ({"words": ["misbehave", "memory"]}, 70, "error: unforeseen MemoryError (a fault"),
    "no memory in torch": ({"words": ["misbehave", "torch"]}, 70, "unforeseen RuntimeError: [enforce fail"),
    "too deep": ({"words": ["misbehave", "recursion"]}, 70, "unforeseen RecursionError"),
    "sqlite": ({"words": ["misbehave", "sqlite"]}, 70, "unforeseen OperationalError: no such table"),
    "a full disk": (
        {"words": ["misbehave", "no room"]},
        2,
        "no room for the output (No space left on device, out.npz)",
    ),
    "a name that is too long": ({"words": ["misbehave", "long name"]}, 2, "cannot be used: File name too long"),
    "Ctrl-C": ({"words": ["misbehave", "interrupt"]}, 130, "error: interrupted"),
    "sys.exit": ({"words": ["misbehave", "sys.exit"]}, 3, ""),
    "stdout closed": ({"words": ["misbehave", "name"], "stdout": "closed"}, 2, "standard output is closed"),
    "stdout full, flushed late": ({"words": ["misbehave", "name"], "stdout": "full"}, 2, "no room for the output"),
    "stdout full, much": ({"words": ["misbehave", "much"], "stdout": "full"}, 2, "no room for the output"),
    "stdout full, table": ({"words": ["misbehave", "table"], "stdout": "full"}, 2, "no room for the output"),
    "stdout full, help": ({"words": ["--help"], "stdout": "full"}, 2, "no room for the output"),
    "reader gone": ({"words": ["misbehave", "name"], "stdout": "gone"}, 141, "whoever read the output has left"),
    "reader gone, much": ({"words": ["misbehave", "much"], "stdout": "gone"}, 141, "whoever read the output has left"),
    "reader gone, table": (
        {"words": ["misbehave", "table"], "stdout": "gone"},
        141,
        "whoever read the output has left",
    ),
    "reader gone, help": ({"words": ["--help"], "stdout": "gone"}, 141, "whoever read the output has left"),
    "stderr closed": ({"words": ["misbehave", "user"], "stderr": "closed"}, 2, ""),
    "stderr full": ({"words": ["misbehave", "user"], "stderr": "full"}, 2, ""),
    "stderr gone": ({"words": ["misbehave", "bug"], "stderr": "gone"}, 70, ""),
    "both full": ({"words": ["misbehave", "much"], "stdout": "full", "stderr": "full"}, 2, ""),
    "a name in ascii": ({"words": ["misbehave", "name"], "encoding": "ascii"}, 0, ""),
    "a name that is no Unicode": ({"words": ["misbehave", "name"]}, 0, ""),
    "a folder that is gone": ({"words": ["--help"], "folder": "gone"}, 2, "is not there any more; change to another"),
    "with its traceback": ({"words": ["misbehave", "bug"], "environment": {"STEADFACE_DEBUG": "1"}}, 70, UNFORESEEN),
}


@pytest.fixture(scope="module")
def endings(in_a_fork: Forks) -> dict[str, dict[str, Any]]:
    """How each of the cases ended."""
    done = in_a_fork(run_all, [case for case, _, _ in CASES.values()], environment={"COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_every_ending_has_its_code_and_one_line(endings: dict[str, dict[str, Any]], name: str) -> None:
    case, code, line = CASES[name]
    found = endings[name]
    assert found["code"] == code, found
    assert line in found["stderr"]
    if "environment" not in case:
        assert "Traceback" not in found["stdout"] + found["stderr"]
        assert len(found["stderr"]) < 2000
        assert found["stderr"].count("\n") == bool(found["stderr"])


def test_a_traceback_is_shown_only_where_it_is_asked_for(endings: dict[str, dict[str, Any]]) -> None:
    assert "Traceback" in endings["with its traceback"]["stderr"]


def test_a_name_that_the_terminal_cannot_show_is_written_otherwise(endings: dict[str, dict[str, Any]]) -> None:
    assert "enrolled \\u06af\\u0644" in endings["a name in ascii"]["stdout"]
    assert "گل" in endings["a name that is no Unicode"]["stdout"]
    assert "\\udcff" in endings["a name that is no Unicode"]["stdout"]


@pytest.mark.parametrize("closed", [False, True])
def test_a_module_that_hides_one_of_ours_is_not_no_match(tmp_path: Path, closed: bool) -> None:
    """`python -m` looks for modules in the current folder first."""
    (tmp_path / "rich.py").write_text("raise RuntimeError('mine')")
    source = str(Path(steadface.__file__).parents[1])
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -m steadface --version' + " 2>&-" * closed, sys.executable],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.count("\n") == (not closed)
    assert closed or "cannot start: RuntimeError: mine in " + str(tmp_path / "rich.py") in done.stderr
