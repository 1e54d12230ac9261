"""A gallery that is open: its file is there, its key fits, and its model is the one that is meant.

Every look at the gallery and every change to it begins by asking whether that is still so.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict, Unpack

from steadface.arguments import as_path
from steadface.errors import SteadfaceError, quoted
from steadface.gallery import checking
from steadface.gallery.changes import Desk
from steadface.gallery.follower import Follower
from steadface.gallery.identity import ModelIdentity
from steadface.gallery.index import FlatIndex, VectorIndex
from steadface.gallery.keys import Key, given, given_key, keys_folder, write_key
from steadface.gallery.names import Names
from steadface.gallery.store import TIMEOUT, Header, Store, create_file, read_header
from steadface.gallery.vault import Vault, stamp


class Options(TypedDict, total=False):
    """How a gallery is used: `index` makes an empty index for a dimension; with `log_searches` the log tells of each
    search whom it found first; `timeout` is how long, in seconds, to wait for another process that writes; `clock`
    tells the time (UTC).
    """

    index: Callable[[int], VectorIndex]
    log_searches: bool
    timeout: float
    clock: Callable[[], datetime]


def utc() -> datetime:
    return datetime.now(UTC)


class OpenGallery:
    """One connection to read with, one to write with, the key, and an index that follows; a context manager."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        key: Key | str | os.PathLike[str] | None,
        model: ModelIdentity | None,
        **options: Unpack[Options],
    ) -> None:
        self.path = path = as_path(path, "the gallery")
        key = given(key)
        self._index = options.get("index", FlatIndex)
        self._log_searches = options.get("log_searches", False)
        self._now = options.get("clock", utc)
        timeout = options.get("timeout", TIMEOUT)
        self._reader = Store(path, timeout=timeout)
        try:
            with self._reader.reading() as connection:
                header = read_header(connection)
                checking.check_model(header.model, model, path)
                self._vault = checking.unlocked(header, key, path)
            self.model = header.model
            self._follower = Follower(self._index(self.model.dimension))
            self._names = Names()
            self._writer = Store(path, timeout=timeout, place=self._reader.place)
        except BaseException:
            self._reader.close()
            raise

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        model: ModelIdentity,
        key: Key | str | os.PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """An empty gallery for templates of `model`. Where neither `key` nor the environment gives a key, a random one
        is written into the user's configuration: `key.source` tells where, and without it the gallery is lost.

        Raises `SteadfaceError` where there is a file already.
        """
        path = as_path(path, "the gallery")
        if not isinstance(model, ModelIdentity):
            raise SteadfaceError(
                f"model is {quoted(model)}; give the identity of a recogniser, recognizer.contract.identity"
            )
        if path.exists():
            raise SteadfaceError(f"there is a file at {path} already; name another, or remove it first")
        identity, now = secrets.token_hex(16), options.get("clock", utc)()
        key = given(key) or given_key()
        chosen = key or write_key(keys_folder() / f"{identity}.key")
        vault = Vault.new(identity, chosen)
        header = Header(id=identity, created=stamp(now), model=model, key=chosen.id, secret=vault.wrapped(), owed=False)
        try:
            create_file(path, header, vault.log_key, now)
        except BaseException:
            if key is None:
                Path(chosen.source).unlink()
            raise
        return cls(path, chosen, model, **options)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        key: Key | str | os.PathLike[str] | None = None,
        model: ModelIdentity | None = None,
        **options: Unpack[Options],
    ) -> Self:
        """The gallery at `path`; its key is looked for in the environment and the user's configuration if not given.

        Raises `SteadfaceError` for what is no gallery, another key, or a gallery of another model than `model`, where
        that is given.
        """
        return cls(path, key, model, **options)

    def __enter__(self) -> Self:
        """Raises `SteadfaceError` where it was closed, as every use does."""
        self._reader.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Does nothing where it is closed already."""
        self._reader.close()
        self._writer.close()

    @property
    def key(self) -> Key:
        return self._vault.key

    def _check_usable(self) -> None:
        """Before work that a look at the gallery follows. Raises as `_looking` does."""
        with self._looking():
            pass

    @contextmanager
    def _looking(self, model: ModelIdentity | None = None) -> Iterator[sqlite3.Connection]:
        """One state of the gallery; raises `SteadfaceError` where the key or the model is not what it was, the model
        when vectors of `model` were made for it, or when the gallery was opened.
        """
        with self._reader.reading() as connection:
            checking.check_current(read_header(connection), self._vault, model or self.model, self.path)
            yield connection

    @contextmanager
    def _changing(self, model: ModelIdentity | None = None) -> Iterator[Desk]:
        """A change, on the disk once this returns; with what an interrupted deletion still owed. Raises as `_looking`
        does.
        """
        with self._writer.writing() as connection:
            header = read_header(connection)
            checking.check_current(header, self._vault, model or self.model, self.path)
            yield self._desk(connection)
        if header.owed:
            self._writer.scrub()

    def _desk(self, connection: sqlite3.Connection) -> Desk:
        return Desk(connection=connection, vault=self._vault, now=self._now())
