"""One model for many: what waits while it is at work goes through it at once, and everybody gets their own."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from steadface.errors import InvalidInput, Unavailable
from steadface.service.batching import SharedEmbedder


class Slow:
    """Gives back the first pixel of each face; waits, where it is told to, once it has begun."""

    size = (2, 2)

    def __init__(self) -> None:
        self.begun, self.leave = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        self.begun.release()
        assert self.leave.acquire(timeout=60)
        if (faces == 255).any():
            raise InvalidInput("a face that is none")
        return faces[:, 0, 0, :1].astype(np.float32)


def face(value: int, count: int = 1) -> np.ndarray:
    return np.full((count, 2, 2, 3), value, dtype=np.uint8)


@pytest.mark.parametrize("most", [64, 3])
def test_what_waits_is_one_batch(most: int) -> None:
    slow, sizes = Slow(), list[int]()
    shared = SharedEmbedder(slow, most=most, observe=sizes.append)
    with ThreadPoolExecutor(8) as callers:
        first = callers.submit(shared, face(1))
        assert slow.begun.acquire(timeout=60)
        others = [callers.submit(shared, face(value, count=2)) for value in range(2, 6)]
        while shared.waiting < 4:
            time.sleep(0.001)
        slow.leave.release(9)
        assert first.result().tolist() == [[1]]
        assert [other.result().tolist() for other in others] == [[[value]] * 2 for value in range(2, 6)]
    assert sizes == ([1, 8] if most == 64 else [1, 4, 4])
    shared.close()


def test_nobody_is_refused_for_anothers_face() -> None:
    slow = Slow()
    shared = SharedEmbedder(slow)
    slow.leave.release(9)
    with ThreadPoolExecutor(4) as callers:
        slow.leave = threading.Semaphore(0)
        first = callers.submit(shared, face(0))
        assert slow.begun.acquire(timeout=60)
        bad, good = callers.submit(shared, face(255)), callers.submit(shared, face(7))
        while shared.waiting < 2:
            time.sleep(0.001)
        slow.leave.release(9)
        assert first.result().tolist() == [[0]]
        assert good.result().tolist() == [[7]]
        with pytest.raises(InvalidInput):
            bad.result()
    shared.close()


def test_whoever_waits_too_long_is_told_so_and_harms_nobody() -> None:
    slow = Slow()
    shared = SharedEmbedder(slow, patience=0.05)
    with pytest.raises(Unavailable, match="did not come"):
        shared(face(1))
    slow.leave.release(9)
    shared = SharedEmbedder(slow)
    assert shared(face(2)).tolist() == [[2]]
    shared.close()
