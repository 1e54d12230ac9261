"""The address of a gallery in PostgreSQL: a URL of libpq's, and the schema that holds its tables.

    postgresql://USER@HOST/DATABASE?sslmode=verify-full&schema=visitors

libpq reads all of it but `schema`, which it does not know: several hosts, sockets, TLS, services, and what is not said
from its environment (`PGPASSWORD`, `PGPASSFILE` and the others). What messages show is made of the parts that are known
to be no secrets.
"""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import quote, unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from steadface.errors import InvalidInput, Unavailable, first_line, quoted

SCHEMA = "steadface"
"""Where none is named."""
IDENTIFIER = 63
"""Bytes of a name, at most."""

_PARTS = re.compile(r"([a-z]+://(?:[^@/]*@)?[^?@]*)(?:\?(.*))?", re.DOTALL)
"""As libpq takes it apart: what stands before an @ may hold question marks. A second @ belongs to a password in which
it is not written %40, and libpq would take the end of that for the name of a host, or of a database, and repeat it.
"""

_WATCHED = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
"""A server that is gone is noticed within half a minute, and not after two hours."""


_OF_PRIMARIES = ("read-write", "primary")
_OF_STANDBYS = re.compile("session is read-only|hot standby")
"""libpq's words, which it does not translate by itself."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """`name` is what messages call it. Only `libpq` may hold a password. Where the `newest` state is wanted no standby
    is asked, of which nobody can tell how far behind it is.
    """

    name: str
    schema: str
    libpq: str = field(repr=False)
    newest: bool = False

    @property
    def quoted_schema(self) -> str:
        """As SQL has it."""
        return identifier(self.schema)

    @property
    def channel(self) -> str:
        """On which changes of the gallery are told; in a database there is one name for each schema."""
        return "steadface_" + sha256(self.schema.encode()).hexdigest()[:32]

    def connected(self) -> "psycopg.Connection[Any]":
        """A new connection. Raises `InvalidInput` and `Unavailable`, and psycopg's where no server lets us in."""
        try:
            return psycopg.connect(self.libpq, autocommit=True, prepare_threshold=None)
        except psycopg.ProgrammingError as error:
            raise InvalidInput(f"the address of the gallery {self.name} cannot be used: {first_line(error)}") from None
        except psycopg.OperationalError as error:
            if self.newest and _OF_STANDBYS.search(str(error)):
                raise Unavailable(
                    f"the gallery {self.name} can only be read there (a standby), and no primary was found: how "
                    "old what a standby holds is cannot be told; name the primary, or answer from whatever the standby "
                    "has (staleness 0)"
                ) from error
            raise


def parsed(url: str, *, timeout: float, newest: bool = False, schema: str = SCHEMA) -> Address:
    """Raises `InvalidInput`, which does not repeat the URL; `timeout` is how long to wait for a connection, in seconds,
    where neither URL nor environment says, and `schema` the one that is meant where the URL names none. `newest`: as
    `Address` has it.
    """
    others, own = separated(url, ("schema",))
    try:
        told = conninfo_to_dict(others)
    except (psycopg.Error, UnicodeError):  # its words may repeat a password
        raise _unreadable() from None
    given = {name: str(value) for name, value in told.items() if value is not None}
    if not re.fullmatch("[0-9,]*", given.get("port", "")):  # it may be the beginning of a password with a / in it
        raise _unreadable()
    schema = _checked(own.get("schema", schema))
    name = _shown(given, schema)
    if newest:
        asked = given.setdefault("target_session_attrs", _OF_PRIMARIES[0])
        if asked not in _OF_PRIMARIES:
            raise InvalidInput(
                f"the address of the gallery {name} asks for target_session_attrs={quoted(asked)}, and how old what a "
                "standby holds is cannot be told: leave that out, or answer from whatever it has (staleness 0)"
            )
    return Address(name=name, schema=schema, libpq=_completed(given, timeout), newest=newest)


def separated(url: str, names: Collection[str]) -> tuple[str, dict[str, str]]:
    """The URL without those of its parameters that libpq does not know, and the last of each of them."""
    if (whole := _PARTS.fullmatch(url)) is None:
        raise _unreadable()
    own, others = {}, []
    for word in filter(None, (whole[2] or "").split("&")):
        name, _, value = word.partition("=")
        if name in names:
            own[name] = unquote(value)
        else:
            others.append(word)
    return f"{whole[1]}?{'&'.join(others)}", own


def identifier(name: str) -> str:
    """As SQL has it. Raises `InvalidInput` for what is no name there."""
    if not 0 < len(name.encode(errors="replace")) <= IDENTIFIER or not name.isprintable():
        raise InvalidInput(
            f"{quoted(name)} is no name in PostgreSQL; give 1 to {IDENTIFIER} bytes, none of them a control character"
        )
    return '"' + name.replace('"', '""') + '"'


def _unreadable() -> InvalidInput:
    return InvalidInput(
        "the address of the gallery is none that libpq reads; write postgresql://USER@HOST:PORT/DATABASE, its "
        "parameters behind a ? as NAME=VALUE, and what is special in a name or password as %XX (@ is %40, / is %2F)"
    )


def _checked(schema: str) -> str:
    if schema.startswith("pg_") or schema == "information_schema":
        raise InvalidInput(f"the schema {quoted(schema)} is PostgreSQL's own; name another")
    identifier(schema)
    return schema


def _completed(given: dict[str, str], timeout: float) -> str:
    usual: dict[str, Any] = {"fallback_application_name": "steadface", **_WATCHED}
    if "PGCONNECT_TIMEOUT" not in os.environ and "service" not in given and "PGSERVICE" not in os.environ:
        usual["connect_timeout"] = max(2, round(timeout))
    return make_conninfo(**(usual | given | {"client_encoding": "utf8"}))


def _shown(given: dict[str, str], schema: str) -> str:
    hosts, ports = given.get("host", given.get("hostaddr", "")).split(","), given.get("port", "").split(",")
    ports *= len(hosts) if len(ports) == 1 else 1
    named = [f"[{host}]" if ":" in host else quote(host, safe="") for host in hosts]
    places = [f"{host}:{port}" if port else host for host, port in zip(named, ports, strict=False)]
    user = quote(given["user"]) + "@" if "user" in given else ""
    words = [f"{name}={quote(given[name])}" for name in ("service",) if name in given] + [f"schema={quote(schema)}"]
    return f"postgresql://{user}{','.join(places)}/{quote(given.get('dbname', ''))}?{'&'.join(words)}"
