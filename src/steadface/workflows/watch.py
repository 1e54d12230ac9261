"""A camera or a video watched: faces seen, followed and told, who is who among those enrolled."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

from steadface.errors import InvalidInput
from steadface.faces.photograph import Photograph
from steadface.faces.video import Frame
from steadface.gallery.gallery import Candidate
from steadface.recognition.answers import SeenFace, alike, fpir_of, limit, limit_of_fpir
from steadface.recognition.events import Decision, Event
from steadface.recognition.recognizer import Recognizer, Vectors
from steadface.recognition.visits import Rules, Sighting, Visit, Visits, weight

Tell = Callable[[Event], object]
Show = Callable[[Frame, Sequence[Visit]], object]
"""Is given each frame that was looked at, and the visits that were seen in it."""
Stopped = Callable[[], bool]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How similar somebody has to be to be named: at the FMR of one comparison, at the FPIR of a search, or a threshold
    of one's own. Raises InvalidInput for more than one of them.
    """

    fmr: float | None = None
    fpir: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if sum(one is not None for one in (self.fmr, self.fpir, self.threshold)) > 1:
            raise InvalidInput("give one of fmr, fpir and threshold; they are three ways to say one thing")

    def among(self, recognizer: Recognizer, enrolled: int) -> tuple[float, float | None]:
        """The threshold, and the FMR that it stands for. Raises SteadfaceError where that was not measured."""
        if self.fpir is not None:
            return limit_of_fpir(recognizer.contract, self.fpir, enrolled)
        return limit(recognizer.contract, self.fmr, self.threshold)


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a watch came to: `frames` that were looked at, in `seconds` of work on them, and the `visits`."""

    frames: int
    seconds: float
    visits: int


class Watch:
    """A recogniser with a gallery at a camera; `evidence`, `patience` and `gap` are `frames` and so on of its `Rules`.

    Where the model is not calibrated, the given threshold also says whether two faces of a video are one person's.
    Raises SteadfaceError, before any frame, for a recogniser without a gallery, and where the rate was not measured.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        limit: Limit = Limit(),  # frozen
        *,
        evidence: int = 5,
        patience: float = 2.0,
        gap: float = 2.0,
    ) -> None:
        if recognizer.gallery is None:
            raise InvalidInput("a watch needs a gallery; open it with gallery=Gallery.open(...)")
        self.recognizer, self._limit, self._gallery = recognizer, limit, recognizer.gallery
        self.enrolled = self._gallery.findable()
        self.threshold, self.fmr = limit.among(recognizer, self.enrolled)
        self.fpir = fpir_of(self.fmr, self.enrolled)
        same = alike(recognizer.contract)
        self._rules = Rules(alike=self.threshold if same is None else same, frames=evidence, patience=patience, gap=gap)

    def __call__(
        self,
        frames: Iterable[Frame],
        tell: Tell,
        *,
        noted: bool = False,
        show: Show = lambda _frame, _visits: None,
        stopped: Stopped = lambda: False,
    ) -> Watched:
        """Tells every event of the frames, until they end, `stopped` says so, or something fails; visits that go on
        then are closed in any case. Where it is `noted` who came the gallery's log has it, once for each visit.
        """
        visits = Visits(self.decide, self._rules)
        time, looked, worked = 0.0, 0, 0.0
        try:
            for frame in frames:
                if stopped():
                    break
                time, began = frame.time, perf_counter()
                self._tell_all(self._events(visits, frame), tell, noted)
                if frame.pixels is not None:
                    looked, worked = looked + 1, worked + perf_counter() - began
                    show(frame, visits.here)
        finally:
            self._tell_all(visits.close(time), tell, noted)
        return Watched(frames=looked, seconds=worked, visits=visits.count)

    def decide(self, templates: Vectors) -> list[Decision]:
        """Who the unit templates (n, D) are, at the threshold for as many people as can be found now."""
        threshold, _ = self._limit.among(self.recognizer, self._gallery.findable())
        return [_decision(found, threshold) for found in self._gallery.search(templates)]

    def _tell_all(self, events: Iterable[Event], tell: Tell, noted: bool) -> None:
        for event in events:
            tell(event)
            if noted and event.kind == "left" and event.decision.person is not None:
                self._gallery.note_matches([event.decision.person])

    def _events(self, visits: Visits, frame: Frame) -> list[Event]:
        if frame.pixels is None:
            return visits.pass_time(frame.time)
        picture = Photograph(pixels=frame.pixels, name=f"frame {frame.number}")
        _, faces = self.recognizer.seeing.faces(picture)
        return visits.frame(frame.time, self._sightings(faces))

    def _sightings(self, faces: Sequence[SeenFace]) -> list[Sighting]:
        if not faces:
            return []
        return [
            Sighting(box=seen.face.box, vector=vector, weight=weight(seen.quality), reasons=seen.quality.reasons)
            for seen, vector in zip(faces, self.recognizer.embed_faces(faces), strict=True)
            if seen.face is not None and seen.quality is not None
        ]


def _decision(found: Sequence[Candidate], threshold: float) -> Decision:
    if not found:
        return Decision(person=None, similarity=None, threshold=threshold)
    similarity = min(1.0, found[0].similarity)  # rounding may take it beyond
    person = found[0].person.name if similarity >= threshold else None
    return Decision(person=person, similarity=similarity, threshold=threshold)
