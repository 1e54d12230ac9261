"""Embeddings of many faces: the embedding that is judged is the embedding that is attacked."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.attacks.gaussian import blurred
from steadface.attacks.gradients import crafting
from steadface.data.faces import FaceSource
from steadface.data.loading import as_tensor, read_images
from steadface.errors import InvalidInput

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


@runtime_checkable
class FaceNetwork(Protocol):
    """What an embedder asks of a module: images (B, 3, H, W), RGB in [0, 1], to raw embeddings (B, D).

    `image_size` is (height, width); `differentiable` is false where no gradient reaches the images.
    """

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def differentiable(self) -> bool: ...

    def __call__(self, images: Tensor) -> Tensor: ...


def unit_embeddings(network: Callable[[Tensor], Tensor], images: Tensor, *, mirror: bool) -> Tensor:
    """Unit embeddings (B, D) of images (B, 3, H, W), in calibration as in service; differentiable where `network` is.

        z = normalise(f(x))        with mirror: normalise(f(x) + f(mirrored x))

    The sum is InsightFace's protocol for verification sets; both halves are one batch.
    """
    raw = network(torch.cat([images, images.flip(-1)]) if mirror else images)
    return F.normalize((raw[: len(images)] + raw[len(images) :] if mirror else raw).float())


class MirrorEmbedder(nn.Module):
    """Images (B, 3, H, W) in [0, 1] to their `unit_embeddings` (B, D); differentiable where its network is.

    The network, a `Backbone` or any other module, is a `FaceNetwork`; TypeError else.
    """

    def __init__(self, backbone: nn.Module, mirror: bool = True) -> None:
        super().__init__()
        if not isinstance(backbone, FaceNetwork):
            raise TypeError(f"{type(backbone).__name__} has no image_size and differentiable: it is not a FaceNetwork")
        self.backbone = backbone
        self.mirror = mirror

    def forward(self, images: Tensor) -> Tensor:
        return unit_embeddings(self.backbone, images, mirror=self.mirror)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that the network takes."""
        return cast(FaceNetwork, self.backbone).image_size

    @property
    def differentiable(self) -> bool:
        """Whether gradients reach the images."""
        return cast(FaceNetwork, self.backbone).differentiable

    @property
    def device(self) -> torch.device:
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device


class Blurred(nn.Module):
    """A `FaceNetwork` that is shown every image blurred by so many pixels, see `blurred`."""

    def __init__(self, network: nn.Module, width: float) -> None:
        super().__init__()
        self.network, self.width = network, width
        known = cast(FaceNetwork, network)
        self.image_size, self.differentiable = known.image_size, known.differentiable

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.network(blurred(images, self.width))
        return embeddings


class Noisy(nn.Module):
    """A `FaceNetwork` that is shown every image under Gaussian noise of standard deviation `sigma`, of the pixel range.

    The same noise for the same images in the same order from when it is made: two networks can be compared under it.
    """

    def __init__(self, network: nn.Module, sigma: float, seed: int) -> None:
        super().__init__()
        self.network, self.sigma = network, sigma
        self.image_size, self.differentiable = cast(FaceNetwork, network).image_size, False
        self._noise = torch.Generator().manual_seed(seed)

    def forward(self, images: Tensor) -> Tensor:
        noise = torch.randn(images.shape, generator=self._noise).to(images)
        embeddings: Tensor = self.network(images + self.sigma * noise)
        return embeddings


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """Unit embeddings `rows` (n, D) of the faces at `indices` (n,), made by `embed_faces` with mirror images or
    without: to be handed on to whatever needs those of the same network and faces.
    """

    indices: NDArray[np.int64]
    rows: NDArray[np.float32]
    mirror: bool

    def serves(self, indices: NDArray[np.int64], *, mirror: bool) -> bool:
        """Whether these are what embedding anew would give, bit for bit: the same faces in the same batches."""
        return self.mirror == mirror and np.array_equal(self.indices, indices)


def embed_faces(
    embedder: MirrorEmbedder,
    faces: FaceSource,
    indices: NDArray[np.int64] | None = None,
    *,
    batch_size: int = 64,
    threads: int = 1,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Unit embeddings (n, D) of `faces` at `indices` (all of them by default), on the embedder's device.

    `threads` decode ahead while the network runs (0: none). The embedder is used in evaluation mode and left in
    the mode it was in. Raises `UnreadableImage`, or with `skip_unreadable` leaves a row of NaN; raises
    `SteadfaceError` where the network itself gives NaN or infinity.
    """
    chosen = np.arange(len(faces)) if indices is None else np.asarray(indices, dtype=np.int64)
    if not len(chosen):
        raise InvalidInput("there are no images to embed")
    load = partial(_load, faces, size=embedder.size, skip_unreadable=skip_unreadable)
    batches = [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    parts, done = [], 0
    with crafting(embedder), torch.inference_mode():
        for batch, (images, readable) in zip(batches, ahead(load, batches, threads), strict=True):
            parts.append(_embed(embedder, images, readable))
            if not np.isfinite(parts[-1][readable]).all():
                raise InvalidInput(
                    f"the network gives NaN or infinity for {faces.name(int(batch[0]))} or one of the "
                    f"{len(batch) - 1} images after it; its weights are damaged or its training diverged"
                )
            done += len(batch)
            if progress is not None:
                progress(done, len(chosen))
    width = max(part.shape[1] for part in parts)
    return np.concatenate([part if part.shape[1] == width else _nan(len(part), width) for part in parts])


def unanswered(embeddings: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(n,) which of the embeddings (n, D) are nothing but zeros: like nobody, and refused in service."""
    zero: NDArray[np.bool_] = embeddings == 0
    found: NDArray[np.bool_] = np.asarray(zero.all(1))
    return found


def without_answer(name: str, zeros: int, images: int) -> list[str]:
    """A warning where there are such."""
    if not zeros:
        return []
    return [
        f"{name}: {zeros} of {images} images are given nothing but zeros: in service such a face is refused, and here "
        "it counts as different from everybody, so that rates of false matches seem lower"
    ]


def _embed(embedder: MirrorEmbedder, images: Tensor, readable: NDArray[np.bool_]) -> NDArray[np.float32]:
    if not readable.any():
        return _nan(len(readable), 0)  # the width is not known yet
    embedded = embedder(images.to(embedder.device)).cpu().numpy()
    rows = _nan(len(readable), embedded.shape[1])
    rows[readable] = embedded
    return rows


def _nan(rows: int, width: int) -> NDArray[np.float32]:
    return np.full((rows, width), np.nan, dtype=np.float32)


def _load(
    faces: FaceSource, indices: NDArray[np.int64], *, size: tuple[int, int], skip_unreadable: bool
) -> tuple[Tensor, NDArray[np.bool_]]:
    """The readable images of a batch, and which those are (n,)."""
    images, readable = read_images(faces, indices, size, skip_unreadable=skip_unreadable)
    return as_tensor(images), readable


Asked = TypeVar("Asked")
Loaded = TypeVar("Loaded")


def ahead(load: Callable[[Asked], Loaded], batches: Sequence[Asked], threads: int) -> Iterator[Loaded]:
    """Loaded batches in order, with `threads` of them being decoded while the caller works on one."""
    if threads == 0:
        yield from map(load, batches)
        return
    waiting: deque[Future[Loaded]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in batches:
            waiting.append(pool.submit(load, batch))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
