from collections.abc import Callable

import pytest
import torch

from steadface.heads import ArcFace


@pytest.fixture
def make_head() -> Callable[[], ArcFace]:
    """A head of 6 identities and 8 dimensions."""
    return lambda: ArcFace(6, 8, s=16.0, m=0.2, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def seeded() -> Callable[[int], torch.Generator]:
    return lambda seed: torch.Generator().manual_seed(seed)
