"""`steadface watch` on a tiny video file of synthetic people whom a planted detector finds."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from steadface.backbones import Architecture, save_backbone
from steadface.cli import watch
from steadface.data.faces import TEMPLATE, Image
from steadface.data.synthetic import synthetic_faces
from steadface.faces.detection import Face
from steadface.faces.video import Frame
from steadface.faces.video import frames as frames_of
from steadface.gallery.gallery import Gallery
from steadface.recognition.recognizer import Recognizer
from steadface.workflows import watch as workflow
from steadface.workflows.recognize import with_gallery

from .conftest import Call

FRAMES = 6


class Middle:
    """Finds a face in the middle of every picture that is not plain."""

    def detect(self, image: Image) -> list[Face]:
        if image.std() < 10:
            return []
        landmarks = (TEMPLATE + np.array([24, 4])).astype(np.float32)
        return [Face(box=(24, 4, 136, 116), landmarks=landmarks, score=0.9)]


@pytest.fixture(scope="module")
def people() -> list[Image]:
    """Two people who look little like each other."""
    found = synthetic_faces(people=2, images_per_person=1, seed=35)
    return [found.read(place) for place in range(2)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, people: list[Image]) -> Path:
    """First somebody, then somebody else, then nobody."""
    path = tmp_path_factory.mktemp("watch") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (160, 120))
    if not writer.isOpened():
        pytest.skip("this OpenCV has no Motion JPEG")
    for face in people:
        for _ in range(FRAMES):
            pixels = np.full((120, 160, 3), 90, np.uint8)
            pixels[4:116, 24:136] = face[..., ::-1]
            writer.write(pixels)
    for _ in range(3):
        writer.write(np.full((120, 160, 3), 90, np.uint8))
    writer.release()
    return path


@pytest.fixture(scope="module")
def options(people: list[Image], tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """Those of a model and a gallery in which the first of the people is enrolled."""
    folder = tmp_path_factory.mktemp("people")
    model, gallery, key = folder / "m.safetensors", folder / "g.db", folder / "g.key"
    architecture = Architecture(image_size=(32, 32), embedding_size=16, width=0.25, blocks=(1, 1, 0, 0))
    save_backbone(model, architecture.build(torch.Generator().manual_seed(0)).eval(), {})
    recognizer = Recognizer.open(model)
    with with_gallery(recognizer, gallery, key, create=True):
        recognizer.enroll("ada", people[0], aligned=True)
    # Given, since nothing is calibrated; the two people are farther apart, and the frames of one nearer.
    return ["--gallery", gallery, "--key", key, "--model", model, "--threshold", 0.9]


@pytest.fixture
def at_work(options: list[object], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The same, with a detector."""
    monkeypatch.setenv(watch.FFMPEG_LOG, "-8")
    monkeypatch.setattr(watch, "open_detector", lambda *_, **__: Middle())
    monkeypatch.setattr(workflow, "weight", lambda _: 1.0)  # invented faces, compressed, are not always fit
    return options


def events(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_a_file_is_told_as_lines_of_json(clip: Path, at_work: list[object], call: Call) -> None:
    said = call("watch", clip, *at_work, "--frames", 3, "--note-matches")
    assert said.code == 0, said.err
    told = events(said.out)
    assert [(one["event"], one["visit"], one["person"]) for one in told] == [
        *(("seen", 1, None), ("identified", 1, "ada"), ("seen", 2, None), ("unknown", 2, None)),
        *(("left", 1, "ada"), ("left", 2, None)),
    ]
    assert told[1].keys() == {
        *("at", "event", "visit", "time", "first", "box", "person", "similarity", "threshold", "frames"),
        *("good_frames", "revised", "reasons"),
    }
    assert told[1]["time"] == pytest.approx(0.2)
    assert told[1]["box"] == [24, 4, 136, 116]
    assert told[1]["similarity"] >= told[1]["threshold"] == 0.9 > told[3]["similarity"]
    assert told[-1]["frames"] == FRAMES
    assert told[1]["at"] is None
    assert f"{2 * FRAMES + 3} frames looked at" in said.err
    with Gallery.open(at_work[1], key=at_work[3]) as gallery:
        assert [entry.event for entry in gallery.entries()][-1] == "match"


def test_ctrl_c_closes_the_visits_that_go_on(
    clip: Path, at_work: list[object], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def pressed(*given) -> Iterator[Iterator[Frame]]:
        def until_pressed(read: Iterator[Frame]) -> Iterator[Frame]:
            for frame in read:
                if frame.number == 4:
                    os.kill(os.getpid(), signal.SIGINT)
                yield frame

        with frames_of(*given) as read:
            yield until_pressed(read)

    monkeypatch.setattr(watch, "frames_of", pressed)
    said = call("watch", clip, *at_work, "--frames", 3)
    assert said.code == 130
    told = events(said.out)
    assert [one["event"] for one in told] == ["seen", "identified", "left"]
    assert (told[-1]["person"], told[-1]["frames"]) == ("ada", 4)
    assert "Traceback" not in said.err


def test_a_webhook_gets_the_same_events(
    clip: Path, at_work: list[object], call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sent: list[dict] = []

    class Hook:
        def __init__(self, url: str, secret: bytes) -> None:
            assert (url, secret) == ("http://127.0.0.1:1/", b"x" * 16)

        def send(self, event: dict) -> None:
            sent.append(event)

        def close(self) -> None:
            sent.append({"event": "closed"})

    monkeypatch.setattr("steadface.workflows.webhook.Webhook", Hook)
    secret = tmp_path / "secret"
    secret.write_text("x" * 16)
    secret.chmod(0o600)
    said = call("watch", clip, *at_work, "--webhook", "http://127.0.0.1:1/", "--webhook-secret-file", secret)
    assert said.code == 0, said.err
    assert sent == [*events(said.out), {"event": "closed"}]


def test_a_window_shows_what_is_seen_and_ends_the_watch(
    clip: Path, at_work: list[object], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Image] = []
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:   GTK3\n")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 5 else -1)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    said = call("watch", clip, *at_work, "--frames", 3, "--window")
    assert said.code == 0, said.err
    assert len(shown) == 5
    assert [one["event"] for one in events(said.out)] == ["seen", "identified", "left"]
    green, blue = (
        sum((picture == colour).all(2).sum() for picture in shown) for colour in ((67, 160, 46), (235, 111, 31))
    )
    assert green > 100 < blue


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["no.avi"], 4, "no.avi"),
        (["ftp://user:secret@host/x"], 2, "rtsp://"),
        (["0", "--window"], 6, "opencv-python"),
        (["0", "--webhook", "http://host/"], 2, "--webhook-secret-file"),
        (["0", "--webhook", "ftp://user:secret@host/", "--webhook-secret-file", "x"], 2, "https://"),
        (["0", "--fmr", "1e-3", "--fpir", "1e-2"], 2, "one of fmr, fpir and threshold"),
        (["rtsp://user:secret@127.0.0.1:1/x"], 75, "rtsp://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_opened(
    words: list[str], code: int, said: str, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(watch.FFMPEG_LOG, "-8")
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:   NONE\n")
    done = call("watch", *words, "--gallery", "none.db", "--model", "none.safetensors")
    assert done.code == code, done.err
    assert said in done.err
    assert "secret" not in (done.err + done.out).replace("webhook-secret-file", "")
