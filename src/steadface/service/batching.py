"""One model for many requests: what they ask it for at about the same time goes through it at once.

While the model is at work, faces wait; then all that wait, up to a batch, are the next batch. Nothing waits for others
to come: a single caller is answered as fast as without, and the more callers there are the larger the batches become.
All of the work is done in one thread: every thread that calls torch has a team of threads and memory of its own.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TooLate
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from steadface.errors import Unavailable
from steadface.recognizers.embedder import Embedder, Faces

Embeddings = NDArray[np.float32]

BATCH = 64
"""Faces of a batch."""
PATIENCE = 30.0
"""Seconds that somebody waits for their faces."""


@dataclass(frozen=True)
class _Asked:
    faces: Faces
    answer: "Future[Embeddings]" = field(default_factory=Future)


class SharedEmbedder:
    """An `Embedder` for many threads at once. `observe` is told of the size of each batch, in faces."""

    def __init__(
        self,
        embedder: Embedder,
        *,
        most: int = BATCH,
        patience: float = PATIENCE,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.size = embedder.size
        self._embedder, self._most, self._patience, self._observe = embedder, most, patience, observe
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="embedder", daemon=True)
        self._thread.start()

    def __call__(self, faces: Faces) -> Embeddings:
        """Raises what the embedder raises for these faces, and `Unavailable` where they waited too long."""
        asked = _Asked(faces)
        self._asked.put(asked)
        try:
            return asked.answer.result(self._patience)
        except TooLate:
            asked.answer.cancel()
            raise Unavailable(
                f"the model did not come to these faces within {self._patience:g} s; ask again later, or ask less"
            ) from None

    @property
    def waiting(self) -> int:
        """How many callers' faces wait."""
        return self._asked.qsize()

    def close(self) -> None:
        """Ends the thread, once all that was asked for is answered."""
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._asked.get()) is not None:
            batch, faces = [first], len(first.faces)
            with suppress(queue.Empty):
                while faces < self._most:
                    another = self._asked.get_nowait()
                    if another is None:
                        self._asked.put(None)
                        break
                    batch.append(another)
                    faces += len(another.faces)
            self._answer([asked for asked in batch if asked.answer.set_running_or_notify_cancel()])

    def _answer(self, batch: list[_Asked]) -> None:
        """All at once; where that fails, one by one, so that nobody's faces are refused for another's."""
        if not batch:
            return
        try:
            self._observe(sum(len(asked.faces) for asked in batch))
            found = self._embedder(np.concatenate([asked.faces for asked in batch]))
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for asked in batch:
                self._answer([asked])
            return
        ends = np.cumsum([len(asked.faces) for asked in batch])[:-1]
        for asked, part in zip(batch, np.split(found, ends), strict=True):
            asked.answer.set_result(part)
