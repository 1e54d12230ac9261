"""Batches for training: drawn here, decoded and augmented in worker processes, the same at any worker count."""

import itertools
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils import data

from steadface.data.augment import Augmentation
from steadface.data.faces import FaceSource, Image, UnreadableImage, fit_size
from steadface.data.sampling import PersonImages, Sampler
from steadface.errors import InvalidInput, SteadfaceError, short, too_few

ATTEMPTS = 100
"""Images tried in place of an unreadable one before the data set is given up."""

LONGEST_SOCKET = 107 if sys.platform == "linux" else 103
"""Bytes of the path of a UNIX socket: `sun_path` has 108 on Linux and 104 on macOS, the last of them zero."""

_Task = tuple[int, NDArray[np.int64], NDArray[np.int64]]
"""(step, slots (B,) of the batch, indices (B,) of the images there): what a worker is asked for."""
_Result = tuple[Tensor, Tensor, list[str], str]
"""(images uint8 (B, H, W, 3), their indices (B,), a message per image replaced, why it all failed or '')"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`images` (B, 3, H, W) float32 RGB in [0, 1] and `labels` (B,) int64, on the loader's device.

    `unreadable` images were replaced by others of the same people; `messages` says which. `indices` (B,), on the CPU,
    are those of the images in their source, where they have one. Where a loader has some `slots` of the batch alone
    `whole` is how many the batch has.
    """

    images: Tensor
    labels: Tensor
    unreadable: int = 0
    messages: tuple[str, ...] = ()
    whole: int | None = None
    indices: Tensor | None = None


class FaceLoader:
    """Endless batches of a source, of which each depends on (seed, step) and nothing else.

    Neither the number of workers nor the step at which one starts makes a difference, so that a resumed run sees
    what an uninterrupted one would have. Each worker reads `prefetch` batches ahead. `size` is (height, width). With
    `slots` only these images of every batch are read, as they are in the whole one. Raises `SteadfaceError` for a
    source with fewer than two people, and where workers could not hand over what they have read.
    """

    def __init__(
        self,
        source: FaceSource,
        *,
        sampler: Sampler,
        size: tuple[int, int] = (112, 112),
        augmentation: Augmentation | None = None,
        workers: int = 0,
        prefetch: int = 2,
        seed: int = 0,
        device: torch.device | str = "cpu",
        slots: NDArray[np.int64] | None = None,
    ) -> None:
        if len(source.people) < 2:
            raise too_few(
                "people",
                len(source.people),
                2,
                why="training",
                remedy=f"bring a folder of images for each, beside {', '.join(source.people)}",
            )
        if workers < 0 or seed < 0:
            raise InvalidInput(f"workers is {workers} and seed is {seed}; give 0 or more")
        if prefetch < 1:
            raise InvalidInput(f"prefetch is {prefetch}; give 1 or more")
        if workers:
            _check_sockets()
        self.sampler = sampler
        self._labels = source.labels
        self._decoder = _Decoder(source, size, augmentation, seed)
        self._workers, self._prefetch = workers, prefetch
        self._device = torch.device(device)
        self._slots = slots

    def batches(self, start_step: int = 0) -> Generator[Batch, None, None]:
        """Batches of steps start_step, start_step + 1, ... for ever; workers end when the iterator does.

        Raises `SteadfaceError` when not even replacements can be read.
        """
        loader: data.DataLoader[_Result] = data.DataLoader(
            self._decoder,
            sampler=_Tasks(self.sampler, start_step, self._slots),
            batch_size=None,
            num_workers=self._workers,
            prefetch_factor=self._prefetch if self._workers else None,
            collate_fn=_as_is,
            worker_init_fn=_start_worker,
            pin_memory=self._device.type == "cuda",
            # Its own generator: the loader would otherwise draw from torch's global one.
            generator=torch.Generator(),
        )
        whole = None if self._slots is None else len(self.sampler.draw(start_step))
        with _workers_started() if self._workers else nullcontext():
            results = iter(loader)
        try:
            for images, indices, messages, failure in results:
                if failure:
                    raise InvalidInput(failure)
                labels = torch.from_numpy(self._labels[indices.numpy()])
                yield Batch(
                    images=_as_float(images.to(self._device, non_blocking=True)),
                    labels=labels.to(self._device, non_blocking=True),
                    unreadable=len(messages),
                    messages=tuple(messages),
                    whole=whole,
                    indices=indices,
                )
        except Exception as error:
            # They would keep the other workers waiting.
            traceback.clear_frames(error.__traceback__)
            raise
        finally:
            del results


def lost_worker(error: BaseException) -> str:
    """That a worker process was killed, in words, where `error` of a training comes from that; else ''."""
    text = str(error).partition("\n")[0]
    told = "DataLoader worker" in text and re.search("killed by signal|exited unexpectedly", text) is not None
    # Or it died between announcing a batch and handing it over, and its socket speaks first.
    cut_off = isinstance(error, ConnectionError | EOFError | FileNotFoundError) and not getattr(error, "filename", None)
    return f"a process that reads faces is gone ({short(text, 200).strip('. ')})" if told or cut_off else ""


def load_images(source: FaceSource, indices: ArrayLike, size: tuple[int, int] = (112, 112)) -> Tensor:
    """The images (n, 3, H, W) float32 in [0, 1], as they are. Raises `UnreadableImage`."""
    return as_tensor(read_images(source, indices, size)[0])


def read_images(
    source: FaceSource, indices: ArrayLike, size: tuple[int, int] = (112, 112), *, skip_unreadable: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The images (k, H, W, 3) that can be read, each of which is read once, and which of the n these are (n,).

    Raises `UnreadableImage`, unless those are skipped.
    """
    chosen = np.asarray(indices, dtype=np.int64).reshape(-1)
    images, readable = np.empty((len(chosen), *size, 3), dtype=np.uint8), np.ones(len(chosen), dtype=bool)
    for place, index in enumerate(chosen):
        try:
            images[place] = fit_size(source.read(int(index)), size)
        except UnreadableImage:
            if not skip_unreadable:
                raise
            readable[place] = False
    return images if readable.all() else images[readable], readable


def as_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1], contiguous."""
    return _as_float(torch.from_numpy(images))


class _Decoder(data.Dataset[_Result]):
    """Turns a task into pixels; this is what is copied into the workers."""

    def __init__(self, source: FaceSource, size: tuple[int, int], augmentation: Augmentation | None, seed: int) -> None:
        self._source = source
        self._size = size
        self._augmentation = augmentation
        self._seed = seed
        self._by_person = PersonImages(source.labels)

    def __getitem__(self, task: _Task) -> _Result:
        step, slots, indices = task
        images = np.zeros((len(indices), *self._size, 3), dtype=np.uint8)
        read = indices.copy()
        messages: list[str] = []
        failure = ""
        try:
            for place, (slot, index) in enumerate(zip(slots.tolist(), indices.tolist(), strict=True)):
                image, read[place] = self._read(index, messages)
                images[place] = self._prepared(image, step, slot)
        except SteadfaceError as error:
            # As text: raised in a worker it would reach the user wrapped in the worker's traceback.
            failure = str(error)
        return torch.from_numpy(images), torch.from_numpy(read), messages, failure

    def _prepared(self, image: Image, step: int, slot: int) -> Image:
        image = fit_size(image, self._size)
        if self._augmentation is None:
            return image
        return self._augmentation(image, np.random.default_rng((self._seed, step, slot)))

    def _read(self, index: int, messages: list[str]) -> tuple[Image, int]:
        """The image and its index, or those of the first replacement that can be read."""
        try:
            return self._source.read(index), index
        except UnreadableImage as error:
            messages.append(str(error))
        for other in itertools.islice(self._replacements(index), ATTEMPTS):
            try:
                return self._source.read(other), other
            except UnreadableImage:
                continue
        raise InvalidInput(f"{messages[-1]}; nor can any of the images tried in its place be read: check the data set")

    def _replacements(self, index: int) -> Iterator[int]:
        """Other images of the person, then anybody's, in an order that depends on (seed, index) only."""
        generator = np.random.default_rng((self._seed, index))
        own = generator.permutation(self._by_person.of_label(int(self._source.labels[index])))
        # Half of the attempts at most go to the person, lest a large bad folder use up all of them.
        yield from (int(other) for other in own[: ATTEMPTS // 2] if other != index)
        while True:
            yield int(generator.integers(len(self._source)))


class _Tasks(data.Sampler[_Task]):
    def __init__(self, sampler: Sampler, start_step: int, slots: NDArray[np.int64] | None) -> None:
        self._sampler = sampler
        self._start_step = start_step
        self._slots = slots

    def __iter__(self) -> Iterator[_Task]:
        for step in itertools.count(self._start_step):
            drawn = self._sampler.draw(step)
            slots = np.arange(len(drawn)) if self._slots is None else self._slots
            yield step, slots, drawn[slots]


def _as_is(result: Any) -> Any:
    return result


def _as_float(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [0, 1], contiguous."""
    return images.permute(0, 3, 1, 2).contiguous().float().div_(255)


@contextmanager
def _workers_started() -> Iterator[None]:
    """Around their start. A worker that dies is missed where its batch is waited for, seconds later at most.

    torch would have its death raise an exception here, wherever this process is: in the midst of a step, or of cleaning
    up, where it is printed and lost.
    """
    chld = getattr(signal, "SIGCHLD", None)  # Windows has none
    before = None if chld is None else signal.getsignal(chld)
    with _ctrl_c_held_back():
        yield
    if chld is not None and before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(chld, before)


@contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """What is started in here does not hear Ctrl-C until `_start_worker`; this process hears it when it is over.

    A mask is inherited, an answer to a signal only by a fork. Windows has neither, nor Ctrl-C as a signal.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    if multiprocessing.get_start_method() != "fork":
        # Where it has to be started in between, it unblocks SIGINT when it is done (CPython 3.11 to 3.13).
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _check_sockets() -> None:
    """Workers hand over memory through sockets in the folder for temporary files, whose paths have to be short: one
    that cannot make its socket says so to nobody who listens, and its batch would be waited for without end.
    """
    if os.name != "posix":
        return
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder)) + len("/pymp-01234567/listener-01234567") > LONGEST_SOCKET:
        raise InvalidInput(
            f"the folder for temporary files, {folder}, has too long a path for the sockets of data.workers: set "
            "TMPDIR to one with a shorter path, or data.workers to 0"
        )


def _start_worker(_: int) -> None:
    cv2.setNumThreads(0)
    # Ctrl-C reaches the whole process group; the trainer answers it, and ends its workers when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # forgets one that was held back, too
    # Inherited, the trainer's answer to this one would let a worker outlive its being told to end.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
