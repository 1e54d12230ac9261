"""Processes for what ends or kills them: forks of this one as it was before its first test.

Starting Python anew imports torch for seconds each time. A fork of the process that runs the tests would bring along
what these have left in it, threads and locks among it; so all are forks of one that was put by for it, and knows
nothing but what the modules of the tests import. What imports do needs a new process, and `subprocess`.
"""

import io
import os
import signal
import socket
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Mapping
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NoReturn

import torch

Ended = CompletedProcess[str]
NONE: Mapping[str, str] = {}


class Forks:
    """Calls functions of modules in processes of their own, as `subprocess.run` does programs, one at a time."""

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of newer Pythons: pytest-xdist has a thread
            self._template = os.fork()
        if not self._template:
            self._pipe.close()
            end(_serve, theirs)
        theirs.close()

    def __call__(self, function: Callable[..., object], *words: object, environment: Mapping[str, str] = NONE) -> Ended:
        """How a process ended that called `function` with `words`, and what it wrote on either side."""
        with tempfile.TemporaryDirectory() as folder:
            self._pipe.send((function, words, dict(environment), folder))
            code = self._pipe.recv()
            out, err = (Path(folder, name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return CompletedProcess(function, code, out, err)

    def close(self) -> None:
        self._pipe.close()
        os.waitpid(self._template, 0)


def _serve(pipe: Connection) -> None:
    """Until the process that runs the tests is gone, however it went."""
    torch.set_num_threads(1)  # others would be missing in a fork
    sys.unraisablehook, threading.excepthook = sys.__unraisablehook__, threading.__excepthook__  # not pytest's
    while True:
        try:
            function, words, environment, folder = pipe.recv()
        except EOFError:
            return
        if not (child := os.fork()):
            pipe.close()
            os.setsid()  # away from the terminal, whose Ctrl-C is for the tests
            signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs these in the background ignores it
            os.environ |= environment
            write_to(*(os.open(Path(folder, name), os.O_WRONLY | os.O_CREAT) for name in ("stdout", "stderr")))
            end(function, *words)
        pipe.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def write_to(*descriptors: int | None, encoding: str = "utf-8") -> None:
    """Makes these the standard output and error of this process; None closes one, as Python has it then."""
    for number, descriptor in enumerate(descriptors, start=1):
        name = ("stdout", "stderr")[number - 1]
        stream = None
        if descriptor is None:
            os.close(number)
        else:
            os.dup2(descriptor, number)
            raw = io.FileIO(number, "w", closefd=False)
            errors = "backslashreplace" if name == "stderr" else "strict"
            stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=name == "stderr")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def end(function: Callable[..., object], *words: object) -> NoReturn:
    """Ends this process as Python would, without its own end, where libraries wait for threads that a fork lacks."""
    code: Any = 0
    try:
        function(*words)
    except SystemExit as given:
        code = given.code
    except BaseException:
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            code = 120  # as `Py_FinalizeEx` has it
    os._exit(code or 0)


def together(size: int, function: Callable[..., object], *words: object) -> None:
    """Calls `function` in so many processes that train together, as torchrun starts them; to be called in a fork.

    Where one fails the others are ended, as torchrun does, and this process ends as that one.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = set[int]()
    for rank in range(size):
        if not (child := os.fork()):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", **{key: str(value) for key, value in numbers.items()}}
            end(function, *words)
        children.add(child)
    while children:
        child, status = os.wait()
        children.discard(child)
        if code := os.waitstatus_to_exitcode(status):
            for other in children:
                os.kill(other, signal.SIGKILL)
            for other in children:
                os.waitpid(other, 0)
            sys.exit(abs(code))
