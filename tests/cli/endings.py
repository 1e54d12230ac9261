"""Not a test: ends the command in each of the ways that it is asked for, one forked process each."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.text import Text

from steadface.cli import main as command
from steadface.cli.console import console
from steadface.errors import SteadfaceError

from ..forks import end, write_to


def recurse() -> NoReturn:
    recurse()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        time.sleep(1)


def misbehave(kind: str) -> None:
    """Ends as `kind` says."""
    raised: dict[str, BaseException] = {
        "memory": MemoryError(),
        "torch": RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory\nmore"),
        "sqlite": sqlite3.OperationalError("no such table: people"),
        "no room": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out.npz"),
        "long name": OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x" * 300),
        "bug": KeyError("x" * 100_000),
        "user": SteadfaceError("there is no such thing; name another"),
        "no match": typer.Exit(1),
        "sys.exit": SystemExit(3),
    }
    if kind == "recursion":
        recurse()
    if kind == "interrupt":
        interrupt()
    if kind in raised:
        raise raised[kind]
    if kind == "name":
        console.print("enrolled گل‌رخ \udcff")
    if kind == "much":
        for _ in range(100_000):
            typer.echo("a line")
    if kind == "table":
        console.print(Text("a line\n" * 2_000))  # more than a buffer holds


def opened(kind: str, folder: Path, name: str) -> int | None:
    """A descriptor to write to; None for a closed one."""
    if kind == "closed":
        return None
    if kind == "gone":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    return os.open("/dev/full" if kind == "full" else folder / name, os.O_WRONLY | os.O_CREAT)


def become(case: dict[str, Any], folder: Path) -> None:
    """Makes this process one that was started so."""
    outputs = [opened(case.get(name, "file"), folder, name) for name in ("stdout", "stderr")]
    write_to(*outputs, encoding=case.get("encoding", "utf-8"))
    if case.get("folder") == "gone":
        with tempfile.TemporaryDirectory() as gone:
            os.chdir(gone)
    os.environ |= case.get("environment", {})
    sys.argv = ["steadface", *case["words"]]


def run(case: dict[str, Any]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())
    if not (child := os.fork()):
        signal.alarm(60)  # one that hangs is seen as code -14
        become(case, folder)
        end(command.main)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    written = {file.name: file.read_text(errors="replace") for file in folder.iterdir()}
    shutil.rmtree(folder)
    return {"code": code, "stdout": "", "stderr": "", **written}


def run_all(cases: list[dict[str, Any]]) -> None:
    """Prints JSON: for each case its exit code and what it wrote on either side.

    A case is {"words": [...], "stdout": ..., "stderr": ...}.
    """
    command.app.command("misbehave")(misbehave)
    print(json.dumps([run(case) for case in cases]))
