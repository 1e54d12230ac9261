"""A gallery that is open: it is there, its key fits, and its model is the one that is meant.

Every look at the gallery and every change to it begins by asking whether that is still so.
"""

import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self, TypedDict, Unpack

from steadface.arguments import Shard, number
from steadface.errors import Conflict, InvalidInput, SteadfaceError, quoted
from steadface.gallery.following import Following, Known
from steadface.gallery.index import VectorIndex
from steadface.gallery.index.engine import Engine
from steadface.gallery.index.engine_follower import EngineFollower
from steadface.gallery.index.exact import FlatIndex
from steadface.gallery.index.follower import Follower, Names, Searcher
from steadface.gallery.place import Place, storage_at
from steadface.gallery.requests import Requests
from steadface.gallery.sealing import log
from steadface.gallery.sealing.keys import Key, Unsealable, find_key, given, given_key, keys_folder, write_key
from steadface.gallery.sealing.transaction import UNKNOWN, Reader, Writer
from steadface.gallery.sealing.vault import State, Vault, stamp
from steadface.gallery.shards import Node, Shards
from steadface.gallery.storage import (
    RESTORE,
    TIMEOUT,
    Contents,
    Header,
    ModelIdentity,
    Snapshot,
    Storage,
    check_model,
    described,
    model_identity,
    same_model,
)

SEALED = "seal"
"""The event of the log from which on the header is sealed, of a gallery that was made before headers were."""

STALENESS = 0.1, 3600.0
"""Seconds, from and to."""

logger = logging.getLogger(__name__)


class Options(TypedDict, total=False):
    """How a gallery is used: `index` makes an empty index for a dimension, in memory; an `engine`, opened for a model,
    takes its place where several processes share one (`steadface.gallery.index.engine`); with `log_searches` the log
    tells of each search whom it found first; `timeout` is how long, in seconds, to wait for others who write; `clock`
    tells the time (UTC). With a `staleness` the gallery is followed in the background, and searches do not ask it: they
    answer from a state that is at most so many seconds old (0: from the newest, which each of them asks for). A gallery
    that is divided is opened once for each `shard`, for `search_shard`, and as a whole with the `nodes` of all shards.
    """

    index: Callable[[int], VectorIndex]
    engine: Callable[[ModelIdentity], Engine]
    log_searches: bool
    timeout: float
    clock: Callable[[], datetime]
    staleness: float
    shard: Shard
    nodes: Sequence[Node]


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
        self._storage = storage_for(place, options)
        key = given(key)
        self._index, self._engine = options.get("index", FlatIndex), options.get("engine")
        self._shard, self._nodes = options.get("shard"), options.get("nodes")
        self._log_searches = options.get("log_searches", False)
        self._now = options.get("clock", utc)
        self._known: tuple[Header, State] | None = None
        self._newest = 0, ""
        self._storage.open()
        try:
            with _sealed_rows_of(self.name), self._storage.reading() as rows:
                header = rows.header()
                self._vault = _unlocked(header, key, self.name)
                self.model = self._state(rows).model
                check_model(self.model, model, self.name)
            self._follower = self._searcher(self.model)
            self._names, self._requests = Names(), Requests()
            self._following = self._followed(checked_staleness(options.get("staleness", 0.0)))
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
        """An empty gallery for templates of `model`, in a new file or another `Place`. Where neither `key` nor the
        environment gives a key, a random one is written into the user's configuration: `key.source` tells where, and
        without it the gallery is lost.

        Raises `Conflict` where there is a gallery, or a file, already.
        """
        storage = storage_for(place, options)
        check_identity(model)
        storage.check_free()
        identity, now = secrets.token_hex(16), options.get("clock", utc)()
        key = given(key) or given_key()
        chosen = key or write_key(keys_folder() / f"{identity}.key")
        vault = Vault.new(identity, chosen)
        first = log.following(None, vault.log_key, "create", now=now, **asdict(model))
        state = State(
            created=stamp(now),
            model=model,
            owed=False,
            sequence=1,
            head=first.hash.hex(),
            template=0,
            people=0,
            templates=0,
            rows=0,
        )
        header = Header(
            id=identity, created=state.created, model=model, key=chosen.id, secret=vault.sealed(state), owed=False
        )
        try:
            storage.create(Contents(header=header, entries=[first]))
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
        """The gallery in a file or another `Place`; its key is looked for in the environment and the user's
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
        if self._following is not None:
            self._following.close()
        self._follower.close()
        self._storage.close()

    @property
    def name(self) -> str:
        """What messages call it: the path of the file, or another storage's name."""
        return self._storage.name

    @property
    def remains(self) -> str:
        """What may be left of what was deleted, where and for how long; empty where nothing is."""
        return self._storage.remains

    @property
    def key(self) -> Key:
        return self._vault.key

    def _check_usable(self) -> None:
        """Before work that a look at the gallery follows. Raises as `_reading` does."""
        with self._reading():
            pass

    def _searcher(self, model: ModelIdentity) -> Searcher:
        if (make := self._engine) is not None:
            if self._shard is not None or self._nodes is not None:
                raise InvalidInput(
                    "a gallery is divided where each process holds its share in memory, and an engine holds all of it "
                    "for all of them: leave out the shard or the nodes, or the index"
                )
            return EngineFollower(lambda: make(model), self._reading)
        if self._nodes is not None:
            return Shards(self._nodes, model.dimension)
        return Follower(self._index(model.dimension), self._shard)

    def _followed(self, staleness: float) -> Following | None:
        if not staleness:
            return None
        return Following(self.name, look=partial(self._look, count=True), wait=self._storage.wait, staleness=staleness)

    def _known_now(self, model: ModelIdentity, least: int = 0) -> Known:
        """A state to be searched for vectors of `model`, with the entry `least` of the log and all that was done
        through this gallery. Raises as `_reading` and `Following.known` do.
        """
        if self._following is None:
            return self._look(model)
        known = self._following.known(max(least, self._newest[0]))
        self._check_model(known.model, model)
        return known

    def _look(self, model: ModelIdentity | None = None, *, count: bool = False) -> Known:
        """Brings the index to the newest state; who can be found is counted where somebody may ask for it later."""
        began = monotonic()
        with self._reading(model) as reader:
            self._follower.catch_up(reader)
            return Known(
                follower=self._follower,
                model=reader.state.model,
                sequence=reader.last_sequence(),
                findable=reader.count_findable() if count else None,
                seen=began,
            )

    @contextmanager
    def _reading(self, model: ModelIdentity | None = None, *, whole_log: bool = True) -> Iterator[Reader]:
        """One state of the gallery; raises `Conflict` where the key or the model is not what it was, the model when
        vectors of `model` were made for it, or when the gallery was opened. `Unsealable` where the log does not end as
        it did, unless it is not asked for the `whole_log`.
        """
        newest = self._newest  # before the state that is read is chosen: others may write meanwhile
        with _sealed_rows_of(self.name), self._storage.reading() as rows:
            reader = self._reader(rows, self._current(rows, model, newest))
            if whole_log:
                reader.check_end()
            yield reader

    def _reader(self, rows: Snapshot, state: State) -> Reader:
        return Reader(rows=rows, vault=self._vault, state=state, now=self._now())

    @contextmanager
    def _writing(self, model: ModelIdentity | None = None) -> Iterator[Writer]:
        """A change, which is there once this returns; with what an interrupted deletion still owed. Raises as
        `_reading` does.
        """
        with self._changing(model, self._vault) as writer:
            yield writer
        if writer.state.owed:
            self._scrub()

    @contextmanager
    def _changing(self, model: ModelIdentity | None, vault: Vault, *, settled: bool = False) -> Iterator[Writer]:
        """A change, sealed with `vault`, which may take the place of the present one; `settled` where nothing that was
        owed before is owed any more.
        """
        newest = self._newest
        with _sealed_rows_of(self.name), self._storage.writing() as rows:
            state = self._current(rows, model, newest)
            sealed = bool(state.sequence)
            if not sealed:  # of layout 1
                state = replace(
                    state,
                    template=log.highest(rows.entries(), self._vault.log_key),
                    people=rows.count_people(),
                    templates=rows.count_templates(),
                )
            if state.rows == UNKNOWN:
                state = replace(state, rows=self._reader(rows, state).sum())
            writer = Writer(rows=rows, vault=self._vault, state=state, now=self._now())
            writer.check_end()
            if not sealed:
                writer.log(SEALED)
            yield writer
            written = writer.seal(vault, settled=settled)
        self._newest = written.sequence, written.head

    def _scrub(self, traces: Sequence[bytes] | None = None) -> None:
        """Clears the storage of what was deleted (None: whatever it was), and notes that this is done."""
        self._storage.scrub(traces)
        try:
            with self._changing(None, self._vault, settled=True):
                pass
        except SteadfaceError as error:
            logger.warning("what was deleted will be looked for once more with the next change: %s", error)

    def _current(self, rows: Snapshot, model: ModelIdentity | None, newest: tuple[int, str]) -> State:
        """Raises `Conflict` where somebody changed the key or the model since the gallery was opened, or put it back to
        before the `newest` end of its log that was seen.
        """
        header = rows.header()
        if header.key != self._vault.key.id:
            raise Conflict(
                f"the key of the gallery {self.name} was changed to {quoted(header.key)} since it was opened; open it "
                "again with that"
            )
        state = self._state(rows)
        self._check_model(state.model, model or self.model)
        end = state.sequence, state.head
        if end != newest and (end[0] <= newest[0] or not self._goes_on(rows, *newest)):
            raise Conflict(
                f"the gallery {self.name} was put back to what it was before entry {newest[0]} of its log, which was "
                "there already; nothing was done: where that is meant, open it again"
            )
        self._newest = max(end, self._newest)
        return state

    def _goes_on(self, rows: Snapshot, sequence: int, head: str) -> bool:
        """Whether the log still has the entry that ended it once: others may have gone on from before it."""
        if not sequence:
            return True
        entry = next(log.authentic(rows.entries(after=sequence - 1), self._vault.log_key), None)
        return entry is not None and entry.hash.hex() == head

    def _check_model(self, present: ModelIdentity, model: ModelIdentity) -> None:
        if not same_model(present, model):
            raise Conflict(
                f"the gallery {self.name} was given templates of {described(present)} since it was opened; open it "
                "again with that"
            )

    def _state(self, rows: Snapshot) -> State:
        """As it is sealed, or as the log tells it of a gallery of layout 1. Raises `Unsealable`."""
        header = rows.header()
        if self._known is None or self._known[0] != header:
            self._known = header, self._vault.state(header) or _of_layout_1(rows, header, self._vault, self.name)
        state = self._known[1]
        return replace(state, owed=state.owed or header.owed)


def checked_staleness(value: object) -> float:
    """Raises `InvalidInput` unless 0, or what lets the gallery be looked at several times within it."""
    seconds = number("staleness", value)
    least, most = STALENESS
    if seconds and not least <= seconds <= most:
        raise InvalidInput(
            f"staleness is {seconds:g}; give 0 (each search asks the gallery first), or {least:g} to {most:g} seconds"
        )
    return seconds


def check_identity(model: object) -> None:
    """Raises `InvalidInput` for what is no model's, or not that of a model of which a gallery can be."""
    if not isinstance(model, ModelIdentity):
        raise InvalidInput(f"model is {quoted(model)}; give the identity of a recogniser, recognizer.contract.identity")
    try:
        model_identity(asdict(model))
    except ValueError as error:
        raise InvalidInput(f"there is no gallery for the model {quoted(model.name)}: {error}") from None


def _of_layout_1(rows: Snapshot, header: Header, vault: Vault, name: str) -> State:
    """Whose header was not sealed: the log tells of what model it is, and since when.

    Raises `Unsealable` where the log tells something else, or that the header was sealed before.
    """
    told = list(log.authentic(rows.entries(events=("create", "model", SEALED)), vault.log_key))
    models = [json.loads(entry.details) for entry in told if entry.event in ("create", "model")]
    if not told or told[0].event != "create" or told[0].time != header.created or models[-1] != asdict(header.model):
        raise Unsealable("the header")
    if any(entry.event == SEALED for entry in told):
        raise Unsealable("the header, of an earlier time,")
    logger.warning("%s was made by an earlier version: its header is sealed when it is next written into", name)
    return State(created=header.created, model=header.model, owed=header.owed, sequence=0, head="")


def storage_for(place: Place, options: Options) -> Storage:
    """The storage in that place, closed, for a gallery that is used so. Raises as `storage_at` does."""
    newest = bool(options.get("staleness"))
    return storage_at(place, timeout=options.get("timeout", TIMEOUT), newest=newest)


def _unlocked(header: Header, key: Key | None, gallery: str) -> Vault:
    """Raises `InvalidInput` where the key is not that of the gallery, and `NotFound` where there is none."""
    if not re.fullmatch("[0-9a-f]{32}", header.id) or not re.fullmatch("[0-9a-f]{16}", header.key):
        raise Unsealable("the header")  # before files are looked for by these
    chosen = key or find_key(header.id, header.key)
    if chosen.id != header.key:
        raise InvalidInput(
            f"the gallery {gallery} is sealed with the key {header.key}, and {chosen.source} holds the key "
            f"{chosen.id}; give the gallery's own with --key FILE or in the environment"
        )
    return Vault.unlock(header, chosen)


@contextmanager
def _sealed_rows_of(gallery: str) -> Iterator[None]:
    """Raises `InvalidInput` where one of them does not unseal."""
    try:
        yield
    except Unsealable as error:
        raise InvalidInput(
            f"the gallery {gallery} was changed by other means or is damaged ({error} does not unseal); ask `steadface "
            f"gallery verify-log` what was, and {RESTORE}"
        ) from error
