"""What goes wrong, as a caller sees it: RFC 9457 problems, their status from the class of the error alone."""

import logging
import re
import traceback
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from steadface.errors import SteadfaceError, short, visible
from steadface.service.disclosure import without_figures
from steadface.service.keys import EVERYBODY

MEDIA = "application/problem+json"
RETRY = 1
"""Seconds after which what was not to be had may be."""

logger = logging.getLogger("steadface.service")


class Refused(SteadfaceError):
    """A caller who may not: without a key, or with one that does not allow this."""

    http_status = 403


class Unknown(Refused):
    """Nobody knows who calls."""

    http_status = 401


class TooLarge(SteadfaceError):
    """More bytes, parts or pictures than the service takes."""

    http_status = 413


class WrongMedia(SteadfaceError):
    """A body of a kind that the service does not read."""

    http_status = 415


class TooSlow(SteadfaceError):
    """A body that did not arrive in time."""

    http_status = 408


class TooOften(SteadfaceError):
    """More requests, or more probes of one person, than the key allows; `after` is in seconds."""

    http_status = 429

    def __init__(self, message: str, after: int) -> None:
        super().__init__(message)
        self.after = after


def problem(
    status: int, detail: str, request: Request, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """`type` names the kind of the error, `instance` the request, as the log does; `more` are members of its own."""
    title = HTTPStatus(status).phrase
    kind = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
    body = {
        "type": f"urn:steadface:problem:{kind}",
        "title": title,
        "status": status,
        "detail": visible(detail),
        "instance": f"urn:request:{getattr(request.state, 'id', '')}",
        **more,
    }
    return JSONResponse(body, status, dict(headers or {}), MEDIA)


def problem_of(error: SteadfaceError, request: Request, *, code: int | None = None) -> JSONResponse:
    """With a `code` of CompreFace's, and the `message` that its clients show, where one is given."""
    key = getattr(request.state, "key", EVERYBODY)
    words = without_figures(str(error), key.shows)
    more = {} if code is None else {"code": code, "message": visible(words)}
    return problem(error.http_status, words, request, _headers(error), **more)


def add_problems(app: FastAPI) -> None:
    """Every error that a route foresees becomes a problem; see also `unforeseen`."""

    @app.exception_handler(SteadfaceError)
    async def expected(request: Request, error: SteadfaceError) -> JSONResponse:
        return problem_of(error, request)

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), request, error.headers)

    @app.exception_handler(RequestValidationError)
    async def of_a_parameter(request: Request, error: RequestValidationError) -> JSONResponse:
        first: Mapping[str, Any] = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"])
        return problem(422, f"{short(place)}: {short(first['msg'], 200)}", request)


def unforeseen(request: Request, error: Exception) -> JSONResponse:
    """For what is an error of the service itself; the log says where, and nothing of its words, which may hold what
    was sent, a name or a similarity.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-6:]]
    facts = {"request": request.state.id, "error": type(error).__name__, "at": places}
    logger.error("unforeseen", extra={"facts": facts})
    return problem(500, "an error that nobody foresaw; the log knows the request by its instance", request)


def _headers(error: SteadfaceError) -> dict[str, str]:
    match error:
        case TooOften():
            return {"Retry-After": str(error.after)}
        case Unknown():
            return {"WWW-Authenticate": 'Bearer realm="steadface"'}
        case _:
            return {"Retry-After": str(RETRY)} if error.http_status == 503 else {}
