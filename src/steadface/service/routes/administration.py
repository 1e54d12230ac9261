"""Health, metrics, collections, models, the log, and the keys: what those who run the service look at."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field

from steadface.errors import NotFound, Unavailable
from steadface.gallery.person import parse_expiry
from steadface.gallery.storage import Entry
from steadface.service.application import Caller, Service
from steadface.service.bodies import Options, options
from steadface.service.keys import EVERYWHERE, ApiKey, Keys, Scope, Shows
from steadface.service.routes.documented import body, problems
from steadface.service.routes.people import Collected
from steadface.service.routes.recognition import Asking, read

router = APIRouter()


class KeyOptions(Options):
    name: Annotated[str, Field(max_length=100)]
    scopes: tuple[Scope, ...]
    collections: tuple[str, ...] = (EVERYWHERE,)
    shows: Shows = "rounded"
    rate: Annotated[int, Field(ge=1, le=10**6)] = 600
    probes: Annotated[int, Field(ge=1, le=10**6)] = 60
    expires: Annotated[str | None, Field(max_length=40)] = None


@router.get("/v1/health/live", tags=["health"])
async def live() -> dict[str, str]:
    """The process answers."""
    return {"status": "live"}


@router.get("/v1/health/ready", tags=["health"], responses={503: problems()[503]})
async def ready(request: Request) -> dict[str, Any]:
    """Models are open, galleries can be read and are known as they are now, and there is room for a request."""
    service: Service = request.app.state.service
    if service.stopping.is_set():
        raise Unavailable("the service is stopping")
    async with service.doors.through():
        await asyncio.to_thread(service.collections.freshness)  # also where all workers wait for a gallery
    return {"status": "ready"}


@router.get("/metrics", tags=["health"], response_class=Response)
async def metrics(asking: Asking) -> Response:
    """For Prometheus; with any valid key."""
    text = await asking.service.doors.work(asking.service.metrics.text)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/collections", tags=["administration"], responses=problems())
async def collections(asking: Asking) -> list[dict[str, Any]]:
    """Those that the key may use, with their models."""
    named = asking.service.collections.named
    allowed = [name for name in named if asking.key.reaches(name)]

    def job() -> list[dict[str, Any]]:
        counts = asking.service.collections.counts()
        return [
            {
                "name": name,
                "model": named[name].recognizer.contract.name,
                "calibration": named[name].calibration,
                "people": counts[name][0] if name in counts else None,
                "templates": counts[name][1] if name in counts else None,
                "days": named[name].place.days,
            }
            for name in allowed
        ]

    return await asking.service.doors.work(job)


@router.get("/v1/model", tags=["administration"], responses=problems())
async def model(asking: Asking, collection: Collected = None) -> dict[str, Any]:
    """The model of a collection and its calibration: which similarity stands for which rate."""
    meant = asking.anything(collection)
    contract = meant.recognizer.contract
    return {
        **{name: value for name, value in contract.to_json().items() if name != "thresholds"},
        "calibration": meant.calibration,
        "thresholds": None if contract.thresholds is None else contract.thresholds.to_json(),
    }


@router.get("/v1/log", tags=["administration"], responses=problems())
async def audit_log(
    asking: Asking,
    collection: Collected = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="The last entry seen.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """What was done to a gallery, by whose random id, oldest first; `head` may be noted elsewhere, and `last` is the
    number of the last entry.
    """
    gallery = asking.collection(collection, "audit").gallery

    def job() -> dict[str, Any]:
        shown = [_entry(one) for one in gallery.entries(after=after, most=limit)]
        more = shown[-1]["entry"] if len(shown) == limit else None
        info = gallery.info()
        return {"entries": shown, "next": more, "last": info.entries, "head": info.head}

    async with asking.service.doors.through():
        return await asking.service.doors.work(job)


@router.post("/v1/expire", tags=["administration"], responses=problems())
async def expire(asking: Asking, collection: Collected = None) -> dict[str, Any]:
    """Removes everybody whose consent has expired, or whom nobody met for too long, at once; with receipts."""
    meant = asking.collection(collection, "delete")

    async with asking.service.doors.through():
        return {"receipts": await asking.service.doors.work(lambda: asking.service.forget(meant))}


@router.get("/v1/key", tags=["administration"], responses=problems())
async def own_key(asking: Asking) -> dict[str, Any]:
    """The key that asks, and whether the service asks for one."""
    return {**_told(asking.key), "needed": asking.service.keys is not None}


@router.get("/v1/keys", tags=["administration"], responses=problems())
async def keys(asking: Asking) -> list[dict[str, Any]]:
    """All API keys, without what opens anything."""
    return [_told(key) for key in _keys(asking).listed()]


@router.post(
    "/v1/keys",
    tags=["administration"],
    status_code=201,
    responses=problems(),
    openapi_extra=body([], [], KeyOptions, {"name": "door 3", "scopes": ["identify"]}),
)
async def make_key(asking: Asking) -> dict[str, Any]:
    """A new key, which is shown in this answer and never again."""
    held = _keys(asking)
    asked = options(KeyOptions, (await read(asking)).words)
    key, token = held.make(
        asked.name,
        asked.scopes,
        collections=asked.collections,
        expires=None if asked.expires is None else parse_expiry(asked.expires),
        shows=asked.shows,
        rate=asked.rate,
        probes=asked.probes,
    )
    return {**_told(key), "key": token}


@router.post("/v1/keys/{identity}/rotate", tags=["administration"], responses=problems())
async def rotate_key(identity: str, asking: Asking) -> dict[str, Any]:
    """Another secret for a key, shown once; the old one opens nothing any more."""
    key, token = _keys(asking).rotate(identity)
    return {**_told(key), "key": token}


@router.delete("/v1/keys/{identity}", tags=["administration"], responses=problems())
async def revoke_key(identity: str, asking: Asking) -> dict[str, Any]:
    """Takes a key away, at once."""
    return _told(_keys(asking).revoke(identity))


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "entry": entry.sequence,
        "time": entry.time,
        "event": entry.event,
        "person": entry.person,
        "details": json.loads(entry.details),
        "hash": entry.hash.hex(),
    }


def _keys(asking: Caller) -> Keys:
    asking.everywhere("admin")
    if asking.service.keys is None:
        raise NotFound("this service runs without keys; start it with --keys FILE")
    held: Keys = asking.service.keys
    return held


def _told(key: ApiKey) -> dict[str, Any]:
    return {**key.shown(), "expired": key.expired(datetime.now(UTC))}
