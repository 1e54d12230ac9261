"""Galleries that outgrow one machine: the vectors in Milvus, through pymilvus (`pip install 'steadface[milvus]'`).

The same code talks to Milvus Lite, a folder whose name ends in `.db` beside the program, and to a server or cluster by
its URL. The truth stays with the gallery, whose templates are encrypted; the index can be dropped and filled from it
again, and both `add` and `remove` can be repeated without harm.

A search waits for the server's clock where it has to see all that anybody wrote (`strong`), for some hundred
milliseconds. What a gallery wants is less: all that it knows to be written. The server acknowledges a write with its
timestamp, which is kept in the mark beside the vectors, and a search that names the newest one that it knows waits for
that alone, in whatever process it is made.

**A server's index holds plain vectors**, since it has to compute with them. Templates can be inverted to faces that
look like the person, so anybody who reads the collection has biometric data of everybody in it: not the gallery's
encryption but the server's operator protects them. Transport (give an `https://` URL), accounts and their rights,
encryption of its disks, its logs and backups are the operator's to see to. A deletion reaches the server as a mark on
the vector: it is not found from then on, but leaves the disk when Milvus has compacted the segment, and the backups
when they expire.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike

from steadface.errors import Conflict, Unavailable, Unsupported, first_line
from steadface.gallery.index import (
    Keys,
    Matches,
    Vectors,
    checked_count,
    checked_dimension,
    checked_entries,
    checked_keys,
    checked_vectors,
    no_matches,
)
from steadface.gallery.index.engine import Mark, model_digest
from steadface.gallery.storage import ModelIdentity

KEY, MARK = "id", "mark"
MARKED = -1
"""The key of the row that holds the mark, and no vector of anybody's."""
MARK_LENGTH = 512
METRIC = "IP"
MATCHES = 2**14 - 1
"""Matches of a probe; a server gives one more, which may be the mark."""

Consistency = Literal["read-your-writes", "strong", "bounded", "eventual"]
"""What a search sees: what this gallery knows to be written, all that anybody wrote, what was written some seconds ago,
or whatever has arrived.
"""
LEVELS: Mapping[Consistency, str] = {
    "read-your-writes": "Customized",
    "strong": "Strong",
    "bounded": "Bounded",
    "eventual": "Eventually",
}
"""Milvus' names."""

BATCH_NUMBERS = 2**21
"""Numbers sent in one message, 8 MB of vectors: a server takes 64 MB."""

BATCH_KEYS = 2**13


@dataclass(frozen=True, kw_only=True)
class ServerIndex:
    """How the server searches: Milvus' name of the `kind`, its parameters when it is built, and in every search."""

    kind: str = "FLAT"
    building: Mapping[str, int] = field(default_factory=dict)
    searching: Mapping[str, int] = field(default_factory=dict)


FLAT = ServerIndex()
"""All vectors are compared: exact."""


def hnsw(*, connectivity: int = 16, expansion_add: int = 128, expansion_search: int = 128) -> ServerIndex:
    """A graph, approximate: M, efConstruction and ef of the paper that `steadface.gallery.index.approximate` names."""
    return ServerIndex(
        kind="HNSW",
        building={"M": connectivity, "efConstruction": expansion_add},
        searching={"ef": expansion_search},
    )


def inverted_lists(*, lists: int = 1024, probed: int = 128) -> ServerIndex:
    """Vectors in `lists` by the nearest of as many centres, `probed` of which a search reads: approximate."""
    return ServerIndex(kind="IVF_FLAT", building={"nlist": lists}, searching={"nprobe": probed})


class MilvusIndex:
    """An `Engine` kept by the Milvus at `address`: a URL, or the path of a Milvus Lite folder, `NAME.db`.

    The `collection` is made where it is missing, for the templates of `model` alone: one of another model, dimension or
    index raises `Conflict`, and a server that does not answer within `timeout` seconds `Unavailable`. Unlike an index
    in memory it takes large `add`s in several messages, which a search may come between.
    """

    most = MATCHES

    def __init__(
        self,
        address: str,
        *,
        model: ModelIdentity,
        collection: str = "steadface",
        index: ServerIndex = FLAT,
        consistency: Consistency = "read-your-writes",
        token: str = "",
        user: str = "",
        password: str = "",
        timeout: float = 30,
    ) -> None:
        self.dimension = checked_dimension(model.dimension)
        self.name = f"{collection} at {address}"
        self._address, self._collection, self._index, self._timeout = address, collection, index, timeout
        self._consistency = consistency
        self._written = 0
        """The server's timestamp of the last write that is known here."""
        self._vector = vector_field(model)
        client_class, self._failure = _pymilvus()
        with self._told():
            self._client = client_class(uri=address, user=user, password=password, token=token, timeout=timeout)
        try:
            self._open(model)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def arrange(self) -> None:
        """Ends the segment that grows, which no index is made for, and of which all is compared, until then: by itself
        Milvus waits for some hundred megabytes, or ten minutes. A server that has been asked too often lately does not.
        """
        with suppress(self._failure):
            self._client.flush(self._collection, timeout=self._timeout)

    def pending(self) -> int:
        """Until its index is made, and some seconds more, a server searches a segment through an index of its own, or
        compares all of it where it runs with `queryNode.segcore.interimIndex.enableIndex: false`.
        """
        if self._index.kind == FLAT.kind:
            return 0
        with self._told():
            told = self._client.describe_index(self._collection, self._vector, timeout=self._timeout)
        made = told.get("indexed_rows")  # Milvus Lite does not say
        return 0 if made is None else max(0, len(self) - int(made))

    def close(self) -> None:
        self._client.close()

    def __len__(self) -> int:
        counted = self._read("strong", filter=f"{KEY} >= 0", output_fields=["count(*)"])
        return int(counted[0]["count(*)"])

    def add(self, keys: ArrayLike, vectors: ArrayLike) -> None:
        keys, vectors = checked_entries(keys, vectors, self.dimension)
        step = max(1, BATCH_NUMBERS // self.dimension)
        for start in range(0, len(keys), step):
            part = slice(start, start + step)
            pairs = zip(keys[part].tolist(), vectors[part], strict=True)
            self._write("upsert_rows", [{KEY: key, MARK: "", self._vector: vector} for key, vector in pairs])

    def remove(self, keys: ArrayLike) -> None:
        wanted = checked_keys(keys).tolist()
        for start in range(0, len(wanted), BATCH_KEYS):
            self._write("delete", f"{KEY} in {wanted[start : start + BATCH_KEYS]}")

    def search(self, vectors: ArrayLike, k: int) -> Matches:
        probes, k = checked_vectors(vectors, self.dimension), checked_count(k, "k")
        matches = no_matches(len(probes), k)
        step = max(1, BATCH_NUMBERS // self.dimension)
        for start in range(0, len(probes), step):
            for place, found in enumerate(self._found(probes[start : start + step], k), start):
                hits = [hit for hit in found if hit[KEY] != MARKED][:k]
                matches.keys[place, : len(hits)] = [hit[KEY] for hit in hits]
                matches.similarities[place, : len(hits)] = [hit["distance"] for hit in hits]
        return matches

    def mark(self) -> Mark | None:
        """The newest where nothing is known yet; from then on no older one than was put or seen here."""
        rows = self._read("read-your-writes", filter=f"{KEY} == {MARKED}", output_fields=[MARK])
        if not rows:
            return None
        told = json.loads(rows[0][MARK])
        self._written = max(self._written, told.pop("written"))
        return Mark(**told)

    def put_mark(self, mark: Mark) -> None:
        told = json.dumps(asdict(mark) | {"written": self._written})
        nobody = np.zeros(self.dimension, dtype=np.float32)
        self._write("upsert_rows", [{KEY: MARKED, MARK: told, self._vector: nobody}])

    def within(self, first: int, last: int) -> tuple[Keys, Vectors]:
        rows: list[dict[str, Any]] = []
        step = max(1, BATCH_NUMBERS // self.dimension)
        for start in range(first, last + 1, step):
            asked = f"{KEY} >= {start} and {KEY} <= {min(last, start + step - 1)}"
            rows += self._read("strong", filter=asked, output_fields=[KEY, self._vector])
        rows.sort(key=lambda row: row[KEY])
        keys = np.array([row[KEY] for row in rows], dtype=np.int64)
        vectors = np.array([row[self._vector] for row in rows], dtype=np.float32)
        return keys, vectors.reshape(-1, self.dimension)

    def outside(self, last: int, most: int) -> Keys:
        asked = f"{KEY} > {last} or {KEY} == 0"
        rows = self._read("strong", filter=asked, output_fields=[KEY], limit=min(most, BATCH_KEYS))
        return np.array([row[KEY] for row in rows], dtype=np.int64)

    def _read(self, consistency: Consistency, **asked: Any) -> Any:
        with self._told():
            return self._client.query(self._collection, **asked, **self._seeing(consistency))

    def _write(self, how: Literal["upsert_rows", "delete"], what: object) -> None:
        """`MilvusClient.upsert` and `delete` do the same, but keep the timestamp to themselves."""
        with self._told():
            written = getattr(self._client._get_connection(), how)(self._collection, what, timeout=self._timeout)
        self._written = max(self._written, int(written.timestamp))

    def _seeing(self, consistency: Consistency) -> dict[str, Any]:
        if consistency == "read-your-writes" and not self._written:
            consistency = "strong"  # what others wrote is not known yet
        known = {"guarantee_timestamp": self._written} if consistency == "read-your-writes" else {}
        return {"consistency_level": LEVELS[consistency], "timeout": self._timeout, **known}

    def _found(self, probes: np.ndarray[Any, Any], k: int) -> Any:
        searching = dict(self._index.searching)
        if "ef" in searching:
            searching["ef"] = max(searching["ef"], k + 1)
        with self._told():
            return self._client.search(
                self._collection,
                data=list(probes),
                anns_field=self._vector,
                limit=min(k, MATCHES) + 1,
                output_fields=[KEY],
                search_params={"metric_type": METRIC, "params": searching},
                **self._seeing(self._consistency),
            )

    def _open(self, model: ModelIdentity) -> None:
        with self._told():
            there = self._client.has_collection(self._collection, timeout=self._timeout)
            if not there:
                self._create()
        if there:
            self._check(model)
            with self._told():
                self._client.load_collection(self._collection, timeout=self._timeout)

    def _create(self) -> None:
        import pymilvus

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field(KEY, pymilvus.DataType.INT64, is_primary=True)
        schema.add_field(MARK, pymilvus.DataType.VARCHAR, max_length=MARK_LENGTH)
        schema.add_field(self._vector, pymilvus.DataType.FLOAT_VECTOR, dim=self.dimension)
        indexes = self._client.prepare_index_params()
        indexes.add_index(
            field_name=self._vector,
            index_type=self._index.kind,
            metric_type=METRIC,
            params=dict(self._index.building),
        )
        self._client.create_collection(
            self._collection, schema=schema, index_params=indexes, consistency_level="Strong", timeout=self._timeout
        )

    def _check(self, model: ModelIdentity) -> None:
        """Of a collection that was there already."""
        with self._told():
            fields = self._client.describe_collection(self._collection, timeout=self._timeout)["fields"]
        dimensions = {one["name"]: one["params"].get("dim") for one in fields}
        if dimensions.get(self._vector) != self.dimension or not {KEY, MARK} <= dimensions.keys():
            raise Conflict(
                f"collection {self._collection} at {self._address} holds other vectors than those of {model.dimension} "
                f"numbers that {model.name or 'this model'} gives, or was made by other means ({', '.join(dimensions)})"
                "; name another collection, or drop this one and have it filled again"
            )
        with self._told():
            kind = self._client.describe_index(self._collection, self._vector, timeout=self._timeout)["index_type"]
        if kind != self._index.kind:
            raise Conflict(
                f"collection {self._collection} at {self._address} was made with a {kind} index, not "
                f"{self._index.kind}; ask for that, or name another collection"
            )

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What Milvus complains of becomes an error that says where."""
        try:
            yield
        except self._failure as error:
            raise Unavailable(
                f"Milvus at {self._address}: {getattr(error, 'message', '') or first_line(error)}; see that the "
                "address is right, that the server runs and that it lets you in (token, or user and password)"
            ) from error


def vector_field(model: ModelIdentity) -> str:
    """The name of the field that holds the vectors: other models' templates are kept under another name, which every
    version of Milvus keeps, as it does not with descriptions.
    """
    return f"template_{model_digest(model)}"


def _pymilvus() -> tuple[Any, type[Exception]]:
    try:
        import pymilvus
    except ImportError as error:
        raise Unsupported("a gallery in Milvus needs pymilvus; pip install 'steadface[milvus]'") from error
    return pymilvus.MilvusClient, pymilvus.MilvusException
