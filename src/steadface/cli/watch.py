"""`steadface watch`: who of the enrolled people comes and goes before a camera?"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import cv2
import typer

from steadface.cli.console import errors, line, say_warning
from steadface.cli.options import (
    BackendOption,
    ContractOption,
    DetectorOption,
    FmrOption,
    GalleryOption,
    IndexOption,
    KeyOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    ThresholdOption,
    given_rate,
    print_json,
)
from steadface.errors import Unsupported
from steadface.faces.detector_files import open_detector
from steadface.faces.drawing import BLUE, GREEN, Marked, draw_faces
from steadface.faces.sources import Source, parse_source
from steadface.faces.video import Frame, Pace
from steadface.faces.video import frames as frames_of
from steadface.gallery.index.address import index_at
from steadface.recognition.answers import doubts
from steadface.recognition.events import Event
from steadface.recognition.recognizer import Recognizer
from steadface.recognition.visits import Visit
from steadface.signals import stop_on_signal
from steadface.workflows.recognize import with_gallery
from steadface.workflows.watch import Limit, Watch, Watched
from steadface.workflows.webhook import Webhook, opening

FFMPEG_LOG = "OPENCV_FFMPEG_LOGLEVEL"
"""Environment variable of OpenCV; -8 is quiet. What FFmpeg says of a stream may name its address, password and all."""
MIN_SIZE = 40.0
"""Pixels of the longer side of a face; in a smaller one the eyes are too near each other for it to be compared."""
TITLE = "steadface watch"


def watch_source(
    source: Annotated[
        str,
        typer.Argument(
            help="The number of a camera, an rtsp:// address, a video file, or @FILE that holds the address."
        ),
    ],
    gallery: GalleryOption,
    model: ModelOption,
    detector: DetectorOption = None,
    fmr: FmrOption = None,
    fpir: Annotated[
        float | None,
        typer.Option(
            callback=given_rate, help="Chance that a stranger is taken for anybody enrolled, instead of --fmr."
        ),
    ] = None,
    threshold: ThresholdOption = None,
    every: Annotated[int, typer.Option(min=1, help="Look at every n-th frame only.")] = 1,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=1000, help="Look at so many frames a second at most.")
    ] = None,
    frames: Annotated[int, typer.Option(min=1, max=10000, help="Good frames that a decision takes.")] = 5,
    patience: Annotated[
        float, typer.Option(min=0.001, help="Seconds after which whoever is there is decided on in any case.")
    ] = 2.0,
    gap: Annotated[float, typer.Option(min=0.001, help="Seconds unseen after which a visit has ended.")] = 2.0,
    min_size: Annotated[
        float, typer.Option("--min-size", min=1, help="Leave out faces of fewer pixels (longer side of the box).")
    ] = MIN_SIZE,
    webhook: Annotated[str | None, typer.Option(help="Also send every event to this http(s) address, signed.")] = None,
    webhook_secret_file: Annotated[
        Path | None, typer.Option(help="File with the secret that events are signed with.")
    ] = None,
    note_matches: Annotated[
        bool, typer.Option("--note-matches", help="Write into the gallery's log who came, for a service's `idle_days`.")
    ] = False,
    window: Annotated[bool, typer.Option("--window", help="Show what is seen, where OpenCV has windows.")] = False,
    mirror: MirrorOption = None,
    backend: BackendOption = "auto",
    index: IndexOption = "exact",
    key: KeyOption = None,
    output: OutputOption = None,
    contract: ContractOption = None,
) -> None:
    """Who of the enrolled people **comes and goes** before a camera?

    One line of JSON for each event: somebody is *seen*, *identified* or *unknown*, and has *left*; one decision from
    many frames. No picture is kept or sent. Ctrl-C closes the visits that go on, and ends.
    """
    searched = index_at(index)
    where, pace = parse_source(source), Pace(every=every, rate=rate)
    limit = Limit(fmr=fmr, fpir=fpir, threshold=threshold)
    if window:
        _check_window()
    hook = opening(webhook, webhook_secret_file)
    os.environ.setdefault(FFMPEG_LOG, "-8")
    with frames_of(where, pace) as read:  # before the model, which takes longer
        recognizer = Recognizer.open(
            model,
            output=output,
            contract=contract,
            detector=open_detector(detector, min_size=min_size),
            mirror=mirror,
            backend=backend,
        )
        with with_gallery(recognizer, gallery, key, **searched):
            watch = Watch(recognizer, limit, evidence=frames, patience=patience, gap=gap)
            _say_begun(watch, where)
            with stop_on_signal() as stop, _telling(hook, where) as tell, _shown(window) as shown:
                done = watch(
                    read, tell, noted=note_matches, show=shown.show, stopped=lambda: bool(stop) or shown.closed
                )
            _say_done(done)
    if stop:
        raise KeyboardInterrupt


@contextmanager
def _telling(open_hook: Callable[[], Webhook] | None, where: Source) -> Iterator[Callable[[Event], None]]:
    """Prints each event as one line at once, and sends it; at the end what is still to be sent is."""
    hook = None if open_hook is None else open_hook()

    def tell(event: Event) -> None:
        told = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" if where.live else None, **event.to_json()}
        print_json(told, indent=None)
        if hook is not None:
            hook.send(told)

    try:
        yield tell
    finally:
        if hook is not None:
            hook.close()


def _say_begun(watch: Watch, where: Source) -> None:
    at = "given" if watch.fmr is None else f"FMR {watch.fmr:.3g}, FPIR {watch.fpir:.2g} among {watch.enrolled}"
    errors.print(
        line(f"watching {where.name}; threshold {watch.threshold:.4f} ({at})"), soft_wrap=True, highlight=False
    )
    for note in doubts(watch.recognizer.contract, watch.fmr):
        say_warning(note)
    if not watch.enrolled:
        say_warning("there is nobody to be found in the gallery: everybody will be unknown")


def _say_done(done: Watched) -> None:
    speed = f" ({done.frames / done.seconds:.1f} a second)" if done.seconds else ""
    errors.print(f"{done.frames} frames looked at{speed}, {done.visits} visits", soft_wrap=True, highlight=False)


def _check_window() -> None:
    """Raises Unsupported where OpenCV can open none, before anything is opened."""
    gui = next((row.split(":")[1].strip() for row in cv2.getBuildInformation().splitlines() if "GUI:" in row), "NONE")
    if gui == "NONE":
        raise Unsupported(
            "--window needs an OpenCV with windows, which opencv-python-headless has not: pip uninstall "
            "opencv-python-headless, then pip install opencv-python; or leave --window out"
        )
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise Unsupported("--window needs a screen, and neither DISPLAY nor WAYLAND_DISPLAY is set; leave --window out")


class _Window:
    """What the camera sees, with a box and a name for everybody, where it is `wanted`; Escape or q closes it."""

    def __init__(self, wanted: bool) -> None:
        self._wanted, self.closed = wanted, False

    def show(self, frame: Frame, visits: Sequence[Visit]) -> None:
        if self._wanted and frame.pixels is not None:
            cv2.imshow(TITLE, draw_faces(frame.pixels, [_marked(visit) for visit in visits])[..., ::-1])
            self.closed = cv2.waitKey(1) & 0xFF in (27, ord("q"))


@contextmanager
def _shown(window: bool) -> Iterator[_Window]:
    try:
        yield _Window(window)
    finally:
        if window:
            cv2.destroyAllWindows()


def _marked(visit: Visit) -> Marked:
    known = visit.decision
    if known is None:
        return Marked(box=visit.latest.box, caption="...", colour=BLUE)
    similarity = "" if known.similarity is None else f"\n{known.similarity:.3f}"
    name = known.person or "nobody enrolled"
    return Marked(box=visit.latest.box, caption=name + similarity, colour=BLUE if known.person is None else GREEN)
