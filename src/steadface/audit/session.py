"""What every part of an audit works with: the networks, the plan, the meter, and what is finished so far.

That lies on the disk, one file a chunk of work, so that a stopped audit goes on. A chunk is kept under its name in the
folder `state` of the audit, together with what the audit is of. The folder holds adversarial faces and goes away once
the report is written.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from steadface.arguments import SEEDS
from steadface.attacks import crafting
from steadface.audit.execution import Arrays, Batch, Victim
from steadface.audit.plan import Plan
from steadface.audit.request import Request
from steadface.backbones.frozen import frozen_where_alike
from steadface.backbones.soundness import digest
from steadface.data.faces import SAMPLE, FaceSource, content
from steadface.data.loading import load_images
from steadface.errors import Conflict, InvalidInput, quoted, short
from steadface.evaluation.embedding import MirrorEmbedder
from steadface.evaluation.series import Aim
from steadface.files import read_file, write_atomically
from steadface.recognizers import surrogate_embed
from steadface.records import SMALL

Progress = Callable[[str, float, float], None]
"""Called with (what is being done, work done, all work), in passes of one image through the network."""


STATE = "state"
DIGEST = "digest"


class Chunks:
    """The chunks of one audit in `folder`/state; those made of images with other `contents` are made again.

    `record` is the file of a finished one. Raises `SteadfaceError` where the folder holds it, or the state of one whose
    `identity`, plain JSON, differs; the message names what.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], contents: str = "", *, record: str = "audit.json"
    ) -> None:
        self.folder = folder / STATE
        if (folder / record).exists():
            what = Path(record).stem
            raise Conflict(f"{folder} holds a finished {what} already: choose another --out, or remove that folder")
        text = json.dumps(identity, indent=2, sort_keys=True)
        self._seal = f"{text}{contents}".encode()
        file = self.folder / "audit-of.json"
        if file.exists():
            _check(folder, _of(file), json.loads(text))
        else:
            write_atomically(file, text.encode())

    def get(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of that chunk: those on the disk, or what `make` returns, kept from then on."""
        file = self.folder / f"{name}.safetensors"
        if (kept := self._kept(file)) is not None:
            return kept
        made = {key: np.ascontiguousarray(value) for key, value in make().items()}
        write_atomically(file, save(made, metadata={DIGEST: self._digest(file, made)}))
        return made

    def _kept(self, file: Path) -> Arrays | None:
        """The arrays of a chunk, None where there are none, or not those that were written there: in this audit, of
        these images, and under this name. They can be made again.
        """
        try:
            if not file.is_file():  # a pipe would be waited for
                return None
            with safe_open(file, framework="np") as opened:
                metadata = opened.metadata() or {}
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118, it is not a mapping
        except (SafetensorError, OSError, MemoryError):
            return None
        return arrays if metadata.get(DIGEST) == self._digest(file, arrays) else None

    def _digest(self, file: Path, arrays: Arrays) -> str:
        parts = (
            part
            for name, array in sorted(arrays.items())
            for part in (repr((name, str(array.dtype), array.shape)).encode(), array.tobytes())
        )
        return digest([self._seal, file.name.encode(), *parts])


def _of(file: Path) -> dict[str, Any]:
    """What the audit begun there is of. Raises SteadfaceError where that cannot be read."""
    try:
        found = json.loads(read_file(file, most=SMALL))
    except (OSError, ValueError, RecursionError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise InvalidInput(
            f"{file} cannot be read ({short(str(what))}), so nothing says what the audit begun there is of: choose "
            "another --out, or remove that folder"
        ) from error
    return found if isinstance(found, dict) else {}


def contents(faces: FaceSource, images: NDArray[np.int64], seed: int) -> str:
    """Hex digest of the bytes of some of the images."""
    drawn = np.sort(np.random.default_rng(seed).permutation(images)[:SAMPLE])
    return digest(content(faces, index) for index in drawn.tolist())


def _check(folder: Path, found: dict[str, Any], asked: dict[str, Any]) -> None:
    changed = [key for key in sorted(found.keys() | asked.keys()) if found.get(key) != asked.get(key)]
    if changed:
        told = "; ".join(f"{key} was {quoted(found.get(key))} and is {quoted(asked.get(key))}" for key in changed[:3])
        raise Conflict(
            f"{folder} holds the beginning of another audit ({told}): choose another --out, or remove that folder"
        )


class Meter:
    """How much of all work, in passes of one image through the network, is done."""

    def __init__(self, report: Progress) -> None:
        self._report, self._done, self._total = report, 0.0, 0.0

    def expect(self, total: float) -> None:
        """How much there is to do."""
        self._total = total

    def advance(self, what: str, work: float = 0.0) -> None:
        self._done += work
        self._report(what, min(self._done, self._total), self._total)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One goal: its pairs (n,) of the pair set, clean cosines (n,), and what attacks aim at."""

    aim: Aim
    chosen: NDArray[np.int64]
    clean: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Networks:
    """The recogniser as it is, as it is attacked, and the surrogates; all take images of its size."""

    embedder: MirrorEmbedder
    victim: Victim
    surrogates: tuple[MirrorEmbedder, ...]

    @classmethod
    def of(cls, request: Request) -> "Networks":
        network = request.model.network.to(request.device)
        embedder = MirrorEmbedder(network, request.mirror)
        crafts, gradients = embedder, bool(network.differentiable)
        if gradients:
            with crafting(embedder):
                crafts = MirrorEmbedder(frozen_where_alike(network), request.mirror)
        return cls(
            embedder=embedder,
            victim=Victim(embedder=embedder, crafts=crafts, differentiable=gradients),
            surrogates=tuple(
                MirrorEmbedder(surrogate_embed(other, embedder.size).to(request.device), mirror=False).eval()
                for other in request.surrogates
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Session:
    """`embeddings` (N, D) are clean ones, NaN where none was needed or the image cannot be read."""

    request: Request
    plan: Plan
    networks: Networks
    embeddings: NDArray[np.float32]
    chunks: Chunks
    meter: Meter

    @property
    def victim(self) -> Victim:
        return self.networks.victim

    def rows(self, side: Side) -> list[NDArray[np.int64]]:
        """The pairs of a side in batches."""
        size = self.request.batch
        return [np.arange(start, min(start + size, len(side.chosen))) for start in range(0, len(side.chosen), size)]

    def generator(self, name: str) -> torch.Generator:
        """Randomness that depends on the seed and the name alone."""
        return torch.Generator().manual_seed((self.request.seed * 1_000_003 + zlib.crc32(name.encode())) % SEEDS)

    def batch(self, side: Side, rows: NDArray[np.int64], *, surrogates: bool = False) -> Batch:
        """Those pairs of a side, with what the surrogates make of the references where asked."""
        pairs, chosen = self.plan.pairs, side.chosen[rows]
        device, size = self.request.device, self.networks.embedder.size
        targets = load_images(pairs.faces, pairs.second[chosen], size).to(device)
        with torch.no_grad():
            others = tuple(other(targets) for other in self.networks.surrogates) if surrogates else ()
        return Batch(
            images=load_images(pairs.faces, pairs.first[chosen], size).to(device),
            targets=targets,
            references=torch.from_numpy(self.embeddings[pairs.second[chosen]]).to(device),
            clean=torch.from_numpy(side.clean[rows]).to(device),
            surrogates=others,
        )

    def by_batches(
        self, name: str, side: Side, cost: float, make: Callable[[NDArray[np.int64], torch.Generator], Arrays]
    ) -> list[Arrays]:
        """What `make` returns for every batch of a side, each kept once it is done; `cost` is that of a pair."""
        what = f"{name}, {side.aim.goal}"
        parts = []
        for rows in self.rows(side):
            self.meter.advance(what)
            chunk = f"{name}-{side.aim.goal}-{rows[0]:05d}".replace(" ", "-")

            def made(rows: NDArray[np.int64] = rows, chunk: str = chunk) -> Arrays:
                with crafting(self.networks.embedder, self.victim.crafts, *self.networks.surrogates):
                    return make(rows, self.generator(chunk))

            parts.append(self.chunks.get(chunk, made))
            self.meter.advance(what, cost * len(rows))
        return parts
