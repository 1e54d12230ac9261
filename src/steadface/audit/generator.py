"""A trained generative attack in a file: the network that proposes perturbations, and what it was trained against.

The file is safetensors whose metadata entry `steadface` describes the network, its ball, its victim and its training.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from steadface.attacks import Ball, CosineScore, GenerativeAttack, Norm, PerturbationNetwork, Score, ball
from steadface.backbones.reading import read_safetensors
from steadface.backbones.weights import write_safetensors
from steadface.errors import Conflict, InvalidInput, NotFound, SteadfaceError, Unavailable, Unsupported
from steadface.records import parsed

KIND = "generative attack"

GRID = 56
"""Patterns are so many points high and wide, and enlarged to the image: half the side of an aligned face."""

SHARE = 0.1
"""Of what the face itself adds to the pattern. At 1 the patterns took several times as many steps to be learnt."""


MOST_NUMBERS = 65_536
"""Of an embedding: what is larger is a mistake, and no file of weights."""


class SteadyNetwork(PerturbationNetwork):
    """`PerturbationNetwork` with a pattern for each wish, and a field of mean 0 and variance 1 in every channel.

        field = normalise(SHARE h(x, noise, w) + enlarge(W w)),    w = sqrt(D) wish

    In aligned faces, what moves the embedding a given way is much the same in all of them: the linear W learns that
    within some 50 steps, and the convolutions h what depends on the face. Without the normalisation, what the first
    steps add up drives the field into the ends of the squash, where no gradient is left to learn from.
    """

    def __init__(self, *, embedding_size: int, width: int, blocks: int) -> None:
        super().__init__(embedding_size=embedding_size, width=width, blocks=blocks)
        convolution, shuffle = self.out
        self.out = nn.Sequential(convolution, nn.InstanceNorm2d(12), shuffle)
        self.patterns = nn.Linear(embedding_size, 3 * GRID**2, bias=False)
        nn.init.zeros_(self.patterns.weight)

    def forward(self, images: Tensor, noise: Tensor, wish: Tensor) -> Tensor:
        wish = wish * wish.shape[1] ** 0.5
        own = super().forward(images, noise, wish)
        pattern = self.patterns(wish).view(-1, 3, GRID, GRID)
        pattern = F.interpolate(pattern, size=images.shape[2:], mode="bilinear", align_corners=False)
        return F.instance_norm(SHARE * own + pattern)


class Description(BaseModel):
    """What stands beside the weights: all that rebuilds the network, and where it comes from.

    `embedding_size`, `width` and `blocks` are those of `SteadyNetwork`; `steps` of `planned` were trained. The
    last two say how far the cosine was moved on training faces at the end, None where that was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: Literal["generative attack"] = "generative attack"
    embedding_size: int = Field(ge=1, le=MOST_NUMBERS)
    width: int = Field(ge=1, le=1024)
    blocks: int = Field(ge=1, le=64)
    norm: Norm
    eps: float = Field(gt=0, allow_inf_nan=False)
    victim: str
    fingerprint: str
    steps: int = Field(ge=1)
    planned: int
    batch: int
    seed: int
    faces: str
    """Fingerprint of the faces."""
    dodging_moved: float | None = None
    impersonation_moved: float | None = None

    def network(self) -> SteadyNetwork:
        """The network on the meta device, which holds no weights: no size that is stated here costs memory."""
        with torch.device("meta"):  # drawing weights would use the global random state, too
            return SteadyNetwork(embedding_size=self.embedding_size, width=self.width, blocks=self.blocks)


@dataclass(frozen=True, kw_only=True)
class TrainedGenerator:
    """A generative attack that has learnt all it will. It moves to the device of the images.

    Its network may be used inside any ball; it was trained for that of its description.
    """

    attack: GenerativeAttack
    description: Description
    file: Path

    @property
    def ball(self) -> Ball:
        return self.attack.ball

    def within(self, ball: Ball) -> "TrainedGenerator":
        return replace(self, attack=self.attack.within(ball))

    def __call__(self, score: Score, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """Raises `SteadfaceError` where the score's embeddings are of another size than those trained for."""
        if isinstance(score, CosineScore):
            self.check_embedding_size(score.anchors.shape[1])
        self.attack.network.to(images.device)
        return self.attack(score, images, generator=generator)

    def check_embedding_size(self, size: int) -> None:
        """Raises `SteadfaceError` unless the attack was trained for embeddings of that size."""
        if size != self.description.embedding_size:
            raise Unsupported(
                f"{self.file} was trained against {self.description.victim}, whose embeddings have "
                f"{self.description.embedding_size} numbers, and those of this recogniser have {size}: train one with "
                "`steadface attack-train` against a recogniser of that size"
            )


def save_generative(path: Path, network: SteadyNetwork, description: Description) -> None:
    """Writes the network and its description, whole or not at all. Raises `SteadfaceError` where the disk refuses."""
    write_safetensors(path, network.state_dict(), description.model_dump(mode="json"))


def load_generative(path: Path, *, embedding_size: int | None = None) -> TrainedGenerator:
    """The attack in the file at `path`, which only proposes, inside the ball that it was trained for.

    Raises `SteadfaceError` for a file that is missing, damaged or none of `save_generative`, and where `embedding_size`
    is given and not that of the recogniser it was trained against.
    """
    if not path.is_file():
        raise NotFound(f"{path} is no file; train a generative attack with `steadface attack-train --out {path}`")
    state, metadata = read_safetensors(path)
    if not _ours(metadata):
        raise InvalidInput(f"{path} holds no generative attack; `steadface attack-train` writes one")
    network, description = _rebuilt(path, state, metadata)
    trained = TrainedGenerator(attack=_proposing(network, description), description=description, file=path)
    if embedding_size is not None:
        trained.check_embedding_size(embedding_size)
    return trained


def check_out(path: Path) -> None:
    """Raises `SteadfaceError` unless a generative attack can be written to `path`.

    What stands there already must be an earlier one, which is replaced.
    """
    if path.suffix != ".safetensors":
        raise InvalidInput(f"--out {path}: the weights are written as safetensors; name a file that ends with that")
    if path.is_dir():
        raise InvalidInput(f"--out {path} is a folder: name a file, as in {path / 'generator.safetensors'}")
    if path.exists() and not _is_ours(path):
        raise Conflict(f"--out {path} exists and holds no generative attack: name another file or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"--out {path}: cannot make its folder: {error.strerror}; name another") from None


def _is_ours(path: Path) -> bool:
    try:
        return _ours(read_safetensors(path, keys=())[1])
    except SteadfaceError:
        return False


def _ours(metadata: Mapping[str, object]) -> bool:
    return metadata.get("kind") == KIND


def _rebuilt(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, object]
) -> tuple[SteadyNetwork, Description]:
    try:
        description = parsed(Description, metadata)
        if odd := next((name for name, value in state.items() if not _sound(value)), None):
            raise ValueError(f"{odd} holds other than finite float32 numbers")
        network = description.network()
        network.load_state_dict(state, assign=True)
    except (InvalidInput, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInput(f"{path} is damaged, or of another version ({reason:.300}); train it anew") from error
    return network.eval(), description


def _sound(value: Tensor) -> bool:
    return value.dtype == torch.float32 and bool(value.isfinite().all())


def _proposing(network: SteadyNetwork, description: Description) -> GenerativeAttack:
    network.requires_grad_(False)
    optimizer = torch.optim.SGD(network.parameters())  # never steps
    around = ball(description.norm, description.eps)
    return GenerativeAttack(ball=around, network=network, optimizer=optimizer, learn=False)
