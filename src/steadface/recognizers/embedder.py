"""Aligned faces to unit embeddings in service: torch, eager or compiled, or onnxruntime.

The weights never change here, so that BatchNorms are folded away and what is compiled stays compiled.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, Protocol, assert_never, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.arguments import choice, count
from steadface.backbones.frozen import frozen, frozen_where_alike
from steadface.data.faces import Image, fit_size
from steadface.devices import has_compiler, resolve_device
from steadface.errors import InvalidInput, Unsupported
from steadface.evaluation.embedding import unit_embeddings
from steadface.recognizers.adapters import Adapted, BlackBox, External
from steadface.recognizers.convention import Convention
from steadface.recognizers.network import OpenedRecognizer

Backend = Literal["auto", "torch", "onnxruntime"]
Precision = Literal["fp32", "bf16"]
Faces = NDArray[np.uint8]
"""(B, H, W, 3) RGB."""

BATCH = 64
LEAST_BATCH, PER_THREAD = 8, 4
"""Faces at a time on a CPU, where feature maps that fit into its caches are worth more than long loops."""

logger = logging.getLogger(__name__)


class Embedder(Protocol):
    """Faces (B, H, W, 3) uint8 RGB of `size` (height, width) to unit embeddings (B, D) float32."""

    @property
    def size(self) -> tuple[int, int]: ...

    def __call__(self, faces: Faces) -> NDArray[np.float32]: ...


class NetworkEmbedder:
    """A network of images (B, 3, H, W) in [0, 1] as an `Embedder`, `batch` faces at a time, by default as many as are
    fastest.

    `compile` pays where thousands of faces follow: the first batch takes a minute or so. Without a C++ compiler it
    stays eager, with one warning. `precision` bf16 is faster on processors that multiply it; embeddings then differ in
    the third digit.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mirror: bool = False,
        compile: bool = False,
        precision: Precision = "fp32",
        batch: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        choice("precision", precision, Precision)
        self.size = cast("tuple[int, int]", network.image_size)
        self._device = resolve_device(device)
        self._network = quickened(network).to(self._device)
        self._run = compiled(self._embeddings, self._device) if compile else self._embeddings
        self._mirror, self._precision = mirror, precision
        eager_on_cpu = self._device.type == "cpu" and not compile
        fastest = max(LEAST_BATCH, PER_THREAD * torch.get_num_threads()) if eager_on_cpu else BATCH
        self._batch = fastest if batch is None else count("batch", batch)

    def __call__(self, faces: Faces) -> NDArray[np.float32]:
        _check(faces, self.size)
        parts = [self._part(faces[start : start + self._batch]) for start in range(0, len(faces), self._batch)]
        if not parts:
            raise InvalidInput("there are no faces to embed; give one or more")
        found = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise InvalidInput("the model gives NaN or infinity for a face; its weights are damaged, use another file")
        if not found.any(1).all():  # unit vectors otherwise
            raise InvalidInput(
                "the model gives nothing but zeros for a face; leave that face out, or use another model"
            )
        return found

    def _part(self, faces: Faces) -> NDArray[np.float32]:
        match self._precision:
            case "fp32":
                mixed: AbstractContextManager[object] = nullcontext()
            case "bf16":
                mixed = torch.autocast(self._device.type, torch.bfloat16)
            case _:
                assert_never(self._precision)
        with torch.inference_mode(), mixed:
            pixels = torch.from_numpy(np.ascontiguousarray(faces)).to(self._device)
            return self._run(pixels).float().cpu().numpy()

    def _embeddings(self, faces: Tensor) -> Tensor:
        images = faces.permute(0, 3, 1, 2).to(torch.float32) / 255  # channels last in memory, as it came
        return unit_embeddings(self._network, images, mirror=self._mirror)


def compiled(embed: Callable[[Tensor], Tensor], device: torch.device) -> Callable[[Tensor], Tensor]:
    """`embed` by torch's compiler; itself, with a warning, where there is none for that device."""
    if device.type == "cpu" and not has_compiler():
        logger.warning("no C++ compiler is installed, so the model is not compiled; it embeds more slowly")
        return embed
    return cast("Callable[[Tensor], Tensor]", torch.compile(embed, dynamic=None))


def quickened(network: nn.Module) -> nn.Module:
    """`network` with BatchNorms folded, in evaluation mode; what runs in onnxruntime is that already, and a function is
    what it is. A module of other origin stays as it is where the copy does not embed as it does.
    """
    if isinstance(network, BlackBox) or in_onnxruntime(network):
        return network.eval()
    return frozen_where_alike(network.eval()) if isinstance(network, Adapted) else frozen(network)


def in_onnxruntime(network: nn.Module) -> bool:
    return isinstance(network, Adapted) and isinstance(network.core, External)


def open_embedder(
    opened: OpenedRecognizer,
    *,
    mirror: bool = False,
    backend: Backend = "auto",
    compile: bool = False,
    precision: Precision = "fp32",
    device: torch.device | str = "cpu",
) -> Embedder:
    """The embedder of a recogniser: `auto` runs ONNX files in onnxruntime and everything else in torch.

    Raises SteadfaceError where the backend cannot run that model, and for options that do not exist.
    """
    choice("backend", backend, Backend)
    path = Path(opened.path or "")
    network = opened.network
    if backend != "torch" and path.suffix == ".onnx":
        if resolve_device(device).type != "cpu":
            raise Unsupported(f"{path} runs in onnxruntime on the CPU, not on {device}; give backend='torch'")
        if not in_onnxruntime(network):
            network = runtime(path, opened.convention, opened.output)
    elif backend == "onnxruntime":
        raise Unsupported(
            f"{path} is not an ONNX file: write one with `steadface export {path} FILE.onnx`, or use torch"
        )
    if compile and in_onnxruntime(network):
        raise Unsupported(f"{path} runs in onnxruntime, which is not compiled by torch; leave compile out")
    return NetworkEmbedder(network, mirror=mirror, compile=compile, precision=precision, device=device)


def runtime(path: Path, convention: Convention, output: str | None = None) -> nn.Module:
    """An ONNX file in onnxruntime under a convention; of several outputs the one called so, else the first."""
    from steadface.recognizers.onnx.read import read_onnx
    from steadface.recognizers.onnx.runtime import network_of

    file = read_onnx(path)
    return network_of(file, convention, output=output or file.output, gradients=False)[0]


def stacked(faces: Sequence[Image], size: tuple[int, int]) -> Faces:
    """Aligned faces of any size as one array (n, H, W, 3) of that size. Raises SteadfaceError where there are none."""
    if not faces:
        raise InvalidInput("there are no faces to embed; give one or more")
    return np.stack([fit_size(face, size) for face in faces])


def _check(faces: Faces, size: tuple[int, int]) -> None:
    if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[1:] != (*size, 3):
        height, width = size
        raise InvalidInput(
            f"faces are {faces.dtype} of shape {faces.shape}; this model takes uint8 RGB (B, {height}, {width}, 3)"
        )
