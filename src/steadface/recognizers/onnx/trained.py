"""An ONNX file that is trained on, and written back as the same graph with other weights.

    || runtime(x) - network(x) || <= PARITY || network(x) ||      for images of noise and of soft patches

The graph is trained in the form in which it is written (`prepared`): with its BatchNormalizations folded node for node
and its corners rounded, both in the file itself. Metadata `NOTED` say what of the file is known besides: how its pixels
are taken, which output, and the scale of what
its activations are given.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.backbones.reading import METADATA_KEY
from steadface.backbones.soundness import noise_for
from steadface.errors import Unsupported
from steadface.files import write_atomically
from steadface.recognizers.adapters import Adapted
from steadface.recognizers.convention import Convention
from steadface.recognizers.foreign import Foreign
from steadface.recognizers.network import OpenedRecognizer
from steadface.recognizers.noted import Noted
from steadface.recognizers.onnx.learnable import folded, learnable, with_constants
from steadface.recognizers.onnx.read import NOTED, Node, OnnxFile, noted_in, read_onnx
from steadface.recognizers.onnx.rounding import cornered, rectifiers, rounded
from steadface.recognizers.onnx.runtime import PARITY, Runtime, apart
from steadface.recognizers.onnx.torch import OnnxGraph

BEND, HALVINGS = 0.35, 4
"""Clean training leads embeddings back from such a distance in some ten batches: MobileFaceNet's is 0.3 at first."""

logger = logging.getLogger(__name__)


class OnnxNetwork(Foreign):
    """The graph of `file` as a network whose weights take gradients; `noted` is what is written beside them."""

    ending = ".onnx"

    def __init__(self, file: OnnxFile, convention: Convention, *, size: int, batch: int | None, noted: Noted) -> None:
        super().__init__(OnnxGraph(file, batch, learnable(file)), convention, name=str(file.path), embedding_size=size)
        self.file, self.noted = file, noted
        self.eval()

    @property
    def graph(self) -> OnnxGraph:
        return cast(OnnxGraph, self.core)

    @classmethod
    def of(cls, opened: OpenedRecognizer) -> "OnnxNetwork":
        """That of an ONNX file that was opened, under the same convention.

        Raises Unsupported where the file has no float32 weights, or its graph no gradients.
        """
        assert isinstance(opened.network, Adapted)
        assert opened.path is not None
        assert opened.embedding_size is not None
        file = read_onnx(Path(opened.path))
        file = file.taking(opened.output or file.output)
        _check_weights(file, learnable(file))
        if not isinstance(opened.network.core, OnnxGraph):
            raise Unsupported(f"{'; '.join(opened.notes)}. Without gradients nothing of it can be trained")
        noted = noted_in(file) or Noted(convention=opened.convention)
        return cls(
            file,
            opened.convention,
            size=opened.embedding_size,
            batch=opened.network.core.batch,
            noted=noted.under(opened.convention, file.output),
        )

    @property
    def content(self) -> str:
        return self.file.content

    @property
    def has_corners(self) -> bool:
        return bool(rectifiers(self.file)[0])

    def measured(self, images: Tensor, corner: float | None) -> "OnnxNetwork":
        """With the deviations of what its rectifiers are given, on `images` (B, 3, H, W), among what is noted, halved
        until its embeddings of them bend by no more than `BEND` where corners are rounded by `corner` times these.
        """
        if not self.has_corners:
            logger.info("%s: no activation has a corner that can be rounded", self.name)
        scales = deviations(self, images)
        for halved in range(HALVINGS):
            bend = 0.0 if not corner else self._bend(images, {name: corner * one for name, one in scales.items()})
            if bend <= BEND:
                break
            logger.info("%s: corners of %.2g deviations bend embeddings by %.2f", self.name, corner / 2**halved, bend)
            scales = {name: one / 2 for name, one in scales.items()}
        return self._with(self.file, replace(self.noted, scales=scales))

    def _bend(self, images: Tensor, widths: Mapping[str, float]) -> float:
        """The mean of 1 - cosine between embeddings with corners rounded and without."""
        bent = self._with(rounded(self.file, widths), self.noted)
        with torch.no_grad():
            return float(1 - F.cosine_similarity(bent(images), self(images)).mean())

    def prepared(self, *, corner: float | None, folds: bool) -> "OnnxNetwork":
        """Both in the file. Raises SteadfaceError where onnxruntime does not compute the result as torch does."""
        file, made = self.file, self
        if folds:
            file, left = folded(file)
            if left:
                logger.info("%s: %d BatchNormalizations cannot be folded: their statistics stay", self.name, left)
        if corner:
            known = self.noted.scales or deviations(self, samples(self))
            file = _rounded(file, {name: corner * value for name, value in known.items()}, self.name)
        if file is not self.file:
            made = self._with(file, self.noted)
            check_parity(made, file)
        return made

    def _with(self, file: OnnxFile, noted: Noted) -> "OnnxNetwork":
        made = OnnxNetwork(file, self.convention, size=self.embedding_size, batch=self.graph.batch, noted=noted)
        made.name = self.name
        return made


def _check_weights(file: OnnxFile, weights: frozenset[str]) -> None:
    if weights:
        return
    kinds = sorted({str(value.dtype) for value in file.constants.values() if value.size > 1 and value.ndim > 1})
    why = f"its constants are {', '.join(kinds)}" if kinds else "it has no constants but single numbers"
    raise Unsupported(
        f"{file.path} has no float32 weights that lead to {file.output} ({why}), so that nothing of it can be trained: "
        "give the float32 file that it was made from"
    )


def deviations(network: OnnxNetwork, images: Tensor) -> dict[str, float]:
    """The standard deviation of what each rectifier is given, by the name of that value."""
    wanted = {node.outputs[0]: cornered(node, network.file.constants) for node in rectifiers(network.file)[0]}
    found: dict[str, float] = {}

    def watch(node: Node, inputs: Any) -> None:
        x = wanted.get(node.outputs[0])
        if x is not None:
            found[x] = float(inputs[node.inputs.index(x)].double().std())

    with torch.no_grad():
        network.graph.run(network.pixels(images), watch)
    return found


def _rounded(file: OnnxFile, widths: Mapping[str, float], name: str) -> OnnxFile:
    fit, left = rectifiers(file)
    if left:
        logger.info("%s: the corners of %d of %d activations are not rounded", name, len(left), len(left) + len(fit))
    return rounded(file, widths) if fit else file


def samples(network: nn.Module, count: int = 4) -> Tensor:
    """Images (2 * count, 3, H, W): noise, and soft patches of random colours, which networks tell apart better."""
    noise = noise_for(network, count)
    coarse = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(1)).to(noise)
    return torch.cat([noise, F.interpolate(coarse, noise.shape[2:], mode="bicubic").clamp(0, 1)])


def check_parity(network: OnnxNetwork, file: OnnxFile) -> None:
    """Raises Unsupported where onnxruntime gives other embeddings for the `file` than the network does."""
    with TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.onnx"
        draft.write_bytes(file.model.SerializeToString())
        core = Runtime(replace(file, path=draft))
        core.batch, core.output = network.graph.batch, file.output
        runtime = Adapted(core, network.convention, name=network.name, differentiable=False)
        images = samples(network)
        with torch.no_grad():
            distance = apart(network(images).cpu(), runtime(images.cpu()))
    if not distance <= PARITY:  # NaN is not parity
        raise Unsupported(
            f"{network.name}: onnxruntime gives embeddings for the trained graph that differ from torch's by "
            f"{distance:.2g} of their length, which must be below {PARITY:g}; nothing was written"
        )


def save_onnx(path: Path, network: OnnxNetwork, facts: Mapping[str, Any]) -> None:
    """Writes the graph with the weights as they are now, and `facts` (JSON values) among what is noted; atomically, and
    only if onnxruntime agrees.

    Inputs, outputs, nodes, opset and metadata are those of the file, but for a contract, which is of other weights.
    """
    file = with_constants(network.file, network.graph.constants())
    check_parity(network, file)
    kept = {one.key: one.value for one in file.model.metadata_props}
    noted = {**network.noted.to_json(), "facts": dict(facts)}
    onnx.helper.set_model_props(file.model, {**kept, METADATA_KEY: "null", NOTED: json.dumps(noted, sort_keys=True)})
    write_atomically(path, file.model.SerializeToString(deterministic=True))
