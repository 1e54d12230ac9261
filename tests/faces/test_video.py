"""Frames of files, whole and in order; of live sources the newest; and no password in what is said."""

import logging
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from steadface.errors import InvalidInput, NotFound, SteadfaceError, Unavailable
from steadface.faces import video
from steadface.faces.sources import Source, address, parse_source
from steadface.faces.video import Pace, frames

CAMERA = Source(given="rtsp://camera", name="rtsp://camera", live=True)


def write_video(path: Path, count: int, fps: float = 10.0) -> Path:
    """Motion JPEG of grey frames, each lighter than the one before, red at the left."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (64, 48))
    if not writer.isOpened():
        pytest.skip("this OpenCV has no Motion JPEG")
    for number in range(count):
        pixels = np.full((48, 64, 3), 20 * number, np.uint8)
        pixels[:, :32, 2] = 255
        writer.write(pixels)
    writer.release()
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.avi", 9)


def test_a_file_is_read_whole_in_rgb_with_its_times(clip: Path) -> None:
    with frames(parse_source(str(clip)), Pace()) as read:
        found = list(read)
    assert [frame.number for frame in found] == list(range(9))
    assert [frame.time for frame in found] == pytest.approx([number / 10 for number in range(9)])
    assert [round(pixels[:, 40:].mean() / 20) for frame in found if (pixels := frame.pixels) is not None] == [*range(9)]
    first = found[0].pixels
    assert first is not None
    assert first[24, 8, 0] > 200 > 60 > first[24, 8, 2]


@pytest.mark.parametrize(
    ("pace", "numbers"),
    [(Pace(every=4), [0, 4, 8]), (Pace(rate=5.0), [0, 2, 4, 6, 8]), (Pace(rate=100.0), [*range(9)])],
)
def test_frames_that_are_due(clip: Path, pace: Pace, numbers: list[int]) -> None:
    with frames(parse_source(str(clip)), pace) as read:
        assert [frame.number for frame in read] == numbers


def test_a_file_that_is_cut_off_says_so(clip: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Cut:
        def __init__(self) -> None:
            self.left = 3

        def read(self) -> tuple[bool, Any]:
            self.left -= 1
            return self.left >= 0, np.zeros((4, 4, 3), np.uint8)

        def get(self, number: int, /) -> float:
            return 9.0 if number == cv2.CAP_PROP_FRAME_COUNT else 0.0

        def release(self) -> None:
            pass

    with frames(parse_source(str(clip)), Pace(), open_capture=lambda _: Cut()) as read:
        assert len(list(read)) == 3
    assert "3 of 9" in caplog.text
    damaged = tmp_path / "damaged.avi"
    damaged.write_bytes(b"RIFF" * 20)
    with pytest.raises(InvalidInput, match=r"damaged\.avi"), frames(parse_source(str(damaged)), Pace()):
        pass


class Camera:
    """Gives the frames that the test lets it give; None is a picture that does not come."""

    def __init__(self) -> None:
        self._given: list[int | None] = []
        self._changed = threading.Condition()
        self.opened = self.released = 0
        self._over = False

    def give(self, *values: int | None) -> None:
        """Returns once the reader has come back for more."""
        with self._changed:
            self._given.extend(values)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: not self._given, 10)

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def open(self, source: Source) -> "Camera":  # noqa: ARG002
        self.opened += 1
        return self

    def read(self) -> tuple[bool, Any]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._given) or self._over, 10)
            value = None if self._over else self._given.pop(0)
            self._changed.notify_all()
        return value is not None, np.full((4, 4, 3), value or 0, np.uint8)

    def get(self, number: int, /) -> float:  # noqa: ARG002
        return 0.0

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Camera]:
    monkeypatch.setattr(video, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(video, "TICK", 0.05)
    camera = Camera()
    yield camera
    camera.end()


def values(read: Iterator[video.Frame], wanted: Callable[[int], bool]) -> list[int]:
    """The values of frames until one is `wanted`."""
    found: list[int] = []
    for frame in read:
        if frame.pixels is not None:
            found.append(int(frame.pixels[0, 0, 0]))
            if wanted(found[-1]):
                break
    return found


def test_of_a_live_source_the_newest_frame_is_looked_at(camera: Camera) -> None:
    with frames(CAMERA, Pace(), open_capture=camera.open) as read:
        camera.give(1, 2, 3, 4, 5, 6, 7)
        found = values(read, lambda value: value == 7)
        assert found in ([7], [6, 7])  # the last may still be on its way
        camera.give(8)
        assert values(read, lambda value: value == 8) == [8]
        camera.end()


def test_a_live_source_without_frames_says_that_time_passes(camera: Camera) -> None:
    with frames(CAMERA, Pace(), open_capture=camera.open) as read:
        one, other = islice(read, 2)
        assert one.pixels is other.pixels is None
        assert other.time > one.time >= 0
        camera.end()


def test_a_stream_that_breaks_off_is_opened_anew(camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.WARNING),
        frames(parse_source("rtsp://user:secret@camera/live"), Pace(), open_capture=camera.open) as read,
    ):
        camera.give(1, None, None, 2)
        assert values(read, lambda value: value == 2)[-1] == 2
        camera.end()
    assert camera.opened >= 3
    assert camera.released >= 2
    assert "rtsp://camera" in caplog.text
    assert "secret" not in caplog.text


def test_a_live_source_that_cannot_be_opened_is_said_to_be_so_without_its_password() -> None:
    source = parse_source("rtsp://user:secret@192.0.2.7:554/live")
    with (
        pytest.raises(Unavailable, match=r"rtsp://192\.0\.2\.7:554") as error,
        frames(source, Pace(), open_capture=lambda _: None),
    ):
        pass
    assert "secret" not in str(error.value) + repr(source)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:secret@cam.example:8554/live", "rtsp://cam.example:8554"),
        ("rtsp://cam.example/user=admin_password=secret", "rtsp://cam.example"),
        ("http://cam.example/live?password=secret#secret", "http://cam.example"),
        ("rtsp://admin:sec@secret@cam.example/", "rtsp://cam.example"),
        ("rtsp://admin:sec/secret@cam.example/", "rtsp://..."),
        ("rtsp://admin:secret", "rtsp://..."),
        ("rtsp://[2001:db8::7]:554/secret", "rtsp://[2001:db8::7]:554"),
        ("rtsp://[secret", "rtsp://..."),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert address(url) == shown


def test_sources(clip: Path, tmp_path: Path) -> None:
    assert parse_source("0") == Source(given=0, name="camera 0", live=True)
    assert parse_source("rtsp://u:p@h/x").given == "rtsp://u:p@h/x"
    written = tmp_path / "address"
    written.write_text("rtsp://u:p@h/x\n")
    written.chmod(0o600)
    assert parse_source(f"@{written}") == Source(given="rtsp://u:p@h/x", name="rtsp://h", live=True)
    for text, mode in (("", 0o600), ("0\n1", 0o600), (f"@{written}", 0o600), ("0", 0o644)):
        written.write_text(text)
        written.chmod(mode)
        with pytest.raises(InvalidInput, match="address"):
            parse_source(f"@{written}")
    assert parse_source(str(clip)) == Source(given=str(clip), name=str(clip), live=False)
    for wrong, kind in (("nothing.mp4", NotFound), ("ftp://u:secret@h/x", InvalidInput), (str(tmp_path), InvalidInput)):
        with pytest.raises(SteadfaceError) as error:
            parse_source(wrong)
        assert type(error.value) is kind
        assert "secret" not in str(error.value)


@pytest.mark.parametrize("wrong", [{"every": 0}, {"rate": 0.0}, {"rate": float("nan")}])
def test_a_pace_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Pace(**wrong)
