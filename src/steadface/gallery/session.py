"""A gallery that is open: it is there, its key fits, and its model is the one that is meant.

Every look at the gallery and every change to it begins by asking whether that is still so.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

from steadface.arguments import as_path
from steadface.errors import Conflict, InvalidInput, quoted
from steadface.gallery.index import VectorIndex
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.index.follower import Follower, Names
from steadface.gallery.sealing import log
from steadface.gallery.sealing.keys import Key, Unsealable, find_key, given, given_key, keys_folder, write_key
from steadface.gallery.sealing.transaction import Reader, Writer
from steadface.gallery.sealing.vault import Vault, stamp
from steadface.gallery.storage import Header, ModelIdentity, Storage, check_model, described, same_model
from steadface.gallery.storage.sqlite import TIMEOUT, SQLiteStorage

Place = str | os.PathLike[str] | Storage
"""A path is that of an SQLite file."""


class Options(TypedDict, total=False):
    """How a gallery is used: `index` makes an empty index for a dimension; with `log_searches` the log tells of each
    search whom it found first; `timeout` is how long, in seconds, to wait for another process that writes into the
    file; `clock` tells the time (UTC).
    """

    index: Callable[[int], VectorIndex]
    log_searches: bool
    timeout: float
    clock: Callable[[], datetime]


def utc() -> datetime:
    return datetime.now(UTC)


class OpenGallery:
    """A storage, the key, and an index that follows; a context manager."""

    def __init__(
        self,
        place: Place,
        key: Key | str | os.PathLike[str] | None,
        model: ModelIdentity | None,
        **options: Unpack[Options],
    ) -> None:
        self._storage = _storage_at(place, options)
        key = given(key)
        self._index = options.get("index", FlatIndex)
        self._log_searches = options.get("log_searches", False)
        self._now = options.get("clock", utc)
        self._storage.open()
        try:
            with _sealed_rows_of(self.name), self._storage.reading() as rows:
                header = rows.header()
                check_model(header.model, model, self.name)
                self._vault = _unlocked(header, key, self.name)
            self.model = header.model
            self._follower = Follower(self._index(self.model.dimension))
            self._names = Names()
        except BaseException:
            self._storage.close()
            raise

    @classmethod
    def create(
        cls,
        place: Place,
        *,
        model: ModelIdentity,
        key: Key | str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """An empty gallery for templates of `model`, in a new file or in another `Storage`. Where neither `key` nor the
        environment gives a key, a random one is written into the user's configuration: `key.source` tells where, and
        without it the gallery is lost.

        Raises `Conflict` where there is a gallery, or a file, already.
        """
        storage = _storage_at(place, options)
        if not isinstance(model, ModelIdentity):
            raise InvalidInput(
                f"model is {quoted(model)}; give the identity of a recogniser, recognizer.contract.identity"
            )
        storage.check_free()
        identity, now = secrets.token_hex(16), options.get("clock", utc)()
        key = given(key) or given_key()
        chosen = key or write_key(keys_folder() / f"{identity}.key")
        vault = Vault.new(identity, chosen)
        header = Header(id=identity, created=stamp(now), model=model, key=chosen.id, secret=vault.wrapped(), owed=False)
        try:
            storage.create(header, log.following(None, vault.log_key, "create", now=now, **asdict(model)))
        except BaseException:
            if key is None:
                Path(chosen.source).unlink()
            raise
        return cls(storage, chosen, model, **options)

    @classmethod
    def open(
        cls,
        place: Place,
        *,
        key: Key | str | os.PathLike[str] | None = None,
        model: ModelIdentity | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """The gallery in a file or another `Storage`; its key is looked for in the environment and the user's
        configuration if not given.

        Raises `NotFound` where there is none, `InvalidInput` for another key or something that is not a gallery, and
        `Conflict` for a gallery of another model than `model`, where that is given.
        """
        return cls(place, key, model, **options)

    def __enter__(self) -> Self:
        """Raises `Unavailable` where it was closed, as every use does."""
        self._storage.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Does nothing where it is closed already."""
        self._storage.close()

    @property
    def name(self) -> str:
        """What messages call it: the path of the file, or another storage's name."""
        return self._storage.name

    @property
    def key(self) -> Key:
        return self._vault.key

    def _check_usable(self) -> None:
        """Before work that a look at the gallery follows. Raises as `_reading` does."""
        with self._reading():
            pass

    @contextmanager
    def _reading(self, model: ModelIdentity | None = None) -> Iterator[Reader]:
        """One state of the gallery; raises `Conflict` where the key or the model is not what it was, the model when
        vectors of `model` were made for it, or when the gallery was opened.
        """
        with _sealed_rows_of(self.name), self._storage.reading() as rows:
            self._check_current(rows.header(), model)
            yield Reader(rows=rows, vault=self._vault, now=self._now())

    @contextmanager
    def _writing(self, model: ModelIdentity | None = None) -> Iterator[Writer]:
        """A change, which is there once this returns; with what an interrupted deletion still owed. Raises as
        `_reading` does.
        """
        with _sealed_rows_of(self.name), self._storage.writing() as rows:
            header = rows.header()
            self._check_current(header, model)
            yield Writer(rows=rows, vault=self._vault, now=self._now())
        if header.owed:
            self._storage.scrub()

    def _check_current(self, header: Header, model: ModelIdentity | None) -> None:
        """Raises `Conflict` where somebody changed the key or the model since the gallery was opened."""
        if header.key != self._vault.key.id:
            raise Conflict(
                f"the key of the gallery {self.name} was changed to {header.key} since it was opened; open it again "
                "with that"
            )
        if not same_model(header.model, model or self.model):
            raise Conflict(
                f"the gallery {self.name} was given templates of {described(header.model)} since it was opened; open "
                "it again with that"
            )


def _storage_at(place: Place, options: Options) -> Storage:
    """Raises `InvalidInput` for what is neither a path nor a storage."""
    if isinstance(place, Storage):
        return place
    return SQLiteStorage(as_path(place, "the gallery"), timeout=options.get("timeout", TIMEOUT))


def _unlocked(header: Header, key: Key | None, gallery: str) -> Vault:
    """Raises `InvalidInput` where the key is not that of the gallery, and `NotFound` where there is none."""
    chosen = key or find_key(header.id, header.key)
    if chosen.id != header.key:
        raise InvalidInput(
            f"the gallery {gallery} is sealed with the key {header.key}, and {chosen.source} holds the key "
            f"{chosen.id}; give the gallery's own with --key FILE or in the environment"
        )
    return Vault.unlock(header.id, chosen, header.secret)


@contextmanager
def _sealed_rows_of(gallery: str) -> Iterator[None]:
    """Raises `InvalidInput` where one of them does not unseal."""
    try:
        yield
    except Unsealable as error:
        raise InvalidInput(
            f"the gallery {gallery} was changed by other means or is damaged ({error} does not unseal); ask `steadface "
            "gallery verify-log` what was, and restore a backup (`steadface gallery backup` makes them)"
        ) from error
