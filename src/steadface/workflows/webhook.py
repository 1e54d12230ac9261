"""Events sent to somebody's server, signed, from a thread of its own: whoever sends one never waits.

    body       the event as JSON, with an `id` that stays the same when it is sent again
    signature  Steadface-Signature: t=SECONDS,v1=HMAC-SHA-256(secret, "SECONDS." + body) as hexadecimal digits

SECONDS is the time of sending, so that a receiver can refuse what is sent anew by somebody else. What cannot be
delivered is sent again after a wait that doubles; what waits is bounded, and of more the oldest is given up.
"""

import hashlib
import hmac
import json
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from steadface.errors import InvalidInput
from steadface.faces.sources import address
from steadface.files import plain, read_secret

HEADER = "Steadface-Signature"
MOST_WAITING = 1000
"""Events."""
ATTEMPTS, FIRST_WAIT, LONGEST_WAIT = 8, 1.0, 60.0
"""How often one event is sent, and the seconds in between: two minutes in all."""
ANSWER = 10.0
"""Seconds that a server has to answer."""
GRACE = 10.0
"""Seconds for what still waits at the end."""
AGAIN = (408, 425, 429)
"""Answers, besides those from 500 on, after which the same may succeed later."""

logger = logging.getLogger(__name__)


def signature(secret: bytes, seconds: int, body: bytes) -> str:
    """The value of the header.

    >>> signature(b"key", 1, b"{}")[:12]
    't=1,v1=1ba6b'
    """
    return f"t={seconds},v1={hmac.new(secret, f'{seconds}.'.encode() + body, hashlib.sha256).hexdigest()}"


def check_url(url: str) -> None:
    """Raises InvalidInput for what is no http(s) address, or holds a password, which would come to stand in logs."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or not url.isascii() or not url.isprintable() or " " in url:
        raise InvalidInput("the address of the webhook is none; give one that begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(
            f"the address of the webhook, {address(url)}, holds a name or a password; leave them out: what is sent is "
            "signed with the secret"
        )


def opening(url: str | None, secret: Path | None) -> "Callable[[], Webhook] | None":
    """What opens the webhook, once all that it takes is known to be right."""
    if (url is None) != (secret is None):
        raise InvalidInput("a webhook is signed: give both --webhook and --webhook-secret-file")
    if url is None or secret is None:
        return None
    check_url(url)
    key = read_secret(secret, "the secret", remedy="make one with `openssl rand -hex 32`")
    return partial(Webhook, url, key)


class _NoRedirect(HTTPRedirectHandler):
    """What is signed for one server is not carried to another one."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass
class _Letter:
    body: bytes
    attempts: int = 0
    due: float = 0.0


class Webhook:
    """Sends what it is given to `url`. Raises InvalidInput for what is no address; `close` it at the end."""

    def __init__(self, url: str, secret: bytes, *, most: int = MOST_WAITING, first_wait: float = FIRST_WAIT) -> None:
        check_url(url)
        self._url, self._secret, self._most, self._first_wait = url, secret, most, first_wait
        self._opener = build_opener(_NoRedirect)
        self._letters: deque[_Letter] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.delivered = self.lost = 0
        self._thread = threading.Thread(target=self._work, name="webhook", daemon=True)
        self._thread.start()

    def send(self, event: Mapping[str, Any]) -> None:
        """Returns at once."""
        body = json.dumps(plain({"id": secrets.token_hex(16), **event}), allow_nan=False).encode()
        with self._changed:
            if len(self._letters) >= self._most:
                self._letters.popleft()
                self._lose("more events wait than are kept")
            self._letters.append(_Letter(body))
            self._changed.notify()

    def close(self, grace: float = GRACE) -> None:
        """Sends what waits once more, for `grace` seconds at most; what is not taken is lost, and said to be."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(grace)
        with self._changed:
            for _ in range(len(self._letters)):
                self._letters.popleft()
                self._lose("it did not answer before the end")

    def _work(self) -> None:
        while (letter := self._next()) is not None:
            failed = self._post(letter)
            with self._changed:
                self._after(letter, failed)

    def _next(self) -> _Letter | None:
        """The oldest, once it is due; None at the end."""
        with self._changed:
            while self._letters or not self._closing:
                wait = self._letters[0].due - time.monotonic() if self._letters else None
                if wait is not None and (wait <= 0 or self._closing):
                    return self._letters[0]
                self._changed.wait(wait)
        return None

    def _after(self, letter: _Letter, failed: "_Failed | None") -> None:
        if not self._letters or self._letters[0] is not letter:
            return  # given up meanwhile, with others that waited
        letter.attempts += 1
        if failed is None:
            self._letters.popleft()
            self.delivered += 1
        elif not failed.again or letter.attempts >= ATTEMPTS or self._closing:
            self._letters.popleft()
            self._lose(failed.why)
        else:
            letter.due = time.monotonic() + min(self._first_wait * 2 ** (letter.attempts - 1), LONGEST_WAIT)
            if letter.attempts == 1:
                logger.warning("%s does not take events (%s); they are sent again", address(self._url), failed.why)

    def _lose(self, why: str) -> None:
        self.lost += 1
        logger.warning("an event was not delivered to %s: %s", address(self._url), why)

    def _post(self, letter: _Letter) -> "_Failed | None":
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "steadface",
            HEADER: signature(self._secret, int(time.time()), letter.body),
        }
        try:
            with self._opener.open(Request(self._url, letter.body, headers), timeout=ANSWER) as answer:
                answer.read(1)
        except HTTPError as error:
            error.close()
            return _Failed(f"it answers {error.code}", again=error.code >= 500 or error.code in AGAIN)
        except (OSError, HTTPException) as error:
            return _Failed(f"it cannot be reached, {type(getattr(error, 'reason', error)).__name__}", again=True)
        return None


@dataclass(frozen=True)
class _Failed:
    why: str
    again: bool
