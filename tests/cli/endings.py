"""Not a test: imports the command once, then ends in each of the ways that it is asked for, one forked process each.

    python endings.py CASES        CASES: JSON of a list of {"words": [...], "stdout": ..., "stderr": ...}

A fork costs a fraction of importing everything anew. It cannot go through Python's own end, where libraries wait for
threads that a fork does not have, so that what counts of it is done here.

Prints JSON: for each case its exit code and what it wrote on either side.
"""

import errno
import io
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

import torch
import typer
from rich.text import Text

from steadface.cli import main as command
from steadface.cli.console import console
from steadface.errors import SteadfaceError


def recurse() -> NoReturn:
    recurse()


def interrupt() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
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
    for number, name in ((1, "stdout"), (2, "stderr")):
        descriptor = opened(case.get(name, "file"), folder, name)
        if descriptor is None:
            os.close(number)
            setattr(sys, name, None)
            continue
        os.dup2(descriptor, number)
        raw = io.FileIO(number, "w", closefd=False)
        errors = "backslashreplace" if name == "stderr" else "strict"
        encoding = case.get("encoding", "utf-8")
        setattr(sys, name, io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=number == 2))
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[assignment, misc]
    if case.get("folder") == "gone":
        with tempfile.TemporaryDirectory() as gone:
            os.chdir(gone)
    os.environ |= case.get("environment", {})
    sys.argv = ["steadface", *case["words"]]


def python_end(code: Any) -> int:
    """What Python makes of an exit code: 120 where a stream cannot be flushed (`Py_FinalizeEx`)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = 120
    return code or 0


def run(case: dict[str, Any]) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp())
    if not (child := os.fork()):
        signal.alarm(60)  # one that hangs is seen as code -14
        become(case, folder)
        try:
            command.main()
        except SystemExit as end:
            os._exit(python_end(end.code))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    written = {file.name: file.read_text(errors="replace") for file in folder.iterdir()}
    shutil.rmtree(folder)
    return {"code": code, "stdout": "", "stderr": "", **written}


if __name__ == "__main__":
    torch.set_num_threads(1)
    command.app.command("misbehave")(misbehave)
    ended = [run(case) for case in json.loads(sys.argv[1])]
    print(json.dumps(ended))
