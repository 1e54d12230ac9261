"""Frames of a camera, a stream or a video file, through OpenCV.

A file is read whole, in its order. Of a camera or a stream a thread of its own takes every frame and keeps the newest,
so that whoever is slow misses frames rather than falls behind; where it breaks off, it is opened anew, after a wait
that doubles each time.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import cv2

from steadface.data.faces import Image
from steadface.errors import InvalidInput, Unavailable
from steadface.faces.sources import Capture, Open, Source, opened

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds between two attempts to open a stream anew."""
TICK = 0.5
"""Seconds without a frame after which whoever waits for one is told so."""
USUAL_RATE = 25.0
"""Frames/s of a file that does not say."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """`pixels` (H, W, 3) RGB, `time` seconds after the first frame, `number` of the frame, from 0.

    Of a live source also that time has passed without a frame to look at: `pixels` is None.
    """

    pixels: Image | None = field(repr=False)
    time: float
    number: int


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Which frames are looked at: every n-th, and no more than `rate` a second; None is as many as there are.

    Raises InvalidInput for what cannot be.
    """

    every: int = 1
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.every < 1 or (self.rate is not None and not self.rate > 0):
            raise InvalidInput(
                f"every frame in {self.every}, {self.rate} a second: give a whole number from 1, a rate above 0"
            )

    def is_due(self, number: int, time: float, before: tuple[int, float] | None) -> bool:
        """Whether the frame of that number and time is looked at, `before` being the last one that was."""
        if before is None:
            return True
        # Times of frames are rounded: at twice the rate of what is asked for every other one is meant.
        return number - before[0] >= self.every and (self.rate is None or (time - before[1]) * self.rate >= 0.999)


@contextmanager
def frames(source: Source, pace: Pace, *, open_capture: Open = opened) -> Iterator[Iterator[Frame]]:
    """The frames that are due, until the file ends, or without an end.

    What is read is released at the end. Raises Unavailable where it cannot be opened at first, InvalidInput for a file
    without frames.
    """
    if source.live:
        reader = _Reader(source, open_capture)
        try:
            reader.check_opened()
            yield _newest(reader, pace)
        finally:
            reader.stop()
        return
    capture = open_capture(source)
    if capture is None:
        raise InvalidInput(f"{source.name} cannot be opened as a video; give one that OpenCV reads, MP4 or AVI say")
    try:
        yield _every(capture, source, pace)
    finally:
        capture.release()


def _every(capture: Capture, source: Source, pace: Pace) -> Iterator[Frame]:
    said = capture.get(cv2.CAP_PROP_FPS)
    rate = said if 0 < said < 1000 else USUAL_RATE
    number, before = 0, None
    while (found := capture.read())[0]:
        # Not every backend knows the time of a frame.
        time = max(capture.get(cv2.CAP_PROP_POS_MSEC), 0.0) / 1000 or number / rate
        if pace.is_due(number, time, before):
            before = number, time
            yield Frame(pixels=cv2.cvtColor(found[1], cv2.COLOR_BGR2RGB), time=time, number=number)
        number += 1
    if not number:
        raise InvalidInput(f"{source.name} has no frame that can be read; give another video")
    if number < 0.9 * (promised := capture.get(cv2.CAP_PROP_FRAME_COUNT)):
        logger.warning("%s ends after %d of %d frames: it is damaged, or was cut off", source.name, number, promised)


def _newest(reader: "_Reader", pace: Pace) -> Iterator[Frame]:
    before, seen = None, -1
    while True:
        found = reader.newer(seen)
        if found is None:
            yield Frame(pixels=None, time=reader.time, number=seen)
            continue
        seen, time, pixels = found
        if pace.is_due(seen, time, before):
            before = seen, time
            yield Frame(pixels=cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), time=time, number=seen)
        else:
            yield Frame(pixels=None, time=time, number=seen)


class _Reader:
    """A thread that reads a live source and keeps its newest frame."""

    def __init__(self, source: Source, open_capture: Open) -> None:
        self._source, self._open = source, open_capture
        self._news = threading.Condition()
        self._frame: tuple[int, float, Any] | None = None
        self._error: Exception | None = None
        self._stopping = threading.Event()
        self._is_open = False
        self._began = monotonic()
        self._thread = threading.Thread(target=self._work, name="video", daemon=True)
        self._thread.start()

    def check_opened(self) -> None:
        """Waits until it is known whether the source can be opened. Raises Unavailable where it cannot."""
        with self._news:
            self._news.wait_for(lambda: self._error is not None or self._is_open)
            if self._error is not None:
                raise self._error

    def newer(self, number: int) -> tuple[int, float, Any] | None:
        """The newest frame, if it is later than `number`; None where there is none in `TICK` seconds.

        Raises what ended the thread.
        """
        with self._news:
            self._news.wait_for(lambda: self._error is not None or self._number > number, TICK)
            if self._error is not None:
                raise self._error
            return self._frame if self._number > number else None

    @property
    def time(self) -> float:
        """Seconds since the source was opened."""
        return monotonic() - self._began

    def stop(self) -> None:
        """Whatever it waits for in OpenCV, which cannot be interrupted, nobody else waits for."""
        self._stopping.set()
        self._thread.join(TICK)

    @property
    def _number(self) -> int:
        return -1 if self._frame is None else self._frame[0]

    def _work(self) -> None:
        try:
            self._read_on()
        except Exception as error:
            with self._news:
                self._error = error
                self._news.notify_all()

    def _read_on(self) -> None:
        wait, number = FIRST_WAIT, 0
        capture = self._open(self._source)
        if capture is None:
            raise Unavailable(
                f"{self._source.name} cannot be opened; check that it is there, that nobody else uses it, and name and "
                "password, if it wants any"
            )
        with self._news:
            self._is_open, self._began = True, monotonic()
            self._news.notify_all()
        while not self._stopping.is_set():
            read, pixels = (False, None) if capture is None else capture.read()
            if read:
                wait = FIRST_WAIT
                self._put(number, self.time, pixels)
                number += 1
                continue
            if capture is not None:
                capture.release()
            logger.warning("%s gives no picture; trying again in %g s", self._source.name, wait)
            self._stopping.wait(wait)
            wait = min(2 * wait, LONGEST_WAIT)
            capture = None if self._stopping.is_set() else self._open(self._source)
        if capture is not None:
            capture.release()

    def _put(self, number: int, time: float, pixels: Any) -> None:
        with self._news:
            self._frame = number, time, pixels
            self._news.notify_all()
