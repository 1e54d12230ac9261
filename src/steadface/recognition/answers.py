"""Which similarity decides, and what a recogniser answers, with everything needed to judge the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import expm1, log1p
from typing import Any

from steadface.arguments import rate as checked_rate
from steadface.data.faces import Image
from steadface.errors import InvalidInput, SteadfaceError, Unsupported
from steadface.evaluation.thresholds import Thresholds, checked_threshold
from steadface.faces.detection import Face
from steadface.faces.quality import Quality, way_up
from steadface.faces.surveying import face_json
from steadface.recognizers.contract import Contract


class NotCalibrated(Unsupported):
    """A rate was asked for of a model of which no rate is known."""

    http_status = 422


@dataclass(frozen=True, kw_only=True)
class SeenFace:
    """A face of a photograph: `aligned` (H, W, 3), its `face` and `quality` in the photograph's own pixels.

    Both are None where the picture was given as an aligned face. `others` counts the photograph's other faces.
    """

    name: str
    aligned: Image
    face: Face | None = None
    quality: Quality | None = None
    others: int = 0

    def to_json(self) -> dict[str, Any]:
        """Without any pixels."""
        nothing = dict.fromkeys(("box", "landmarks", "score", "turned", "unsure", "quality"))
        found: dict[str, Any] = {"image": self.name, **nothing}
        if self.face is not None and self.quality is not None:
            found |= {**face_json(self.face), "quality": self.quality.to_json()}
        return {**found, "other_faces": self.others}


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """What the guard says of a probe: its disagreement `score`, and whether that is above the guard's `threshold`."""

    score: float
    threshold: float
    suspicious: bool

    def to_json(self) -> dict[str, Any]:
        return {"score": self.score, "threshold": self.threshold, "suspicious": self.suspicious}


@dataclass(frozen=True, kw_only=True)
class Verified:
    """Whether two pictures show one person: `match` iff `similarity` >= `threshold`, which stands for `fmr`.

    `fmr` is None where the threshold was given. `suspicion` is of the second picture, the probe.
    """

    similarity: float
    threshold: float
    fmr: float | None
    faces: tuple[SeenFace, SeenFace]
    suspicion: Suspicion | None = None
    notes: tuple[str, ...] = ()

    @property
    def match(self) -> bool:
        return self.similarity >= self.threshold

    def to_json(self) -> dict[str, Any]:
        return {
            "similarity": self.similarity,
            "threshold": self.threshold,
            "fmr": self.fmr,
            "match": self.match,
            "faces": [face.to_json() for face in self.faces],
            "guard": None if self.suspicion is None else self.suspicion.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Somebody enrolled, and how similar the probe is to the best of their templates."""

    person: str
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Named:
    """A face and the enrolled people most similar to it, best first; the first one matches iff >= the threshold."""

    seen: SeenFace
    candidates: tuple[Candidate, ...]
    threshold: float
    suspicion: Suspicion | None = None

    @property
    def match(self) -> bool:
        return bool(self.candidates) and self.candidates[0].similarity >= self.threshold

    @property
    def person(self) -> str | None:
        return self.candidates[0].person if self.match else None

    def to_json(self) -> dict[str, Any]:
        return {
            **self.seen.to_json(),
            "match": self.match,
            "person": self.person,
            "similarity": self.candidates[0].similarity if self.candidates else None,
            "candidates": [{"person": one.person, "similarity": one.similarity} for one in self.candidates],
            "guard": None if self.suspicion is None else self.suspicion.to_json(),
        }


@dataclass(frozen=True, kw_only=True)
class Identified:
    """Who is in a photograph, among `enrolled` people: a `Named` for each face, largest first.

    `fmr` is that of one comparison with one person, `fpir` the chance that a stranger is taken for anybody, both None
    where the threshold was given.
    """

    image: str
    width: int
    height: int
    faces: tuple[Named, ...]
    threshold: float
    fmr: float | None
    fpir: float | None
    enrolled: int
    notes: tuple[str, ...] = ()

    @property
    def match(self) -> bool:
        return any(face.match for face in self.faces)

    def to_json(self) -> dict[str, Any]:
        best = max((face for face in self.faces if face.candidates), key=_similarity, default=None)
        return {
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "similarity": None if best is None else _similarity(best),
            "threshold": self.threshold,
            "fmr": self.fmr,
            "fpir": self.fpir,
            "enrolled": self.enrolled,
            "match": self.match,
            "faces": [face.to_json() for face in self.faces],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """Who was enrolled from which faces; `resembles` names other people that the new template would match.

    `id` is the person's random one. `agreement` is the lowest cosine of an image to the template of all of them, 1 for
    a single image. `template` is the
    number of the new one, of `templates` that the person has now; `similarity` is its cosine to the most similar of
    those that were there, None for somebody new. Where it is
    `repeated` an equal request had done so before.
    """

    person: str
    id: str
    faces: tuple[SeenFace, ...]
    agreement: float
    resembles: tuple[Candidate, ...]
    template: int
    templates: int
    similarity: float | None = None
    repeated: bool = False
    notes: tuple[str, ...] = ()

    @property
    def added(self) -> bool:
        """Whether the person was enrolled already."""
        return self.similarity is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "person": self.person,
            "id": self.id,
            "images": len(self.faces),
            "agreement": self.agreement,
            "added": self.added,
            "similarity": self.similarity,
            "template": self.template,
            "templates": self.templates,
            "resembles": [{"person": one.person, "similarity": one.similarity} for one in self.resembles],
            "faces": [face.to_json() for face in self.faces],
            "notes": list(self.notes),
        }


def _similarity(named: Named) -> float:
    return named.candidates[0].similarity


def notes_on(faces: Sequence[SeenFace], size: tuple[int, int]) -> tuple[str, ...]:
    """What somebody should know of the faces before trusting the answer of a model for faces of `size`."""
    several = [f"{face.name}: the largest of {face.others + 1} faces was taken" for face in faces if face.others]
    small = [
        f"{face.name}: so small that it was enlarged more than twice"
        for face in faces
        if face.face is None and 2 * min(face.aligned.shape[:2]) < min(size)
    ]
    poor = [f"{face.name}: {why}" for face in faces if face.quality is not None for why in face.quality.reasons]
    return (*several, *small, *poor)


def resembling(who: str, other: Candidate) -> str:
    return f"{who} looks like {other.person}, who is enrolled as well (similarity {other.similarity:.3f})"


def confusing(name: str, other: str) -> str:
    """What somebody should know who gives a person the `name`, which looks like that of `other`."""
    return (
        f"the name {name} is easily taken for {other}, who is enrolled too ({name!a} and {other!a}); if they are one "
        "person, merge them"
    )


def ways_up(faces: Sequence[SeenFace]) -> tuple[str, ...]:
    """Of faces numbered from 1: which lay, or may be another way up than they were taken."""
    return tuple(
        f"face {number}: {words}"
        for number, seen in enumerate(faces, start=1)
        if seen.face is not None
        for words in way_up(seen.face)
    )


FMR = 1e-3
"""Where no rate is asked for; pictures enrolled under one name have to be one person's at its threshold as well."""


def limit(contract: Contract, fmr: float | None, threshold: float | None) -> tuple[float, float | None]:
    """The threshold of `fmr` (`FMR` if nothing is said) and that rate, or the `threshold` that is given and None.

    Raises SteadfaceError for both at once, for what cannot be, and where the model is not calibrated for the rate.
    """
    if threshold is not None:
        if fmr is not None:
            raise InvalidInput(f"give fmr or threshold, not both (fmr {fmr:g}, threshold {threshold:g})")
        return checked_threshold(threshold), None
    at = checked_rate("FMR", FMR if fmr is None else fmr)
    return _thresholds(contract, at).at(at), at


def limit_of_fpir(contract: Contract, fpir: float, enrolled: int) -> tuple[float, float | None]:
    """`limit` of the FMR at which a stranger is taken for any of the `enrolled` with the chance `fpir`."""
    fmr = -expm1(log1p(-checked_rate("FPIR", fpir)) / max(1, enrolled))
    try:
        return limit(contract, fmr, None)
    except SteadfaceError as error:
        raise type(error)(f"FPIR {fpir:g} among {enrolled} enrolled is FMR {fmr:.3g} each: {error}") from error


def fpir_of(fmr: float | None, enrolled: int) -> float | None:
    """FPIR = 1 - (1 - FMR)^N; None where the threshold was given."""
    return None if fmr is None else abs(expm1(enrolled * log1p(-fmr)))


def alike(contract: Contract) -> float | None:
    """From which cosine on what is enrolled under one name is taken for one person's: the threshold of FMR 1e-3, or of
    the lowest FMR that the model is calibrated for. None where it is not calibrated.
    """
    thresholds = contract.thresholds
    return None if thresholds is None else thresholds.at(max(FMR, thresholds.lowest_fmr))


def doubts(contract: Contract, fmr: float | None) -> tuple[str, ...]:
    """Reasons for care with a threshold of `fmr`: the contract's own, and few people behind it."""
    thresholds = contract.thresholds
    if fmr is None or thresholds is None or not thresholds.rests_on_few_people(fmr):
        return contract.notes
    few = f"the threshold of FMR {fmr:g} rests on {thresholds.people} people, which are few for it"
    return (few, *contract.notes)


def _thresholds(contract: Contract, fmr: float) -> Thresholds:
    if contract.thresholds is None:
        how = " with" if contract.mirror else " without"
        raise NotCalibrated(
            f"{contract.name} is not calibrated{how} mirror images, so nothing says which similarity stands for FMR "
            f"{fmr:g}; run `steadface calibrate MODEL --images FACES` on faces of known people, or give a threshold"
        )
    return contract.thresholds
