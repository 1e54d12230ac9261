"""Galleries that outgrow one machine: the vectors in PostgreSQL with the extension `vector` (pgvector), through psycopg
(`pip install 'steadface[postgres]'`).

    postgresql://USER@HOST/DATABASE?schema=visitors_index&index=hnsw

Two tables in a schema of their own, in the database of the gallery or in another: `vectors`, by the number of the
template, and `mark`, of one row. Nothing is bundled: the server has the extension, and somebody who may has created it
in the database. `exact` compares with all vectors; `hnsw` is the graph of Malkov and Yashunin that
`steadface.gallery.index.approximate` names, made where it is missing. `half` keeps vectors in half precision: half the
space, and graphs of up to 4,000 numbers in place of 2,000; similarities are the gallery's own in any case.

**The tables hold plain vectors**, see `steadface.gallery.index.milvus`: whoever reads them has biometric data of
everybody. What is deleted stays in its page until a vacuum, and longer in the write-ahead log, standbys and backups.
"""

import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable, Unsupported, first_line
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
from steadface.gallery.storage import TIMEOUT, ModelIdentity

try:
    import psycopg
except ImportError:
    raise Unsupported("an index in PostgreSQL needs psycopg: pip install 'steadface[postgres]'") from None

from steadface.gallery.storage.postgres.address import identifier, parsed

SCHEMA = "steadface_index"
"""Where none is named."""
MATCHES = 2**14
OF_GRAPHS, OF_HALF_GRAPHS, OF_TABLES = 2000, 4000, 16_000
"""Numbers of a vector, at most, as pgvector has it."""
EXPANSION = 1000
"""`hnsw.ef_search`, at most."""
BATCH_NUMBERS = 2**21

_BEGINNING = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
"""Of PostgreSQL's binary COPY, which has two's complement -1 where another row would begin."""

Kind = Literal["exact", "hnsw"]


@dataclass(frozen=True, kw_only=True)
class Graph:
    """M, efConstruction and ef of the paper."""

    connectivity: int = 16
    expansion_add: int = 128
    expansion_search: int = 128


class PgvectorIndex:
    """An `Engine` in the tables of `schema` in the database at `url`, for templates of `model` alone.

    The tables are made where they are missing; what was made for another model or precision raises `Conflict`, a
    database without the extension `Unsupported`, and a server that does not answer `Unavailable`.
    """

    most = MATCHES

    def __init__(
        self,
        url: str,
        *,
        model: ModelIdentity,
        index: Kind = "exact",
        half: bool = False,
        graph: Graph = Graph(),
        timeout: float = TIMEOUT,
    ) -> None:
        self.dimension = checked_dimension(model.dimension)
        self._index, self._graph = index, graph
        self._type = "halfvec" if half else "vector"
        _check_dimension(self.dimension, index, half)
        self._address = parsed(url, timeout=timeout, schema=SCHEMA)
        self.name = self._address.name
        self._row = _row_type(self.dimension, half)
        self._idle: SimpleQueue[psycopg.Connection[Any]] = SimpleQueue()
        self._path = ""
        self._version: tuple[int, ...] = ()
        try:
            with self._connected() as connection:
                self._make(connection, model_digest(model), model.name)
        except BaseException:
            self.close()
            raise

    def arrange(self) -> None:
        """PostgreSQL does so by itself."""

    def pending(self) -> int:
        """None: a graph takes in what is written, within the same transaction."""
        return 0

    def close(self) -> None:
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    def __len__(self) -> int:
        with self._connected() as connection:
            return int(_one(connection, "SELECT count(*) FROM vectors"))

    def add(self, keys: ArrayLike, vectors: ArrayLike) -> None:
        keys, vectors = checked_entries(keys, vectors, self.dimension)
        step = max(1, BATCH_NUMBERS // self.dimension)
        for start in range(0, len(keys), step):
            part = slice(start, start + step)
            with self._writing() as connection:
                connection.execute("CREATE TEMPORARY TABLE brought (LIKE vectors) ON COMMIT DROP")
                with connection.cursor().copy("COPY brought FROM STDIN (FORMAT BINARY)") as copy:
                    copy.write(_BEGINNING + self._packed(keys[part], vectors[part]) + _END)
                connection.execute(
                    "INSERT INTO vectors SELECT * FROM brought "
                    "ON CONFLICT (number) DO UPDATE SET vector = excluded.vector"
                )

    def remove(self, keys: ArrayLike) -> None:
        wanted = checked_keys(keys).tolist()
        with self._writing() as connection:
            connection.execute("DELETE FROM vectors WHERE number = ANY(%s::bigint[])", [wanted])

    def search(self, vectors: ArrayLike, k: int) -> Matches:
        probes, k = checked_vectors(vectors, self.dimension), checked_count(k, "k")
        matches = no_matches(len(probes), k)
        with self._connected() as connection, connection.transaction():
            for name, value in self._searching(k).items():
                connection.execute("SELECT set_config(%s, %s, true)", [name, value])
            for place, probe in enumerate(probes):
                words = "[" + ",".join(map(str, probe.tolist())) + "]"
                found = connection.execute(
                    f"SELECT number, vector <#> %s::{self._type} AS nearness FROM vectors ORDER BY nearness LIMIT %s",
                    [words, min(k, MATCHES)],
                    prepare=True,
                ).fetchall()
                matches.keys[place, : len(found)] = [number for number, _ in found]
                matches.similarities[place, : len(found)] = [-nearness for _, nearness in found]
        return matches

    def mark(self) -> Mark | None:
        with self._connected() as connection:
            told = connection.execute("SELECT gallery, sequence, head, template FROM mark").fetchone()
        if told is None or told[0] is None:
            return None
        return Mark(**dict(zip(Mark.__dataclass_fields__, told, strict=True)))

    def put_mark(self, mark: Mark) -> None:
        with self._writing() as connection:
            connection.execute("UPDATE mark SET gallery = %s, sequence = %s, head = %s, template = %s", astuple(mark))

    def within(self, first: int, last: int) -> tuple[Keys, Vectors]:
        asked = f"SELECT number, vector FROM vectors WHERE number BETWEEN {int(first)} AND {int(last)} ORDER BY number"
        with (
            self._connected() as connection,
            connection.cursor().copy(f"COPY ({asked}) TO STDOUT (FORMAT BINARY)") as copy,
        ):
            read = b"".join(map(bytes, copy))
        rows = np.frombuffer(read[len(_BEGINNING) : -len(_END)], dtype=self._row)
        return rows["number"].astype(np.int64), rows["vector"].astype(np.float32)

    def outside(self, last: int, most: int) -> Keys:
        with self._connected() as connection:
            found = connection.execute(
                "SELECT number FROM vectors WHERE number > %s OR number < 1 LIMIT %s", [last, most]
            ).fetchall()
        return np.array([number for (number,) in found], dtype=np.int64)

    def _packed(self, keys: Keys, vectors: Vectors) -> bytes:
        rows = np.zeros(len(keys), dtype=self._row)
        rows["fields"], rows["number_bytes"], rows["number"] = 2, 8, keys
        rows["vector_bytes"] = 4 + rows["vector"][0].nbytes if len(rows) else 0
        rows["dimension"], rows["vector"] = self.dimension, vectors
        return rows.tobytes()

    def _searching(self, k: int) -> dict[str, str]:
        """What a graph is told: to look at no fewer than are wanted, and further where it can be made to."""
        if self._index == "exact":
            return {"enable_indexscan": "off"}
        told = {"hnsw.ef_search": str(min(EXPANSION, max(self._graph.expansion_search, k)))}
        return told | ({"hnsw.iterative_scan": "strict_order"} if self._version >= (0, 8) else {})

    def _make(self, connection: "psycopg.Connection[Any]", digest: str, model: str) -> None:
        """What is missing, and nothing else: a role that may not make it can use what is there."""
        schema = self._address.quoted_schema
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"steadface {schema}"])
            if not _one(connection, "SELECT count(*) FROM pg_namespace WHERE nspname = %s", self._address.schema):
                connection.execute(f"CREATE SCHEMA {schema}")
            if not self._has(connection, "vectors"):
                connection.execute(
                    f"CREATE TABLE vectors (number bigint PRIMARY KEY, vector {self._type}({self.dimension}) NOT NULL)"
                )
                connection.execute(
                    "CREATE TABLE mark (model text NOT NULL, gallery text, sequence bigint, head text, template bigint)"
                )
                connection.execute("INSERT INTO mark (model) VALUES (%s)", [digest])
            self._check(connection, digest, model)
            if self._index == "hnsw" and not self._has(connection, "graph"):
                connection.execute(
                    f"CREATE INDEX graph ON vectors USING hnsw (vector {self._type}_ip_ops) "
                    f"WITH (m = {self._graph.connectivity}, ef_construction = {self._graph.expansion_add})"
                )

    def _has(self, connection: "psycopg.Connection[Any]", name: str) -> bool:
        """Whether the schema has a table or index of that name."""
        asked = "SELECT count(*) FROM pg_class WHERE relname = %s AND relnamespace = current_schema()::regnamespace"
        return bool(_one(connection, asked, name))

    def _check(self, connection: "psycopg.Connection[Any]", digest: str, model: str) -> None:
        found = _one(
            connection,
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'vectors'::regclass AND attname = 'vector'",
        )
        made = str(found).rpartition(".")[2].replace('"', "")
        if made != f"{self._type}({self.dimension})" or _one(connection, "SELECT model FROM mark") != digest:
            raise Conflict(
                f"the index {self.name} holds other vectors ({made}) than the {self._type}({self.dimension}) that "
                f"{model or 'this model'} gives; name another schema, or drop its tables and have them filled again"
            )

    @contextmanager
    def _writing(self) -> "Iterator[psycopg.Connection[Any]]":
        """A transaction that waits for other writers: two that bring the same rows would lock each other out."""
        with self._connected() as connection, connection.transaction():
            connection.execute("LOCK TABLE mark IN SHARE ROW EXCLUSIVE MODE")
            yield connection

    @contextmanager
    def _connected(self) -> "Iterator[psycopg.Connection[Any]]":
        """A connection for one thread; one that was lost while nobody used it is made anew."""
        with self._told():
            connection = self._taken()
            try:
                yield connection
            except psycopg.Error:
                connection.close()  # whatever became of it
                raise
            finally:
                if not connection.closed:
                    self._idle.put(connection)

    def _taken(self) -> "psycopg.Connection[Any]":
        while True:
            try:
                kept = self._idle.get_nowait()
            except Empty:
                return self._new()
            if _answers(kept):
                return kept

    def _new(self) -> "psycopg.Connection[Any]":
        connection = psycopg.connect(self._address.libpq, autocommit=True)
        try:
            if not self._path:
                self._path = self._searched(connection)
            connection.execute(f"SET search_path = {self._path}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _searched(self, connection: "psycopg.Connection[Any]") -> str:
        """Where tables, types and operators are looked for. Raises `Unsupported` where the extension is missing."""
        found = connection.execute(
            "SELECT extversion, nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
            "WHERE extname = 'vector'"
        ).fetchone()
        if found is None:
            there = _one(connection, "SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")
            raise Unsupported(
                f"the database of {self.name} has not the extension `vector` (pgvector): "
                + ("have" if there else "have it installed on the server, and have")
                + " its owner say CREATE EXTENSION vector there"
            )
        version, schema = found
        self._version = tuple(int(part) for part in str(version).split(".")[:2])
        if self._type == "halfvec" and self._version < (0, 7):
            raise Unsupported(
                f"the server of {self.name} has pgvector {version}, and half precision needs 0.7 or later"
            )
        return f"{self._address.quoted_schema}, {identifier(schema)}, pg_temp"

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What PostgreSQL complains of becomes an error that says where."""
        try:
            yield
        except psycopg.Error as error:
            said = first_line(error) if error.diag.message_primary is None else error.diag.message_primary
            kind: type[SteadfaceError] = InvalidInput if isinstance(error, psycopg.ProgrammingError) else Unavailable
            raise kind(
                f"the index {self.name}: {said}; see that the address is right, that the server runs, and that the "
                "role may use the schema"
            ) from error


def _row_type(dimension: int, half: bool) -> np.dtype[Any]:
    """A row of `vectors` as PostgreSQL's binary COPY has it, in network order."""
    return np.dtype(
        [
            ("fields", ">i2"),
            ("number_bytes", ">i4"),
            ("number", ">i8"),
            ("vector_bytes", ">i4"),
            ("dimension", ">i2"),
            ("unused", ">i2"),
            ("vector", ">f2" if half else ">f4", (dimension,)),
        ]
    )


def _check_dimension(dimension: int, index: Kind, half: bool) -> None:
    """Raises `InvalidInput` where pgvector has no room for so many numbers."""
    most = OF_TABLES if index == "exact" else OF_HALF_GRAPHS if half else OF_GRAPHS
    if dimension > most:
        remedy = "index=exact" if half or index == "exact" or dimension > OF_HALF_GRAPHS else "half=yes, or index=exact"
        raise InvalidInput(
            f"pgvector takes {most} numbers of a vector at most in this index, and these are {dimension}; "
            + ("take Milvus" if index == "exact" else f"say {remedy}")
        )


def _one(connection: "psycopg.Connection[Any]", statement: str, *words: object) -> Any:
    row = connection.execute(statement, words).fetchone()
    return None if row is None else row[0]


def _answers(connection: "psycopg.Connection[Any]") -> bool:
    """Whether the server is still there; asked without a message where libpq knows."""
    if not connection.closed:
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            if selector.select(0):  # nothing is awaited: the server says that it ends
                connection.close()
    return not connection.closed
