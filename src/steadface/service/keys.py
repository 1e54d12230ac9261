"""API keys: 256 random bits each, shown once; what is kept is a keyed digest, and what the key may do.

A key reads `sf_IDENTITY_SECRET`. The file holds, beside a random secret of its own, HMAC-SHA-256(file's secret, key's
secret) for every key, so that who reads the file can use none. It is looked at again whenever it has changed: a key
that was made, rotated or revoked counts at once, without a restart.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AwareDatetime, ConfigDict, Field

from steadface.arguments import choice, count
from steadface.errors import InvalidInput, NotFound, quoted, unreadable
from steadface.files import read_private, write_atomically
from steadface.records import Record, Word, parsed

if sys.platform != "win32":
    import fcntl

Scope = Literal["verify", "identify", "enroll", "embed", "delete", "audit", "shard", "admin"]
"""`enroll` also lists and renames; `audit` reads the log; `shard` is for a node that asks others; `admin` may do
everything.
"""
Shows = Literal["decision", "rounded", "full"]
"""How much of a similarity an answer tells: nothing, a tenth, or all, with those below the threshold."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
EVERYWHERE = "*"
BYTES = 32
PREFIX = "sf"
MOST_KEYS = 10_000
LARGEST = 2**23
"""Bytes of a file of keys: ten thousand of the longest names fit."""
NAME = re.compile(r"[\w .@:/+-]{1,100}")

_HEX = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ApiKey(Record):
    """What the file holds of a key. `digest` is hexadecimal; `rate` counts requests a minute, and `probes` how often
    in an hour one enrolled person may be the most similar one in answers to this key: whoever asks again and again with
    changed pictures climbs towards somebody.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, allow_inf_nan=False, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    name: Word
    digest: _HEX
    created: AwareDatetime
    expires: AwareDatetime | None = None
    scopes: tuple[Scope, ...]
    collections: tuple[Word, ...] = (EVERYWHERE,)
    shows: Shows = "rounded"
    rate: Annotated[int, Field(ge=1, le=10**6)] = 600
    probes: Annotated[int, Field(ge=1, le=10**6)] = 60

    def may(self, scope: Scope, collection: str | None) -> bool:
        """Whether it allows that in the collection (None: in all of them)."""
        return self.reaches(collection) and (scope in self.scopes or "admin" in self.scopes)

    def reaches(self, collection: str | None) -> bool:
        """Whether it is for that collection (None: for all of them)."""
        return EVERYWHERE in self.collections or collection in self.collections

    def shown(self) -> dict[str, Any]:
        """What may be seen of it: nothing that opens anything."""
        return self.model_dump(mode="json", exclude={"digest"})

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


class _File(Record):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    secret: _HEX
    keys: Annotated[tuple[ApiKey, ...], Field(max_length=MOST_KEYS)]


EVERYBODY = ApiKey(
    id="0" * 8,
    name="anybody on this machine",
    digest="0" * 64,
    created=datetime(1970, 1, 1, tzinfo=UTC),
    scopes=("admin",),
    shows="full",
    rate=10**6,
    probes=10**6,
)
"""What may be done where a service has no keys, on the loopback interface alone."""


class Keys:
    """The keys in a file that only its owner reads. For several threads and processes."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises `NotFound` where there is no file, and `InvalidInput` where it is none of keys or open to others."""
        self._path, self._now = path, clock
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._file = _File(secret="0" * 64, keys=())
        self._refresh()

    @classmethod
    def create(cls, path: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> "Keys":
        """Those in the file, which is made, with no key in it, where there is none."""
        if not path.exists():
            _write(path, _File(secret=secrets.token_hex(BYTES), keys=()))
        return cls(path, clock=clock)

    def find(self, token: str) -> ApiKey | None:
        """The key that was shown as `token`, None where there is none of that kind or it has expired.

        How long that takes does not depend on what is wrong with it: a digest is compared in any case.
        """
        identity, secret = _parts(token)
        file = self._refresh()
        known = next((key for key in file.keys if key.id == identity), None)
        expected = "f" * 64 if known is None else known.digest
        right = hmac.compare_digest(_digest(file.secret, secret), expected)
        return known if right and known is not None and not known.expired(self._now()) else None

    def listed(self) -> tuple[ApiKey, ...]:
        """All of them, in the order in which they were made."""
        return self._refresh().keys

    def make(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        collections: Collection[str] = (EVERYWHERE,),
        expires: datetime | None = None,
        shows: Shows = "rounded",
        rate: int = 600,
        probes: int = 60,
    ) -> tuple[ApiKey, str]:
        """A new key, and as what it is to be shown, once. Raises `InvalidInput` for what cannot be."""
        if not NAME.fullmatch(name):
            raise InvalidInput(f"{quoted(name)} is not a name for a key: give up to 100 letters, digits and - _ . @")
        if not scopes:
            raise InvalidInput(f"a key without a scope opens nothing; give one of {', '.join(SCOPES)}")
        if expires is not None and expires <= self._now():
            raise InvalidInput(f"the key would have expired already, at {expires:%Y-%m-%d %H:%M} UTC")
        with self._changing() as file:
            if len(file.keys) >= MOST_KEYS:
                raise InvalidInput(f"there are {MOST_KEYS:,} keys already; revoke some first")
            key = ApiKey(
                id=_free(file),
                name=name,
                digest="0" * 64,
                created=self._now(),
                expires=expires,
                scopes=tuple(choice("a scope", scope, Scope) for scope in scopes),
                collections=tuple(collections),
                shows=choice("shows", shows, Shows),
                rate=count("rate", rate),
                probes=count("probes", probes),
            )
            return self._issue(file, key)

    def rotate(self, identity: str) -> tuple[ApiKey, str]:
        """Another secret for the key of that id, which keeps all else; the old one opens nothing any more.

        Raises `NotFound`.
        """
        with self._changing() as file:
            return self._issue(file, self._known(file, identity))

    def revoke(self, identity: str) -> ApiKey:
        """Takes the key of that id away. Raises `NotFound`."""
        with self._changing() as file:
            key = self._known(file, identity)
            _write(self._path, file.model_copy(update={"keys": tuple(one for one in file.keys if one != key)}))
            return key

    def _issue(self, file: _File, key: ApiKey) -> tuple[ApiKey, str]:
        secret = base64.urlsafe_b64encode(secrets.token_bytes(BYTES)).decode().rstrip("=")
        issued = key.model_copy(update={"digest": _digest(file.secret, secret)})
        others = tuple(one for one in file.keys if one.id != key.id)
        _write(self._path, file.model_copy(update={"keys": (*others, issued)}))
        return issued, f"{PREFIX}_{key.id}_{secret}"

    def _known(self, file: _File, identity: str) -> ApiKey:
        key = next((one for one in file.keys if one.id == identity), None)
        if key is None:
            raise NotFound(f"there is no key {quoted(identity)} in {self._path}; `steadface keys list` says which are")
        return key

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """What the file holds, while nobody else changes it."""
        with (self._path.parent / f".{self._path.name}.lock").open("a") as lock:
            if sys.platform != "win32":
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield _read(self._path)

    def _refresh(self) -> _File:
        """What the file holds now; read anew only where it has changed."""
        try:
            seen = _look(self._path)
        except OSError as error:
            raise unreadable(error, f"the keys {self._path} cannot be read: {error.strerror}; check the path") from None
        with self._lock:
            if seen != self._seen:
                self._file, self._seen = _read(self._path), seen
            return self._file


def _look(path: Path) -> tuple[int, ...]:
    at = path.stat()
    return at.st_ino, at.st_size, at.st_mtime_ns


def _read(path: Path) -> _File:
    try:
        text = read_private(path, "the file of API keys", most=LARGEST)
    except OSError as error:
        raise unreadable(error, f"the keys {path} cannot be read: {error.strerror}; check the path") from None
    try:
        return parsed(_File, text)
    except InvalidInput as error:
        raise InvalidInput(f"{path} is not a file of API keys ({error}); make one with `steadface keys make`") from None


def _write(path: Path, file: _File) -> None:
    write_atomically(path, json.dumps(file.model_dump(mode="json"), indent=1).encode(), private=True)


def _digest(secret: str, token: str) -> str:
    return hmac.new(bytes.fromhex(secret), token.encode(), hashlib.sha256).hexdigest()


def _parts(token: str) -> tuple[str, str]:
    """Identity and secret, of whatever was given."""
    prefix, _, rest = token[:200].partition("_")
    identity, _, secret = rest.partition("_")
    return (identity, secret) if prefix == PREFIX else ("", token[:200])


def _free(file: _File) -> str:
    taken = {key.id for key in file.keys}
    return next(one for one in iter(lambda: secrets.token_hex(4), None) if one not in taken)
