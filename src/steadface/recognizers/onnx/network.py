"""An ONNX recogniser as a network: its graph converted to torch where that agrees with onnxruntime, else the latter.

|| converted(x) - runtime(x) || <= PARITY || runtime(x) ||      for each of 1 and of 4 images of noise
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from steadface.errors import SteadfaceError
from steadface.onnx_sessions import open_session
from steadface.recognizers.adapters import Adapted
from steadface.recognizers.base import noise_for
from steadface.recognizers.convention import Convention
from steadface.recognizers.onnx.layers import Operation, Unsupported
from steadface.recognizers.onnx.operations import OPERATIONS
from steadface.recognizers.onnx.quick import without_prelu
from steadface.recognizers.onnx.read import Node, OnnxFile
from steadface.recognizers.outputs import embedding_output

if TYPE_CHECKING:
    import onnxruntime

PARITY = 1e-4
"""How far, relative to its length, a converted embedding may be from onnxruntime's."""


def taking_embedding(file: OnnxFile, convention: Convention, wanted: str | None) -> OnnxFile:
    """The file with the output that is `wanted`, or else the only one that is an embedding when it is run on noise.

    Raises SteadfaceError where there is none, or several, and where onnxruntime cannot run the file.
    """
    if wanted is None and len(file.outputs) == 1:
        return file.taking(file.output)
    core = Runtime(file)
    pixels = torch.rand((2, 3, *convention.size), generator=torch.Generator().manual_seed(0))
    try:
        found = core.every(pixels)
    except Exception as error:  # onnxruntime's own: perhaps the graph takes one image at a time, and does not say so
        try:
            found = core.every(pixels[:1])
        except Exception:
            raise _unrunnable(str(file.path), 2, convention.size, error) from error
    count = len(found[0]) if found[0].ndim else 0
    shapes = {name: one.shape for name, one in zip(file.outputs, found, strict=True)}
    return file.taking(embedding_output(str(file.path), shapes, count, wanted))


def network_of(file: OnnxFile, convention: Convention) -> tuple[Adapted, tuple[str, ...]]:
    """The network of a file under a convention, and notes: why it has no gradients where it has none.

    Raises SteadfaceError where onnxruntime itself cannot run the file.
    """
    core = Runtime(file)
    runtime = Adapted(core, convention, name=str(file.path), differentiable=False).eval()
    expected = [_runtime_embeddings(runtime, core, count) for count in (1, 4)]
    try:
        converted = Adapted(OnnxGraph(file, core.batch), convention, name=str(file.path)).eval()
        with torch.no_grad():
            apart = max(_apart(converted(noise_for(converted, len(one))), one) for one in expected)
    except Unsupported as reason:
        return runtime, (_without_gradients(file, f"{reason} is not converted to torch"),)
    except (SteadfaceError, RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        return runtime, (_without_gradients(file, f"the graph converted to torch fails ({error})"),)
    if not apart <= PARITY:  # NaN is no parity
        why = f"the graph converted to torch differs from onnxruntime by {apart:.2g} of an embedding's length"
        return runtime, (_without_gradients(file, why),)
    return converted, ()


class Runtime(nn.Module):
    """Normalised pixels (B, 3, H, W) to embeddings (B, D) through onnxruntime; no gradients.

    A graph for a fixed `batch` is run as often as it takes.
    """

    def __init__(self, file: OnnxFile) -> None:
        super().__init__()
        self.session = _session(file)
        self.batch, self._file = file.batch, file

    def forward(self, pixels: Tensor) -> Tensor:
        given = self._given(pixels)
        size = self.batch or len(given)
        parts = [self._run(given[start : start + size], size) for start in range(0, len(given), size)]
        return torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(pixels.device)

    def every(self, pixels: Tensor) -> list[NDArray[Any]]:
        """All outputs of the file, for as many of the images as it takes at a time."""
        answers: list[NDArray[Any]] = self.session.run(
            list(self._file.outputs), {self._file.input: self._given(pixels)[: self.batch]}
        )
        return answers

    def _given(self, pixels: Tensor) -> NDArray[Any]:
        if self._file.channels_last:
            pixels = pixels.permute(0, 2, 3, 1)
        given = pixels.detach().cpu().numpy()
        return (given.round() if self._file.dtype == np.uint8 else given).astype(self._file.dtype)

    def _run(self, pixels: NDArray[Any], size: int) -> NDArray[Any]:
        filled = pixels if len(pixels) == size else np.concatenate([pixels, pixels[-1:].repeat(size - len(pixels), 0)])
        (answer,) = self.session.run([self._file.output], {self._file.input: filled})
        found: NDArray[Any] = answer[: len(pixels)]
        return found


def _session(file: OnnxFile) -> "onnxruntime.InferenceSession":
    """The file in onnxruntime, rewritten to run sooner where that can be; raises SteadfaceError."""
    if any(node.op == "PRelu" for node in file.nodes):
        # A graph above 2 GB cannot be handed over in memory, and one of an old opset may not take the rewriting.
        with suppress(Exception):
            return open_session(without_prelu(onnx.load(file.path)).SerializeToString())
    try:
        return open_session(file.path)
    except Exception as error:  # onnxruntime's own, which share no public base class
        raise SteadfaceError(f"onnxruntime cannot load {file.path}: {error}") from error


class OnnxGraph(nn.Module):
    """The graph of a file, node by node. Weights are parameters that take no gradients.

    `batch` is the one that the graph's shapes name, if any. Raises Unsupported for an operation that is not converted.
    """

    def __init__(self, file: OnnxFile, batch: int | None) -> None:
        super().__init__()
        self.nodes = [_plain(node, file.opset, batch) for node in file.nodes]
        unknown = sorted({node.op for node in self.nodes} - OPERATIONS.keys())
        if unknown:
            raise Unsupported(f"the operation {', '.join(unknown)}")
        self.weights, self._small = self._hold(file.constants)
        self._layers = nn.ModuleDict({str(place): part for place, part in self._rectifiers()})
        self._last = _last_uses(self.nodes, file.output)
        self._input, self._output, self._channels_last = file.input, file.output, file.channels_last
        self._rounds = file.dtype == np.uint8

    def forward(self, pixels: Tensor) -> Tensor:
        values: dict[str, Tensor] = {"": pixels}  # never read by that name
        if self._rounds:
            pixels = pixels + (pixels.round() - pixels).detach()  # as whole numbers, whose gradient passes by
        values[self._input] = pixels.permute(0, 2, 3, 1) if self._channels_last else pixels
        for place, node in enumerate(self.nodes):
            outputs = self._compute(place, node, [self._value(name, values) for name in node.inputs])
            values.update(zip(node.outputs, outputs, strict=False))
            for name in self._last[place]:  # or all maps would be held until the end
                values.pop(name, None)
        return values[self._output]

    def _compute(self, place: int, node: Node, inputs: Sequence[Tensor | None]) -> Sequence[Tensor]:
        if str(place) in self._layers:
            return [self._layers[str(place)](inputs[0])]
        operation: Operation = OPERATIONS[node.op]
        output = operation(inputs, node.attributes)
        return [output] if isinstance(output, Tensor) else output

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor | None:
        if not name:
            return None
        if name in values:
            return values[name]
        if name in self._small:
            return self._small[name]
        weight: Tensor = self.weights[self._places[name]]
        return weight

    def _hold(self, constants: Mapping[str, NDArray[Any]]) -> tuple[nn.ParameterList, dict[str, Tensor]]:
        """Floats as parameters, which move with the module; integers are shapes and indices, and stay on the CPU."""
        tensors = {
            name: torch.from_numpy(np.array(value)) for name, value in constants.items() if value.dtype != object
        }
        floats = [name for name, value in tensors.items() if value.is_floating_point()]
        self._places = {name: place for place, name in enumerate(floats)}
        held = nn.ParameterList([nn.Parameter(tensors[name], requires_grad=False) for name in floats])
        return held, {name: value for name, value in tensors.items() if name not in self._places}

    def _rectifiers(self) -> list[tuple[int, nn.PReLU]]:
        """PRelu nodes with a slope per channel, as torch's own module, which others know how to make fast."""
        found = []
        for place, node in enumerate(self.nodes):
            if node.op != "PRelu" or node.inputs[1] not in self._places:
                continue
            slope = self.weights[self._places[node.inputs[1]]]
            if slope.ndim == 3 and slope.shape[1:] == (1, 1):
                layer = nn.PReLU(slope.numel(), dtype=slope.dtype)
                layer.weight = nn.Parameter(slope.detach().reshape(-1), requires_grad=False)
                found.append((place, layer))
        return found


def _plain(node: Node, opset: int, batch: int | None) -> Node:
    """A node whose meaning depends on nothing but itself."""
    extra = {"outputs": len(node.outputs)} | ({} if batch is None else {"fixed batch": batch})
    op = "Softmax before 13" if node.op == "Softmax" and opset < 13 else node.op
    return Node(op=op, inputs=node.inputs, outputs=node.outputs, attributes={**node.attributes, **extra})


def _last_uses(nodes: Sequence[Node], output: str) -> list[list[str]]:
    """For each node the names that no later one reads."""
    last = {name: place for place, node in enumerate(nodes) for name in (*node.inputs, *node.outputs)}
    names: list[list[str]] = [[] for _ in nodes]
    for name, place in last.items():
        if name and name != output:
            names[place].append(name)
    return names


def _runtime_embeddings(network: Adapted, core: Runtime, count: int) -> Tensor:
    """Of so many images of noise; one image at a time where the graph allows no more, although it does not say so."""
    noise = noise_for(network, count)
    try:
        return network(noise)
    except Exception as error:  # onnxruntime's own, and embeddings that are fewer than the images
        if core.batch is None and count > 1:
            core.batch = 1
            return network(noise)
        if isinstance(error, SteadfaceError):
            raise
        raise _unrunnable(network.name, count, network.image_size, error) from error


def _unrunnable(name: str, count: int, size: tuple[int, int], error: Exception) -> SteadfaceError:
    height, width = size
    return SteadfaceError(
        f"onnxruntime cannot run {name} on {count} images of {height} x {width} ({error}); state the image_size that "
        "it takes"
    )


def _apart(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def _without_gradients(file: OnnxFile, why: str) -> str:
    return f"{file.path}: no gradients, since {why}; only attacks without gradients are run"
