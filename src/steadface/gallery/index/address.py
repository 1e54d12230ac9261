"""How an index is named, on the command line and in the file of a service's collections:

    exact, hnsw                                          in the memory of each process
    milvus+https://HOST:PORT/COLLECTION?index=hnsw       Milvus
    milvus+file:/FOLDER/NAME.db/COLLECTION               Milvus Lite
    postgresql://USER@HOST/DATABASE?schema=S&index=hnsw  PostgreSQL with the extension pgvector

Behind the ? stand, as far as they apply, `index` (`exact`, `hnsw`, `ivf`), `consistency` (of Milvus), `half=yes` (of
pgvector), and the numbers of a graph or of inverted lists. Passwords and tokens are taken from the address, and better
from the environment: `STEADFACE_INDEX_TOKEN` for Milvus (a token, or user:password), and libpq's own.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from steadface.errors import InvalidInput, quoted
from steadface.gallery.index import checked_count
from steadface.gallery.index.engine import Engine
from steadface.gallery.storage import ModelIdentity

if TYPE_CHECKING:
    from steadface.gallery.index.milvus import ServerIndex
    from steadface.gallery.session import Options

EXACT = "exact"
TOKEN = "STEADFACE_INDEX_TOKEN"
_GRAPH = ("connectivity", "expansion_add", "expansion_search")
_LISTS = ("lists", "probed")
_COLLECTION = re.compile("[A-Za-z_][A-Za-z0-9_]{0,199}")


def index_at(address: str) -> "Options":
    """What a gallery is opened with, to be searched so. Raises `InvalidInput` for what names no index, and never
    repeats an address, in which a password may stand.
    """
    if address == EXACT:
        return {}
    if address == "hnsw":
        from steadface.gallery.index.approximate import ApproximateIndex

        return {"index": ApproximateIndex}
    scheme = address.partition(":")[0]
    if scheme in ("milvus+http", "milvus+https", "milvus+file"):
        return {"engine": _milvus(address)}
    if scheme in ("postgresql", "postgres"):
        return {"engine": _pgvector(address)}
    shown = quoted(address) if re.fullmatch("[a-z0-9]{1,20}", address) else "what was given"
    raise InvalidInput(
        f"{shown} names no index: give exact, hnsw, milvus+http://HOST:PORT/COLLECTION or "
        "postgresql://USER@HOST/DATABASE"
    )


def _milvus(address: str) -> Callable[[ModelIdentity], Engine]:
    from steadface.gallery.index.milvus import Consistency, MilvusIndex

    try:
        parts = urlsplit(address.removeprefix("milvus+"))
        place, _, collection = parts.path.rpartition("/")
        port = "" if parts.port is None else f":{parts.port}"
        asked = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise InvalidInput(
            "the address of the index cannot be read: write milvus+http://HOST:PORT/COLLECTION, and what is special in "
            "a user or password as %XX (@ is %40, / is %2F)"
        ) from None
    if not _COLLECTION.fullmatch(collection) or bool(place) != (parts.scheme == "file") or parts.fragment:
        raise InvalidInput(
            "the address of the index names no collection of Milvus: write milvus+http://HOST:PORT/COLLECTION, or "
            "milvus+file:/FOLDER/NAME.db/COLLECTION, with letters, digits and _"
        )
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    uri = unquote(place) if parts.scheme == "file" else f"{parts.scheme}://{host}{port}"
    index = _server_index(asked)
    consistency = _one_of("consistency", asked.pop("consistency", "read-your-writes"), get_args(Consistency))
    _refuse(asked)
    user, password = (unquote(one or "") for one in (parts.username, parts.password))
    token = "" if user else os.environ.get(TOKEN, "")

    def opened(model: ModelIdentity) -> Engine:
        return MilvusIndex(
            uri,
            model=model,
            collection=collection,
            index=index,
            consistency=consistency,
            user=user,
            password=password,
            token=token,
        )

    return opened


def _server_index(asked: dict[str, str]) -> "ServerIndex":
    from steadface.gallery.index.milvus import FLAT, hnsw, inverted_lists

    kind = _one_of("index", asked.pop("index", EXACT), (EXACT, "hnsw", "ivf"))
    if kind == EXACT:
        return FLAT
    return hnsw(**_numbers(asked, _GRAPH)) if kind == "hnsw" else inverted_lists(**_numbers(asked, _LISTS))


def _pgvector(address: str) -> Callable[[ModelIdentity], Engine]:
    from steadface.gallery.index.pgvector import Graph, PgvectorIndex
    from steadface.gallery.storage.postgres.address import separated

    url, asked = separated(address, ("index", "half", *_GRAPH))
    kind = _one_of("index", asked.pop("index", EXACT), (EXACT, "hnsw"))
    half = _one_of("half", asked.pop("half", "no"), ("no", "yes")) == "yes"
    graph = Graph(**_numbers(asked, _GRAPH)) if kind == "hnsw" else Graph()
    _refuse(asked)
    return lambda model: PgvectorIndex(url, model=model, index=kind, half=half, graph=graph)


def _numbers(asked: dict[str, str], names: tuple[str, ...]) -> dict[str, int]:
    """Those of the names that are asked for, taken out."""
    found = {}
    for name in names:
        if (text := asked.pop(name, None)) is not None:
            if not re.fullmatch("[0-9]{1,6}", text):
                raise InvalidInput(f"{name}={quoted(text)} of the index is no whole number from 1 to 999999")
            found[name] = checked_count(int(text), f"{name} of the index")
    return found


def _one_of(name: str, given: str, known: tuple[str, ...]) -> Any:
    if given not in known:
        raise InvalidInput(f"{name}={quoted(given)} of the index is unknown; give one of {', '.join(known)}")
    return given


def _refuse(asked: Mapping[str, str]) -> None:
    if asked:
        raise InvalidInput(f"{quoted(next(iter(asked)))} means nothing to this index; leave it out of its address")
