"""JSON of each kind of answer as its type."""

from typing import Any

from steadface.client.answers import (
    ApiKey,
    Candidate,
    Collection,
    Detection,
    Embeddings,
    Enrolment,
    FaceSeen,
    Identification,
    Json,
    Log,
    LogEntry,
    Model,
    Person,
    Receipt,
    Verification,
    moment,
)


def verification(told: Json) -> Verification:
    return Verification.of(told, **_common(told))


def identification(told: Json) -> Identification:
    return Identification.of(told, **_common(told))


def detection(told: Json) -> Detection:
    return Detection.of(told, faces=_faces(told))


def embeddings(told: Json) -> Embeddings:
    return Embeddings.of(told, embeddings=tuple(map(tuple, told["embeddings"])))


def enrolment(told: Json) -> Enrolment:
    resembles = _candidates(told.get("resembles", ()))
    return Enrolment.of(told, resembles=resembles, notes=tuple(told.get("notes", ())))


def person(told: Json) -> Person:
    return Person.of(
        told,
        enrolled=moment(told["enrolled"]),
        expires=moment(told.get("expires")),
        template_list=tuple(one["template"] for one in told.get("template_list", ())),
    )


def page(told: Json) -> tuple[list[Person], int | None]:
    """People, and what the next page is after."""
    return [person(one) for one in told["people"]], told["next"]


def receipt(told: Json) -> Receipt:
    return Receipt.of(told["receipt"])


def receipts(told: Json) -> tuple[Receipt, ...]:
    return tuple(Receipt.of(one) for one in told["receipts"])


def model(told: Json) -> Model:
    return Model.of(told)


def log(told: Json) -> Log:
    return Log.of(told, entries=tuple(LogEntry.of(one) for one in told["entries"]))


def collections(told: Any) -> tuple[Collection, ...]:
    return tuple(Collection.of(one) for one in told)


def api_key(told: Json) -> ApiKey:
    return ApiKey.of(
        told,
        scopes=tuple(told["scopes"]),
        collections=tuple(told["collections"]),
        created=moment(told["created"]),
        expires=moment(told.get("expires")),
    )


def api_keys(told: Any) -> tuple[ApiKey, ...]:
    return tuple(map(api_key, told))


def _common(told: Json) -> dict[str, Any]:
    interval = told.get("threshold_interval")
    return {
        "faces": _faces(told),
        "notes": tuple(told.get("notes", ())),
        "threshold_interval": None if interval is None else tuple(interval),
    }


def _faces(told: Json) -> tuple[FaceSeen, ...]:
    return tuple(_face(one) for one in told.get("faces", ()))


def _face(told: Json) -> FaceSeen:
    box, landmarks = told.get("box"), told.get("landmarks")
    return FaceSeen.of(
        told,
        box=None if box is None else tuple(box),
        landmarks=None if landmarks is None else tuple(map(tuple, landmarks)),
        candidates=_candidates(told.get("candidates", ())),
    )


def _candidates(told: Any) -> tuple[Candidate, ...]:
    return tuple(Candidate.of(one) for one in told)
