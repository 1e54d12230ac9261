"""The service as an ASGI application: who is let in, what is counted, and how long it lives."""

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from time import perf_counter
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders

from steadface.errors import SteadfaceError
from steadface.gallery.person import Person, PersonId
from steadface.service.admission import Doors, Limits
from steadface.service.bench import Bench
from steadface.service.bodies import Bounds
from steadface.service.collections import Collection, Collections
from steadface.service.keys import EVERYBODY, ApiKey, Keys, Scope
from steadface.service.observation import Metrics
from steadface.service.problems import Refused, Unknown, add_problems, unforeseen
from steadface.workflows.webhook import Webhook

FORGET_EVERY = 600.0
"""Seconds between two looks for who has expired."""
REQUEST_ID = re.compile(r"[\w-]{1,64}")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}

LOOPBACK = ("127.0.0.1", "localhost", "::1")

logger = logging.getLogger("steadface.service")

Scoped = MutableMapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the routes share. Without `keys` everybody who reaches it may do everything; with a `webhook` somebody hears
    of strangers and of people who are gone.
    """

    collections: Collections
    keys: Keys | None = None
    bounds: Bounds = field(default_factory=Bounds)
    metrics: Metrics = field(default_factory=Metrics)
    doors: Doors
    limits: Limits = field(default_factory=Limits)
    bench: Bench = field(default_factory=Bench)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    webhook: Webhook | None = None

    def tell(self, event: str, collection: Collection, **facts: Any) -> None:
        """Sends an event to the webhook, with no name and no face in it."""
        if self.webhook is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self.webhook.send({"event": event, "time": now, "collection": collection.name, **facts})

    def remove(self, collection: Collection, name: str) -> tuple[Person, dict[str, Any]]:
        """Removes somebody, by name or `PersonId`, and tells of it; who it was, and the receipt."""
        person, receipt = collection.gallery.removed(name)
        self.tell("deleted", collection, receipt=vars(receipt))
        return person, vars(receipt)

    def forget(self, collection: Collection) -> list[dict[str, Any]]:
        """Removes who has expired, and tells of each; their receipts."""
        gone = [PersonId(person.id) for person in collection.forget()]
        receipts = [vars(collection.gallery.receipt(person)) for person in gone]
        for receipt in receipts:
            self.tell("expired", collection, receipt=receipt)
        return receipts


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and in which collection."""

    key: ApiKey
    service: Service
    request: Request

    def collection(self, name: str | None, scope: Scope) -> Collection:
        """Raises Refused where the key does not allow that there, whether there is such a collection or not."""
        meant = name or next(iter(self.service.collections.named))
        if not self.key.may(scope, meant):
            raise Refused(f"this key does not allow {scope} in the collection {meant[:60]!r}; ask who gave it to you")
        return self.service.collections.get(meant)

    def anything(self, name: str | None) -> Collection:
        """Raises Refused where the key allows nothing there."""
        allowed = self.key.scopes[0] if self.key.scopes else "admin"
        return self.collection(name, allowed)

    def everywhere(self, scope: Scope) -> None:
        """Raises Refused where the key does not allow that, or not in all collections."""
        if not self.key.may(scope, None):
            raise Refused(f"this key does not allow {scope} everywhere; ask who gave it to you")


_bearer = HTTPBearer(auto_error=False, description="An API key, `sf_...`, as `steadface keys make` shows it once.")
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same, for clients without Authorization.")


async def caller(request: Request, bearer: Any = Depends(_bearer), header: Any = Depends(_header)) -> Caller:
    """Raises Unknown, and TooOften; a key in the address is not looked at."""
    service: Service = request.app.state.service
    if service.keys is None:
        _refuse_other_sites(request)
        return _known(request, service, EVERYBODY)
    token = bearer.credentials if bearer is not None else header
    key = None if token is None else service.keys.find(token)
    if key is None:
        service.metrics.refusals.labels("key").inc()
        raise Unknown("no API key, or none that is valid; send it as `Authorization: Bearer sf_...`")
    return _known(request, service, key)


def _refuse_other_sites(request: Request) -> None:
    """Any page that somebody on this machine looks at could ask in their name where no key is needed.

    Raises Refused for what a page from elsewhere sends, and for another name of this machine, which a page may have
    given it (DNS rebinding).
    """
    host = request.url.hostname or ""
    origin = request.headers.get("origin")
    elsewhere = request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    if (
        host not in LOOPBACK
        or elsewhere
        or (origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}")
    ):
        raise Refused(
            "without API keys this service answers this machine's own programs and its own page alone; open it at "
            "http://127.0.0.1, or make a key (`steadface keys make`)"
        )


def _known(request: Request, service: Service, key: ApiKey) -> Caller:
    request.state.key = key
    request.state.headers = service.limits.request(key)
    return Caller(key=key, service=service, request=request)


def application(service: Service) -> FastAPI:
    """The routes below `/v1`, the page, and what watches over them."""
    from steadface.service.routes import (
        administration,
        bench,
        compreface,
        compreface_people,
        page,
        people,
        recognition,
        shards,
    )

    app = FastAPI(
        title="Steadface",
        version=version("steadface"),
        summary="Face recognition that says what its answers mean.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
    )
    app.state.service = service
    for part in (recognition, people, shards, administration, compreface, compreface_people, bench, page):
        # As they are: `include_router` would build each of them once more, with the first request.
        app.router.routes.extend(part.router.routes)
    add_problems(app)
    app.add_middleware(Watch, service=service)
    service.metrics.watch(service.collections.watched)
    service.metrics.inside.set_function(lambda: service.doors.inside)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    job = asyncio.create_task(_forgetting(service))
    try:
        yield
    finally:
        service.stopping.set()
        job.cancel()
        with suppress(asyncio.CancelledError):
            await job
        await asyncio.to_thread(service.bench.close)


async def _forgetting(service: Service) -> None:
    """Removes who has expired, now and then."""
    while True:
        for collection in service.collections.named.values():
            try:
                gone = await service.doors.work(partial(service.forget, collection))
            except SteadfaceError as error:
                logger.warning("who has expired in %s was not removed: %s", collection.name, error)
                continue
            if gone:
                logger.info("removed who had expired", extra={"facts": {"people": [one["person"] for one in gone]}})
        await asyncio.sleep(FORGET_EVERY)


class Watch:
    """Gives every request an id, counts and times it, and writes one line about it; adds headers to every answer."""

    def __init__(self, app: Any, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(
        self, scope: Scoped, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["id"] = _request_id(scope)
        began, status = perf_counter(), 0

        async def sent(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in {**HEADERS, "X-Request-Id": state["id"], **state.get("headers", {})}.items():
                    headers.setdefault(name, value)
            await send(message)

        traces = self._service.metrics.traces
        with nullcontext() if traces is None else traces.request(Headers(scope=scope)) as tell:
            try:
                await self._app(scope, receive, sent)
            except Exception as error:
                if status:  # the answer has begun
                    raise
                await unforeseen(Request(scope), error)(scope, receive, sent)
            finally:
                facts = self._note(scope, status, perf_counter() - began)
                if tell is not None:
                    tell(facts)

    def _note(self, scope: Scoped, status: int, seconds: float) -> dict[str, Any]:
        route = getattr(scope.get("route"), "path", "none")  # never what was asked for: it may hold anything
        method = scope["method"] if scope["method"] in METHODS else "other"
        metrics = self._service.metrics
        metrics.requests.labels(route, method, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        if status in WHY:
            metrics.refusals.labels(WHY[status]).inc()
        key = scope["state"].get("key")
        facts = {
            "request": scope["state"]["id"],
            "key": None if key is None else key.id,
            "method": method,
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        logger.info("request", extra={"facts": facts})
        return facts


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WHY = {403: "scope", 408: "slow", 413: "large", 429: "often", 503: "busy"}


def _request_id(scope: Scoped) -> str:
    """The caller's own, where it is one that may stand in a log, else a new one."""
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def content_digest(route: str, pictures: Mapping[str, Any], words: Mapping[str, Any]) -> str:
    """Stands for all that a request asked."""
    parts = hashlib.sha256(route.encode())
    for name in sorted(pictures):
        for data in pictures[name]:
            parts.update(f"{name} {len(data)} ".encode() + data)
    parts.update(repr(sorted(words.items())).encode())
    return parts.hexdigest()
