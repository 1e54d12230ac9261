"""Collections: each a gallery with its own model, key and retention; a model is opened once, however many share it."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from steadface.arguments import Shard
from steadface.data.faces import Image
from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unsupported, quoted, short, unreadable
from steadface.faces.detection import Detector, Face, WholePicture
from steadface.files import read_file
from steadface.gallery.following import Freshness
from steadface.gallery.gallery import Gallery
from steadface.gallery.index.address import EXACT, index_at
from steadface.gallery.person import Person, PersonId, parse_expiry
from steadface.gallery.place import identified, is_file, storage_at
from steadface.gallery.session import Options
from steadface.recognition.answers import Identified
from steadface.recognition.face_finder import Seeing
from steadface.recognition.recognizer import Recognizer
from steadface.recognizers.embedder import Backend, Faces
from steadface.records import first_fault
from steadface.service.batching import BATCH, Embeddings, SharedEmbedder
from steadface.service.observation import Metrics, Watched
from steadface.workflows.recognize import with_gallery

DEFAULT = "default"
STALENESS = 1.0
"""Seconds, where a gallery is in a database and nothing is said."""
NOTED_EVERY = 3600.0
"""Seconds."""
LARGEST = 2**20
"""Bytes of a file of collections."""

logger = logging.getLogger("steadface.service")


Days = Annotated[float, Field(gt=0, le=36500)]


class Place(BaseModel):
    """Where the parts of a collection lie, whether all pictures for it are `aligned` faces already, and how long people
    stay in it: `days` after they were enrolled, at most, and `idle_days` after they were last matched. A search answers
    from a state of the gallery that is at most `staleness` seconds old. A gallery may be divided: this holds a `shard`
    of it, or asks `nodes` at these addresses, one for each shard, with the API key in the file `nodes_key`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    gallery: str | Path | None = Field(default=None, repr=False)  # an address may hold a password
    key: Path | None = None
    index: str = Field(default=EXACT, repr=False)
    contract: Path | None = None
    detector: Path | None = None
    aligned: bool = False
    guard: Path | None = None
    output: str | None = None
    backend: Backend = "auto"
    days: Days | None = None
    idle_days: Days | None = None
    staleness: Annotated[float, Field(ge=0)] | None = None
    shard: str | None = None
    nodes: tuple[str, ...] = ()
    nodes_key: Path | None = None

    @property
    def age(self) -> float:
        """The staleness that is meant: a file is asked before each search, and a database followed."""
        if self.staleness is not None:
            return self.staleness
        return STALENESS if self.gallery is not None and not is_file(self.gallery) else 0.0


@dataclass(frozen=True, kw_only=True)
class Collection:
    """One that is open."""

    name: str
    place: Place
    recognizer: Recognizer
    noted: dict[str, float] = field(default_factory=dict)
    """When a match of somebody was last written down, by name, as `time.monotonic` has it."""

    @cached_property
    def calibration(self) -> str | None:
        """An id that changes whenever the model is calibrated anew; None where it is not calibrated."""
        thresholds = self.recognizer.contract.thresholds
        if thresholds is None:
            return None
        return hashlib.sha256(json.dumps(thresholds.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def gallery(self) -> Gallery:
        """Raises NotFound where this collection only compares."""
        if self.recognizer.gallery is None:
            raise NotFound(f"the collection {self.name} has no gallery: nobody is enrolled in it; start it with one")
        return self.recognizer.gallery

    def until(self, asked: str | None) -> str | datetime | None:
        """When somebody enrolled now is to be forgotten: as asked, but no later than the collection keeps people."""
        if self.place.days is None:
            return asked
        latest = datetime.now(UTC) + timedelta(days=self.place.days)
        if asked is None:
            return latest
        return min(parse_expiry(asked), latest)

    def note_matches(self, answer: Identified) -> None:
        """Writes down who was matched, see `note_met`."""
        self.note_met({face.person for face in answer.faces if face.person is not None})

    def note_met(self, met: Set[str]) -> None:
        """Writes down who was met, where people whom nobody meets are forgotten; each once in an hour at most."""
        if self.place.idle_days is None:
            return
        now = monotonic()
        new = [name for name in met if now - self.noted.get(name, -math.inf) > NOTED_EVERY]
        if new:
            self.gallery.note_matches(new)
            self.noted.update(dict.fromkeys(new, now))

    def forget(self) -> list[Person]:
        """Removes who has expired, and who was not met for as long as people are kept without."""
        if self.recognizer.gallery is None:
            return []
        gone = self.gallery.expire()
        if self.place.idle_days is not None:
            idle = self.gallery.idle(datetime.now(UTC) - timedelta(days=self.place.idle_days))
            gone += [self.gallery.remove(PersonId(person.id)) for person in idle]
        return gone


@dataclass(frozen=True)
class Collections:
    """By name; the first is meant where none is named."""

    named: Mapping[str, Collection]
    embedders: Sequence[SharedEmbedder] = field(default=())

    def get(self, name: str | None) -> Collection:
        """Raises NotFound."""
        if name is None:
            return next(iter(self.named.values()))
        if name not in self.named:
            raise NotFound(f"there is no collection {quoted(name)}; there are {', '.join(self.named)}")
        return self.named[name]

    def galleries(self) -> Iterator[tuple[str, Gallery]]:
        """Of those that have one, by name."""
        for name, one in self.named.items():
            if one.recognizer.gallery is not None:
                yield name, one.recognizer.gallery

    def freshness(self) -> dict[str, Freshness]:
        """How old a state each gallery's searches answer from. Raises SteadfaceError where one of them would not."""
        return {name: gallery.freshness(wait=False) for name, gallery in self.galleries()}

    def watched(self) -> Iterator[tuple[str, Watched | None]]:
        """What is to be seen of each gallery from outside; None where it cannot be looked at."""
        for name, gallery in self.galleries():
            try:
                info, age = gallery.info(), gallery.freshness(wait=False).age
                yield name, Watched(people=info.people, templates=info.templates, age=age)
            except SteadfaceError:
                yield name, None

    def counts(self) -> dict[str, tuple[int, int]]:
        """People and templates by collection."""
        infos = {name: gallery.info() for name, gallery in self.galleries()}
        return {name: (info.people, info.templates) for name, info in infos.items()}


def read_places(path: Path) -> dict[str, Place]:
    """Of a YAML file, `name: {model: ..., gallery: ..., ...}`. Raises SteadfaceError for what cannot be meant."""
    try:
        told = yaml.safe_load(read_file(path, most=LARGEST))
    except OSError as error:
        raise unreadable(error, f"the collections {path} cannot be read: {error.strerror}; check the path") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInput(f"{path} is no YAML: {short(str(error), 200)}") from None
    if not isinstance(told, dict) or not told:
        raise InvalidInput(f"{path} names no collection; write `name: {{model: FILE, gallery: FILE}}` for each")
    return {_name(name): _place(name, given, path) for name, given in told.items()}


@contextmanager
def opened(places: Mapping[str, Place], metrics: Metrics, *, batch: int = BATCH) -> Iterator[Collections]:
    """All of them, until the end; at most `batch` faces go through a model at once.

    Raises SteadfaceError as `Recognizer.open` and `Gallery.open` do.
    """
    taken: dict[str, str] = {}
    for name, place in places.items():
        if place.gallery is not None and (other := taken.setdefault(identified(place.gallery), name)) != name:
            where = storage_at(place.gallery).name
            raise Conflict(f"the collections {other} and {name} have one gallery, {where}; name another")
    embedders: dict[tuple[Any, ...], SharedEmbedder] = {}
    with ExitStack() as stack:
        options = {name: stack.enter_context(_options(name, place)) for name, place in places.items()}
        found = {
            name: stack.enter_context(_opened(name, place, options[name], embedders, metrics, batch))
            for name, place in places.items()
        }
        for embedder in embedders.values():
            stack.callback(embedder.close)
        yield Collections(found, tuple(embedders.values()))


@contextmanager
def _options(name: str, place: Place) -> Iterator[Options]:
    """How its gallery is used. Raises SteadfaceError for what cannot be."""
    options = Options(**index_at(place.index), staleness=place.age)
    if place.shard is None and not place.nodes:
        yield options
    elif place.gallery is None or (place.shard is not None and place.nodes):
        raise InvalidInput(
            f"the collection {name}: a gallery is divided for nodes that hold a shard of it each, and for others that "
            "ask all of these; give the gallery, and either the shard or the nodes"
        )
    elif place.shard is not None:
        yield Options(**options, shard=Shard.parsed(place.shard))
    else:
        from steadface.service.shards import nodes  # needs httpx, which others do not

        with nodes(place.nodes, place.nodes_key, None if name == DEFAULT else name) as named:
            yield Options(**options, nodes=named)


@contextmanager
def _opened(
    name: str,
    place: Place,
    options: Options,
    embedders: dict[tuple[Any, ...], SharedEmbedder],
    metrics: Metrics,
    batch: int,
) -> Iterator[Collection]:
    recognizer = Recognizer.open(
        place.model,
        output=place.output,
        contract=place.contract,
        detector=WholePicture() if place.aligned else place.detector,
        guard=place.guard,
        backend=place.backend,
    )
    same = (recognizer.contract.weights, recognizer.contract.convention, recognizer.contract.mirror, place.backend)
    shared = embedders.get(same)
    if shared is None:
        shared = embedders[same] = SharedEmbedder(recognizer.embedder, most=batch, observe=metrics.batches.observe)
    recognizer.embedder = TimedEmbedder(shared, metrics)
    if (why := _without_detector(recognizer)) is not None:
        logger.warning("the collection %s takes aligned faces alone: %s", name, why)
        recognizer.seeing = Seeing.with_detector(NoDetector(name, why), recognizer.embedder.size)
    recognizer.seeing = recognizer.seeing.through(lambda detector: TimedDetector(detector, metrics))
    if place.gallery is None:
        yield Collection(name=name, place=place, recognizer=recognizer)
        return
    with with_gallery(recognizer, place.gallery, place.key, create=place.shard is None, **options) as made_key:
        assert recognizer.gallery is not None
        if made_key is not None:
            where = recognizer.gallery.name
            logger.warning("made the gallery %s; its key is in %s: keep a copy elsewhere", where, made_key)
        # Any search makes the index, so that nobody's first one waits for it.
        search = recognizer.gallery.search if place.shard is None else recognizer.gallery.search_shard
        search(np.eye(1, recognizer.contract.dimension, dtype=np.float32))
        yield Collection(name=name, place=place, recognizer=recognizer)


def _without_detector(recognizer: Recognizer) -> str | None:
    """Why there is none, if so: it is opened, or fetched, before the first request comes."""
    try:
        recognizer.seeing.detector  # noqa: B018 - it is opened when it is first asked for
    except SteadfaceError as error:
        return str(error)
    return None


class AlignedAlone(Unsupported):
    """A photograph for a collection that finds no faces."""

    http_status = 422


@dataclass(frozen=True)
class NoDetector:
    """In the place of a `Detector` of the collection of that name."""

    name: str
    why: str

    def detect(self, image: Image) -> list[Face]:  # noqa: ARG002
        """Raises AlignedAlone."""
        raise AlignedAlone(
            f"the collection {self.name} finds no faces in photographs ({self.why}); send aligned faces, with `aligned`"
        )


@dataclass(frozen=True)
class TimedEmbedder:
    """An `Embedder` whose callers' time is noted, the wait for others included."""

    embedder: SharedEmbedder
    metrics: Metrics

    @property
    def size(self) -> tuple[int, int]:
        return self.embedder.size

    def __call__(self, faces: Faces) -> Embeddings:
        with self.metrics.stage("embed"):
            return self.embedder(faces)


@dataclass(frozen=True)
class TimedDetector:
    """A `Detector` whose time is noted."""

    detector: Detector
    metrics: Metrics

    def detect(self, image: Image) -> list[Face]:
        with self.metrics.stage("detect"):
            return self.detector.detect(image)


def _name(name: object) -> str:
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 60:
        raise InvalidInput(f"{quoted(name)} is not a name for a collection: give letters, digits, - and _")
    return name


def _place(name: str, given: Any, path: Path) -> Place:
    try:
        return Place.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(f"{path}, {name}: {first_fault(error)}") from None
