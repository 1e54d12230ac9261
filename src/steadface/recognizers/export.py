"""An opened recogniser as an ONNX file that other software takes: written only once it has proved to agree.

    max | z_onnx - z_torch | < PARITY    unit embeddings of the same faces, in batches of 1, 2, 7 and 64

Facts of what others expect: one input of RGB pixels, NCHW float32, of any batch, and one output of raw embeddings.
InsightFace feeds (x - 127.5) / 127.5 unless nodes called Sub and Mul are among the first eight, then 0..255; exported
files are of the second kind, whatever the normalisation of the model. With `half` there is no such parity, since
float16 carries three digits: what it costs is measured instead, as the cosine to the embedding in float32.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from steadface.devices import open_session
from steadface.errors import InvalidInput, Unsupported
from steadface.files import write_atomically
from steadface.recognizers import OpenedRecognizer, open_recognizer
from steadface.recognizers.adapters import Adapted, BlackBox, under
from steadface.recognizers.contract import Contract, with_contract
from steadface.recognizers.onnx.runtime import Runtime
from steadface.recognizers.onnx.torch import OnnxGraph
from steadface.recognizers.onnx.write import INPUT, OUTPUT, onnx_model, traced

if TYPE_CHECKING:
    import onnxruntime

PARITY = 1e-4
BATCHES = (1, 2, 7, 64)

LEAST_COSINE = 0.99
"""Half precision moves an embedding by 1e-5 or so of its length squared; one further off has left the range."""

Faces = NDArray[np.uint8]
"""(B, H, W, 3) RGB."""
Embeddings = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written: its `size` in bytes; the `parity` of the float32 graph, the largest difference of a coordinate;
    and with `half` the least and mean cosine between the float16 and the float32 embeddings of `faces` faces, or of
    patches of colour where that is 0.
    """

    path: Path
    size: int
    dimension: int
    parity: float
    half: bool
    least_cosine: float | None = None
    mean_cosine: float | None = None
    faces: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "bytes": self.size,
            "dimension": self.dimension,
            "input": INPUT,
            "output": OUTPUT,
            "parity": self.parity,
            "half": self.half,
            "least_cosine": self.least_cosine,
            "mean_cosine": self.mean_cosine,
            "faces": self.faces,
        }


def export_onnx(
    opened: OpenedRecognizer,
    path: Path,
    *,
    half: bool = False,
    faces: Faces | None = None,
    metadata: Mapping[str, str] = MappingProxyType({}),
) -> Exported:
    """Writes the recogniser to `path`, an .onnx file, with `metadata` among its properties; atomically, and only if its
    embeddings agree with torch's on `faces` (B, H, W, 3) of the model's size, or on patches of colour.

    Any torch network that torch.export can follow is taken. Raises SteadfaceError for other models (an ONNX file, which
    is what it would become, or a function without a network), a path of another kind, faces of another size, and where
    parity fails.
    """
    network = _exportable(opened)
    _check(opened, path, faces)
    samples = _patches(opened) if faces is None or not len(faces) else faces
    graph = traced(network, opened.convention.size, opened.name)
    whole = _written(opened, graph, half=False, metadata=metadata)
    expected = [_torch_embeddings(opened.network, _batch(samples, size)) for size in BATCHES]
    parity = _parity(opened, whole, samples, expected)
    if not half:
        write_atomically(path, whole)
        return Exported(path=path, size=len(whole), dimension=expected[0].shape[1], parity=parity, half=False)
    halved = _written(opened, graph, half=True, metadata=metadata)
    cosines = _cosines(opened, halved, samples)
    write_atomically(path, halved)
    return Exported(
        path=path,
        size=len(halved),
        dimension=expected[0].shape[1],
        parity=parity,
        half=True,
        least_cosine=float(cosines.min()),
        mean_cosine=float(cosines.mean()),
        faces=0 if faces is None else len(faces),
    )


def export_with_contract(
    opened: OpenedRecognizer, path: Path, *, contract: Contract, half: bool = False, faces: Faces | None = None
) -> Exported:
    """As `export_onnx`, with the `contract` of the recogniser as it holds for the file: of the same space, so that
    templates stay comparable, and under the convention of the file. Written once it has been opened again.
    """
    _check(opened, path, faces)
    with TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        exported = export_onnx(opened, draft, half=half, faces=faces)
        again = open_recognizer(draft)
        assert again.content is not None
        convention = replace(again.convention, known=contract.convention.known)
        own = replace(contract, weights=again.content, convention=convention, output=None)
        data = with_contract(onnx.load(draft), own).SerializeToString(deterministic=True)
    write_atomically(path, data)
    return replace(exported, path=path, size=len(data))


def _exportable(opened: OpenedRecognizer) -> nn.Module:
    """The network from normalised pixels on."""
    network = opened.network
    if isinstance(network, BlackBox):
        raise Unsupported(
            f"{opened.name} is a function that embeds faces, not a network: there is nothing to write as ONNX; export "
            "the model that it calls"
        )
    if isinstance(network, Adapted) and isinstance(network.core, OnnxGraph | Runtime):
        raise Unsupported(f"{opened.path} is an ONNX file already; use it as it is")
    if isinstance(network, Adapted):
        return network.core  # its checks of what goes in and out would fix the number of images
    return under(network, opened.convention.changed(pixel_range="0..1", channel_order="rgb"))


def _check(opened: OpenedRecognizer, path: Path, faces: Faces | None) -> None:
    if path.suffix != ".onnx":
        raise InvalidInput(f"{path} does not end in .onnx, by which such files are known; call it {path.stem}.onnx")
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; name a file to write")
    height, width = opened.convention.size
    if faces is not None and (faces.dtype != np.uint8 or faces.shape[1:] != (height, width, 3)):
        raise InvalidInput(
            f"faces are {faces.dtype} of shape {faces.shape}; {opened.name} takes uint8 RGB (B, {height}, {width}, 3)"
        )


def _written(opened: OpenedRecognizer, graph: Any, *, half: bool, metadata: Mapping[str, str]) -> bytes:
    model = onnx_model(graph, opened.convention, name=opened.name, half=half, metadata=metadata)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _patches(opened: OpenedRecognizer) -> Faces:
    """Soft patches of random colours: networks tell them apart, whereas noise of single pixels looks all alike."""
    height, width = opened.convention.size
    patches = np.random.default_rng(0).integers(0, 256, (max(BATCHES), 8, 8, 3), dtype=np.uint8)
    return np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_CUBIC) for one in patches])


def _batch(samples: Faces, size: int) -> Faces:
    """`size` of the samples, from the first on and again where they are fewer."""
    return samples[np.arange(size) % len(samples)]


def _torch_embeddings(network: nn.Module, faces: Faces) -> Embeddings:
    with torch.inference_mode():
        images = torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous().float() / 255
        return _unit(network(images).numpy())


def _run(session: "onnxruntime.InferenceSession", faces: Faces) -> Embeddings:
    pixels = np.ascontiguousarray(faces.transpose(0, 3, 1, 2), dtype=np.float32)
    (found,) = session.run([OUTPUT], {INPUT: pixels})
    return _unit(found)


def _parity(opened: OpenedRecognizer, data: bytes, samples: Faces, expected: list[Embeddings]) -> float:
    session = open_session(data)
    apart = [np.abs(_run(session, _batch(samples, len(one))) - one).max() for one in expected]
    worst = float(np.max(apart))
    if not worst < PARITY:  # NaN is not parity
        raise Unsupported(
            f"{opened.name} differs by {worst:.2g} between torch and onnxruntime, which must be below {PARITY:g}; "
            "nothing was written"
        )
    return worst


def _cosines(opened: OpenedRecognizer, halved: bytes, samples: Faces) -> NDArray[np.float64]:
    """(n,) between the embeddings of each sample in float16 and in float32."""
    session, parts = open_session(halved), []
    for start in range(0, len(samples), max(BATCHES)):
        part = samples[start : start + max(BATCHES)]
        one, other = _run(session, part), _torch_embeddings(opened.network, part)
        parts.append((one * other).sum(1))
    cosines = np.concatenate(parts)
    if not cosines.min() >= LEAST_COSINE:
        raise Unsupported(
            f"{opened.name} loses too much in half precision: cosines down to {cosines.min():.3f} with what float32 "
            "gives; export it without half (nothing was written)"
        )
    return cosines


def _unit(raw: Any) -> Embeddings:
    # In float32 the squares of large numbers are infinite, and all would agree.
    long = np.asarray(raw, dtype=np.float64)
    unit: Embeddings = long / np.linalg.norm(long, axis=1, keepdims=True)
    return unit
