"""The nodes that hold the shards of a gallery, asked over HTTP by the one that knows all of them."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from steadface.arguments import Shard
from steadface.client.calls import Call
from steadface.client.clients import Client
from steadface.client.retries import Retries
from steadface.errors import Conflict, InvalidInput, SteadfaceError, Unavailable
from steadface.files import read_secret
from steadface.gallery.index import Vectors
from steadface.gallery.shards import Found

ANSWER = 10.0
"""Seconds that a node has for each step of an answer."""
RETRIES = Retries(times=1, first=0.05)
"""A connection that was kept open may have been closed by the other side."""


class HttpNode:
    """A `Node` at the address that `client` knows, in its first collection or the one of that name."""

    def __init__(self, client: Client, collection: str | None) -> None:
        self._client, self._collection = client, collection

    @property
    def name(self) -> str:
        return self._client.url

    def search(self, probes: Vectors, k: int, *, least: int) -> Found:
        words: dict[str, Any] = {
            "vectors": base64.b64encode(probes.astype("<f4").tobytes()).decode(),
            "k": k,
            "least": least,
        }
        if self._collection is not None:
            words["collection"] = self._collection
        try:
            return self._client.send(Call(method="POST", path="/v1/shard", read=_found, words=words))
        except Unavailable:
            raise
        except SteadfaceError as error:
            raise Conflict(f"{self.name} does not search its shard: {error}") from error


@contextmanager
def nodes(urls: Sequence[str], key: Path | None, collection: str | None) -> Iterator[list[HttpNode]]:
    """At these addresses, with the API key in a file, until the end. Raises SteadfaceError for what is no address, and
    for a file that cannot be read or that others may read.
    """
    token = None
    if key is not None:
        told = read_secret(
            key, "the API key in", remedy="write what `steadface keys make --scope shard` showed into it"
        )
        token = told.decode("ascii", "replace")
    with ExitStack() as stack:
        clients = [
            stack.enter_context(Client(url, key=token, timeout=ANSWER, retries=RETRIES)) for url in dict.fromkeys(urls)
        ]
        if len(clients) < len(urls):
            raise InvalidInput("an address of a node is given twice; name each node that holds a shard once")
        yield [HttpNode(client, collection) for client in clients]


def _found(told: Any) -> Found:
    ranked = [[(int(person), float(cosine), int(key)) for person, cosine, key in one] for one in told["ranked"]]
    return Found(
        gallery=str(told["gallery"]), shard=Shard.parsed(told["shard"]), entry=int(told["entry"]), ranked=ranked
    )
