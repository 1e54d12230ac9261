"""What a service refuses, as the exceptions that the library raises, by the status of the answer."""

import math
import time
from email.utils import parsedate_to_datetime
from typing import Any

from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unavailable, Unsupported, short, visible


class Refused(SteadfaceError):
    """The API key is none that is valid (401), or does not allow this (403): ask who gave it to you."""

    http_status = 403


class TooOften(Unavailable):
    """More than the key allows in a time; `after` is in how many seconds the same call may succeed."""

    http_status = 429

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after


KINDS: dict[int, type[SteadfaceError]] = {
    401: Refused,
    403: Refused,
    404: NotFound,
    408: Unavailable,
    409: Conflict,
    501: Unsupported,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_of(status: int, told: Any, after: float | None) -> SteadfaceError:
    """The problem `told` (None for a body that is no JSON), with its `detail` as the message.

    The request's id, by which the service's log knows it, is a note of the exception.
    """
    problem = told if isinstance(told, dict) else {}
    detail = problem.get("detail")
    words = visible(detail) if isinstance(detail, str) else _without_detail(status)
    if status == 429:
        error: SteadfaceError = TooOften(words, 1.0 if after is None else after)
    else:
        error = KINDS.get(status, InvalidInput if 400 <= status < 500 else SteadfaceError)(words)
    if isinstance(instance := problem.get("instance"), str):
        error.add_note(visible(short(instance)))
    return error


def _without_detail(status: int) -> str:
    if 300 <= status < 400:
        return f"the service answers with {status}, another address; give the client that one"
    return f"the service, or what stands before it, answers with {status} and says no more; check the address"


def seconds_of(header: str | None) -> float | None:
    """Of `Retry-After`: in seconds, or a date; None where it says nothing that can be meant."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
