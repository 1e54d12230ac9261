"""What a decision per visit is worth beside one per frame: `steadface watch` on a clip made of photographs.

python benchmarks/watch.py MODEL [--images FACES --detector yunet.onnx] [--enrolled 60] [--strangers 60] [--fpir 5e-2]

FACES are aligned faces, one folder per person; synthetic ones by default, found by a detector that knows where the
clip has them. Half of the people calibrate a copy of MODEL, the clip shows some of the others: of those enrolled, by
one picture, another picture, and pictures of strangers. A picture becomes some frames of a camera that pans, zooms and
turns slowly, with changing light, blur and JPEG compression, now and then a frame out of focus. People follow each
other within less than the gap that ends a visit, so that looks alone tell them apart. The clip is a video file, and
what watches it is the command's own workflow.

    per visit    of the people shown, each once: enrolled and named rightly, a stranger named (at any moment; at the
                 end), with Clopper-Pearson intervals
    per frame    the same of each frame alone, of all that show a face and of those fit to be compared. Frames of one
                 picture are alike, so that their intervals are narrower than they should be
"""

import argparse
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from steadface.data.faces import TEMPLATE, FaceSource, Image, Subset
from steadface.data.folders import open_faces
from steadface.data.synthetic import synthetic_faces
from steadface.evaluation.intervals import clopper_pearson
from steadface.faces.detection import Detector, Face
from steadface.faces.detector_files import open_detector
from steadface.faces.sources import parse_source
from steadface.faces.video import Frame, Pace, frames
from steadface.recognition.events import Event
from steadface.recognition.recognizer import Recognizer
from steadface.recognition.visits import Visit
from steadface.report.text import with_interval
from steadface.workflows.calibrate import calibrate
from steadface.workflows.recognize import with_gallery
from steadface.workflows.watch import Limit, Watch, Watched

WIDTH, HEIGHT, FPS = 480, 360, 10.0
PAUSE = 3
"""Frames between two people, without any."""
OUT_OF_FOCUS = 0.1
"""Share of the frames."""
MIN_SIZE = 40.0


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Somebody in the clip: whether enrolled, and by which name."""

    name: str
    enrolled: bool


@dataclass
class Clip:
    """Who is in which frame, None for nobody, and where."""

    people: list[Shown | None] = field(default_factory=list)
    faces: list[Face | None] = field(default_factory=list)


class Planted:
    """A detector that knows where the clip has its faces: asked about its frames in their order, each once."""

    def __init__(self, clip: Clip) -> None:
        self._faces = iter(clip.faces)

    def detect(self, image: Image) -> list[Face]:  # noqa: ARG002
        face = next(self._faces)
        return [] if face is None else [face]


def halves(source: FaceSource, rng: np.random.Generator) -> tuple[Subset, Subset]:
    """The images of half of the people, and those of the others."""
    people = rng.permutation(len(source.people))
    first = np.isin(source.labels, people[: len(people) // 2])
    return Subset(source, np.flatnonzero(first)), Subset(source, np.flatnonzero(~first))


def drawn(source: FaceSource, enrolled: int, strangers: int, rng: np.random.Generator) -> dict[Shown, tuple[int, int]]:
    """For each person of the clip, in its order, the picture to enrol and that to show; of strangers one is both."""
    images = [rng.permutation(np.flatnonzero(source.labels == person)) for person in range(len(source.people))]
    several = rng.permutation([person for person, own in enumerate(images) if len(own) > 1])
    known = several[:enrolled]
    others = rng.permutation(np.setdiff1d(np.arange(len(images)), known))[:strangers]
    if len(known) < enrolled or len(others) < strangers:
        raise SystemExit(f"there are pictures for {len(known)} enrolled and {len(others)} strangers: ask for fewer")
    order = rng.permutation(np.concatenate([known, others]))
    return {
        Shown(name=source.people[person], enrolled=person in known): (int(images[person][0]), int(images[person][-1]))
        for person in order.tolist()
    }


def moving(face: Image, count: int, rng: np.random.Generator) -> Iterator[tuple[Image, Face]]:
    """Frames of a still picture, and where its face is in each."""
    phases, turn = rng.uniform(0, 2 * np.pi, 5), rng.uniform(-6, 6)
    side = face.shape[0]
    for step in range(count):
        x, y, zoom, angle, light = np.sin(phases + 2 * np.pi * step / (2.5 * FPS))
        scale = 160 / side * (1 + 0.15 * zoom)
        matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn + 4 * angle, scale)
        matrix[:, 2] += np.array([WIDTH / 2 + 60 * x, HEIGHT / 2 + 25 * y]) - (side - 1) / 2
        frame = cv2.warpAffine(face, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderValue=(110, 110, 110))
        blur = rng.uniform(3.5, 5) if rng.random() < OUT_OF_FOCUS else rng.uniform(0.2, 1.6)
        frame = cv2.GaussianBlur(frame, (0, 0), blur)
        frame = np.clip(frame * (1 + 0.3 * light) + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8)
        _, jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 90))])
        corners = np.array([[0, 0], [side, 0], [0, side], [side, side]]) @ matrix[:, :2].T + matrix[:, 2]
        left, top, right, bottom = (float(one) for one in (*corners.min(0), *corners.max(0)))
        marks = ((TEMPLATE + 0.5) * side / 112 - 0.5) @ matrix[:, :2].T + matrix[:, 2]
        decoded = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert decoded is not None
        yield (
            decoded,
            Face(box=(left, top, right, bottom), landmarks=marks.astype(np.float32), score=0.9),
        )


def write_clip(
    path: Path, source: FaceSource, people: dict[Shown, tuple[int, int]], count: int, rng: np.random.Generator
) -> Clip:
    """The clip as Motion JPEG, and who is where in it."""
    clip, writer = Clip(), cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    if not writer.isOpened():
        raise SystemExit("this OpenCV cannot write Motion JPEG")
    for person, (_, picture) in people.items():
        for frame, face in moving(source.read(picture)[..., ::-1], count, rng):
            writer.write(frame)
            clip.people.append(person)
            clip.faces.append(face)
        for _ in range(PAUSE):
            writer.write(np.full((HEIGHT, WIDTH, 3), 110, np.uint8))
            clip.people.append(None)
            clip.faces.append(None)
    writer.release()
    return clip


class Ledger:
    """What was said of whom, by visit and by frame."""

    def __init__(self, recognizer: Recognizer, threshold: float, clip: Clip) -> None:
        self._recognizer, self._threshold, self._clip = recognizer, threshold, clip
        self.seen: defaultdict[int, Counter[Shown]] = defaultdict(Counter)
        self.said: defaultdict[int, list[str | None]] = defaultdict(list)
        self.final: dict[int, str | None] = {}
        self.frames: list[tuple[Shown, str | None, bool]] = []

    def tell(self, event: Event) -> None:
        if event.kind == "left":
            self.final[event.visit] = event.decision.person
        elif event.kind != "seen":
            self.said[event.visit].append(event.decision.person)

    def show(self, frame: Frame, visits: Sequence[Visit]) -> None:
        person = self._clip.people[frame.number]
        for visit in visits:
            if person is None or visit.number is None:
                continue
            self.seen[visit.number][person] += 1
            assert self._recognizer.gallery is not None
            best = self._recognizer.gallery.search(visit.latest.vector[None])[0][0]
            named = best.person.name if best.similarity >= self._threshold else None
            self.frames.append((person, named, visit.latest.weight > 0))

    def visits_of(self) -> dict[Shown, list[int]]:
        """The visits of each person: those that show them in most frames."""
        found: dict[Shown, list[int]] = {person: [] for person in self._clip.people if person is not None}
        for visit, counts in self.seen.items():
            found[counts.most_common(1)[0][0]].append(visit)
        return found


def rate(hits: int, trials: int) -> str:
    low, high = clopper_pearson(hits, trials)
    return f"{with_interval(100 * hits / max(trials, 1), 100 * low, 100 * high)} | {hits} of {trials}"


def report(ledger: Ledger, done: Watched, watch: Watch) -> None:
    """The table."""
    owned = ledger.visits_of()
    ever = {who: {one for visit in own for one in ledger.said[visit]} - {None} for who, own in owned.items()}
    final = {who: {ledger.final[visit] for visit in own} - {None} for who, own in owned.items()}
    known = [who for who in owned if who.enrolled]
    strangers = [who for who in owned if not who.enrolled]
    at = f"threshold {watch.threshold:.4f}, FMR {watch.fmr:.3g}, FPIR {watch.fpir:.3g} among {watch.enrolled}"
    print(f"{at}\n{done.frames} frames, {done.frames / done.seconds:.1f} a second; {done.visits} visits of", end=" ")
    print(f"{len(owned)} people, {sum(not own for own in owned.values())} of whom were not seen,", end=" ")
    print(f"{sum(len(counts) > 1 for counts in ledger.seen.values())} visits of more than one person\n")
    print("| | % (95 % interval) | |\n|---|---:|---:|")
    print(
        "| per visit: enrolled, named rightly at the end |",
        rate(sum(final[who] == {who.name} for who in known), len(known)),
        "|",
    )
    print(
        "| per visit: enrolled, another name at any moment |",
        rate(sum(bool(ever[who] - {who.name}) for who in known), len(known)),
        "|",
    )
    print(
        "| per visit: stranger named at any moment (FPIR) |",
        rate(sum(bool(ever[who]) for who in strangers), len(strangers)),
        "|",
    )
    print(
        "| per visit: stranger named at the end |",
        rate(sum(bool(final[who]) for who in strangers), len(strangers)),
        "|",
    )
    for words, counted in (("fit frame", [one for one in ledger.frames if one[2]]), ("frame", ledger.frames)):
        own = [named == who.name for who, named, _ in counted if who.enrolled]
        other = [named is not None for who, named, _ in counted if not who.enrolled]
        print(f"| per {words}: enrolled, named rightly |", rate(sum(own), len(own)), "|")
        print(f"| per {words}: stranger named (FPIR) |", rate(sum(other), len(other)), "|")
    any_frame = Counter(who for who, named, _ in ledger.frames if named is not None and not who.enrolled)
    print("| stranger named in any frame of the visit |", rate(len(any_frame), len(strangers)), "|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a file of weights; a copy of it is calibrated")
    parser.add_argument("--images", type=Path, help="aligned faces, one folder per person")
    parser.add_argument("--detector", type=Path, help="a YuNet or SCRFD file; left out, the clip tells where faces are")
    parser.add_argument("--enrolled", type=int, default=60)
    parser.add_argument("--strangers", type=int, default=60)
    parser.add_argument("--frames", type=int, default=10, help="frames of each person")
    parser.add_argument("--fpir", type=float, default=5e-2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    people = 2 * (given.enrolled + given.strangers)
    source = synthetic_faces(people=people, images_per_person=4) if given.images is None else open_faces(given.images)
    calibrating, watched = halves(source, rng)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / given.model.name
        shutil.copy(given.model, model)
        model.chmod(0o600)
        calibrate(model, calibrating)
        shown = drawn(watched, given.enrolled, given.strangers, rng)
        clip = write_clip(Path(folder) / "clip.avi", watched, shown, given.frames, rng)
        detector: Detector = (
            Planted(clip) if given.detector is None else open_detector(given.detector, min_size=MIN_SIZE)
        )
        recognizer = Recognizer.open(model, detector=detector)
        with with_gallery(recognizer, Path(folder) / "g.db", Path(folder) / "g.key", create=True):
            for who, (picture, _) in shown.items():
                if who.enrolled:
                    recognizer.enroll(who.name, watched.read(picture), aligned=True, check=False)
            watch = Watch(recognizer, Limit(fpir=given.fpir))
            ledger = Ledger(recognizer, watch.threshold, clip)
            with frames(parse_source(str(Path(folder) / "clip.avi")), Pace()) as read:
                done = watch(read, ledger.tell, show=ledger.show)
            report(ledger, done, watch)


if __name__ == "__main__":
    main()
