import gc
import importlib
import os
from collections.abc import Iterator

import pytest

from steadface.report.fonts import load_matplotlib

# GNU readline, which pytest loads, leaves a terminal's size to the processes of pytest-xdist, and the command's console
# would keep it whatever a test sets later.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)


def pytest_collection_finish() -> None:
    """What is loaded stays: the garbage collector need not go through it again in every test."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are set up but not drawn, which is most of the work for a report; for tests of something else."""
    load_matplotlib()
    canvas = importlib.import_module("matplotlib.backends.backend_svg").FigureCanvasSVG
    monkeypatch.setattr(canvas, "print_svg", lambda _, file, **__: file.write("<svg/>"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these only lose time on several threads; and training sets the number as its recipe says."""
    import torch  # the process that hands out the tests needs none of it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
