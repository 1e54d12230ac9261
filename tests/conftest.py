import os
from collections.abc import Iterator

import pytest
import torch

# GNU readline, which pytest loads, leaves a terminal's size to the processes of pytest-xdist, and the command's console
# would keep it whatever a test sets later.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these only lose time on several threads; and training sets the number as its recipe says."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
