import gc
import importlib
import logging
import os
from collections.abc import Generator, Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from steadface.report.fonts import load_matplotlib

if TYPE_CHECKING:
    from .forks import Forks
    from .postgres_server import Server

gc.disable()  # until all is loaded that stays

# GNU readline, which pytest loads, leaves a terminal's size to the processes of pytest-xdist, and the command's console
# would keep it whatever a test sets later.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)


_forks = pytest.StashKey["Forks"]()


def pytest_collection_finish() -> None:
    """What is loaded stays: the garbage collector need not go through it again in every test. And pytest need not lend
    its handlers, six times in each, to the dozens of loggers that torch keeps apart from the root, which has them.
    """
    for name, logger in logging.root.manager.loggerDict.items():
        if name.partition(".")[0] == "torch" and isinstance(logger, logging.Logger):
            logger.propagate = True
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)  # in place of 700; what tests leave in cycles is small
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Where a test asks for it, this process is put by before the first one runs; see `forks.py`."""
    if any("in_a_fork" in getattr(item, "fixturenames", ()) for item in session.items):
        from .forks import Forks

        session.stash[_forks] = Forks()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if forks := session.stash.get(_forks, None):
        forks.close()


@pytest.fixture(scope="session")
def in_a_fork(request: pytest.FixtureRequest) -> "Forks":
    """Calls a function in a process of its own, which takes it a few milliseconds to begin."""
    return request.session.stash[_forks]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are set up but not drawn, which is most of the work for a report; for tests of something else."""
    load_matplotlib()
    canvas = importlib.import_module("matplotlib.backends.backend_svg").FigureCanvasSVG
    monkeypatch.setattr(canvas, "print_svg", lambda _, file, **__: file.write("<svg/>"))
    monkeypatch.setattr("matplotlib.figure.Figure.findobj", lambda *_: [])  # makes the ticks, which are most of it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Networks as small as these only lose time on several threads; and training sets the number as its recipe says."""
    import torch  # the process that hands out the tests needs none of it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return (yield)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Server]":
    """A server that is started when a test first asks for it."""
    needed = "Debian's package postgresql" if find_spec("psycopg") else "steadface[postgres]"
    found = None
    if find_spec("psycopg") is not None:
        from .postgres_server import Server, programs

        found = programs()
    if found is None:
        pytest.skip(f"there is no PostgreSQL to try it with; install {needed}")
    server = Server(found)
    try:
        yield server
    finally:
        server.remove()
