"""Engines: indexes that several processes share, such as a Milvus or a PostgreSQL server.

*The engine proposes, the truth disposes.* An engine says which templates may be the most similar to a probe; the
gallery then opens exactly these, computes their cosines itself, and leaves out what is gone or expired. So whatever an
engine holds, nobody is found who was removed, and no similarity is its.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from steadface.gallery.index import Keys, VectorIndex, Vectors
from steadface.gallery.storage import ModelIdentity


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Up to where an engine has followed a gallery of that id: it holds all templates of numbers up to `template` that
    there were at entry `sequence` of the log, whose hash is `head` (hex), and none that was removed until then.
    """

    gallery: str
    sequence: int
    head: str
    template: int


class Engine(VectorIndex, Protocol):
    """A `VectorIndex` by the numbers of templates, that holds a mark beside them, so that both are lost together.

    What a method changed is acknowledged once it returns, and can be repeated without harm, by several processes at
    once. What an engine cannot do raises `Unavailable`. A search sees what was written through this object, and what
    was written before the mark that `mark` returned last, unless something weaker was asked for.
    """

    @property
    def name(self) -> str:
        """What messages call it: an address, without passwords."""
        ...

    @property
    def most(self) -> int:
        """The k of a search, at most."""
        ...

    def mark(self) -> Mark | None:
        """None where nothing was ever put in. It may be an earlier one than the last that another process has put."""
        ...

    def put_mark(self, mark: Mark) -> None: ...

    def within(self, first: int, last: int) -> tuple[Keys, Vectors]:
        """What it holds under the numbers `first` to `last`, some thousand at most, ascending: all that was written."""
        ...

    def outside(self, last: int, most: int) -> Keys:
        """At most so many of the keys that are none of 1 to `last`: of all that were written."""
        ...

    def arrange(self) -> None:
        """Called behind many additions: what the engine does to search them faster, it may begin now."""
        ...

    def pending(self) -> int:
        """How many of its vectors are not yet in the approximate index that it was made with, so that a search may miss
        more of them, or take longer, than once they are; 0 where all are compared.
        """
        ...

    def close(self) -> None:
        """Does nothing where it is closed already."""
        ...


def model_digest(model: ModelIdentity) -> str:
    """The same for models whose templates may lie in one index."""
    return sha256(f"{model.fingerprint} {model.mirror}".encode()).hexdigest()[:32]
