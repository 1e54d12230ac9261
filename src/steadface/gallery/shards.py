"""A gallery divided over nodes: each finds among a stated part of the people, and whoever asks all of them merges.

People are divided, not templates: the k most similar people of all are among the k most similar ones of their shards,
so that what is merged is exactly what one index would find. All shards answer from a state of the gallery that has the
entries that whoever asks knows of; where one of them does not, or is missing, nothing is found rather than too little.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

import numpy as np

from steadface.arguments import Shard
from steadface.errors import Conflict, InvalidInput, Unavailable
from steadface.gallery.index import Vectors
from steadface.gallery.index.follower import Ranked
from steadface.gallery.sealing.transaction import Reader

LOOKED = 0.5
"""Seconds after which shards are asked again whether they are there, though nothing has changed."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a `shard` of the gallery of that id found for each probe, in a state with the `entry` of its log."""

    gallery: str
    shard: Shard
    entry: int
    ranked: Sequence[Ranked]


class Node(Protocol):
    """Somebody who holds a shard, safe for several threads."""

    @property
    def name(self) -> str:
        """What messages call it: an address, without secrets."""
        ...

    def search(self, probes: Vectors, k: int, *, least: int) -> Found:
        """For each of the unit `probes` (B, D; none only asks whether it is there) the `k` most similar people of the
        shard, in a state that has the entry `least`. Raises `SteadfaceError`.
        """
        ...


class Shards:
    """A `Searcher` that asks all `nodes` at once and merges what they find."""

    def __init__(self, nodes: Sequence[Node], dimension: int) -> None:
        if not nodes:
            raise InvalidInput("no node is named that holds a shard; name all of them")
        self._nodes, self._none = nodes, np.empty((0, dimension), dtype=np.float32)
        self._threads = ThreadPoolExecutor(max_workers=4 * len(nodes), thread_name_prefix="steadface-shard")
        self._gallery, self._sequence, self._asked = "", -1, 0.0

    def close(self) -> None:
        """The nodes stay as they are."""
        self._threads.shutdown(wait=False)

    def catch_up(self, reader: Reader) -> None:
        """Raises as `search` does where it could not be answered in that state."""
        self._gallery, sequence = reader.vault.gallery, reader.last_sequence()
        if sequence != self._sequence or monotonic() - self._asked > LOOKED:
            self._found(self._none, 1, sequence)
            self._sequence, self._asked = sequence, monotonic()

    def search(self, probes: Vectors, k: int) -> list[Ranked]:
        """For each of the unit `probes` (B, D) the `k` most similar people, each with the best of their templates.

        Raises `Unavailable` where a node does not answer, and `Conflict` where they are not the shards of the gallery.
        """
        several = [found.ranked for found in self._found(probes, k, self._sequence)]
        return [
            sorted((one for ranked in of_probe for one in ranked), key=lambda one: (-one[1], one[2]))[:k]
            for of_probe in zip(*several, strict=True)
        ]

    def _found(self, probes: Vectors, k: int, least: int) -> list[Found]:
        asked = [self._threads.submit(node.search, probes, k, least=least) for node in self._nodes]
        answers = []
        for node, future in zip(self._nodes, asked, strict=True):
            try:
                answers.append(future.result())
            except Unavailable as error:
                raise Unavailable(
                    f"{node.name}, one of {len(self._nodes)} nodes that hold shards of the gallery, does not answer "
                    f"({error}); nothing is searched without it, since its people would be missed"
                ) from error
        self._check(answers, len(probes), least)
        return answers

    def _check(self, answers: Sequence[Found], probes: int, least: int) -> None:
        """That they are all shards of this gallery, each once, as it is now."""
        held = {str(one.shard) for one in answers}
        expected = {f"{number}/{len(answers)}" for number in range(1, len(answers) + 1)}
        for node, one in zip(self._nodes, answers, strict=True):
            if one.gallery != self._gallery:
                raise Conflict(f"{node.name} holds a shard of another gallery ({one.gallery}); name those of this one")
            if one.entry < least or len(one.ranked) != probes:
                raise Unavailable(f"{node.name} does not know of entry {least} of the gallery yet; try again")
        if held != expected:
            raise Conflict(
                f"the {len(answers)} nodes hold the shards {', '.join(str(one.shard) for one in answers)}; start one "
                f"node with each of {', '.join(sorted(expected))}, and name each once"
            )
