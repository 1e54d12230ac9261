from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _threads_kept() -> Iterator[None]:
    """Training sets the number of threads as its recipe says; the next test gets its own back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
