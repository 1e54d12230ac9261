"""A torch network as an ONNX model, through torch.export.

The model takes raw RGB pixels in 0..255 and normalises them itself, in nodes called `Sub` and `Mul`: by these names
InsightFace tells such models from those that take (x - 127.5) / 127.5. torch's own exporters are not used: one is
deprecated, the other needs further packages, and recognisers are made of few operations.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn
from torch.export import Dim
from torch.utils._pytree import tree_leaves

from steadface.errors import Unsupported
from steadface.recognizers import Convention
from steadface.recognizers.onnx.translations import TRANSLATIONS, Batch, Graph, Untranslated, Value

OPSET, IR = 13, 7
"""As old as what is used allows, so that runtimes since 2020 read it."""

INPUT, OUTPUT = "input", "embedding"


def traced(network: nn.Module, size: tuple[int, int], name: str) -> fx.GraphModule:
    """The operations of `network` on any number of images (B, 3, *size), normalised already.

    Raises SteadfaceError, which calls the network `name`, where torch.export cannot follow it.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(
                network, (torch.zeros(2, 3, *size),), dynamic_shapes=({0: Dim("batch")},), strict=False
            )
        return program.module(check_guards=False)
    except Exception as error:  # torch.export's own, and whatever somebody's module raises
        first = (str(error).strip().splitlines() or ["no message"])[0]
        raise Unsupported(f"{name} cannot be traced ({type(error).__name__}: {first}); {ELSEWHERE}") from error


ELSEWHERE = "write it as ONNX with the means of the package that it comes from"


def onnx_model(
    network: fx.GraphModule, convention: Convention, *, name: str, half: bool, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """From raw RGB pixels (B, 3, H, W) in 0..255 through the normalisation and colour order of `convention` and the
    `traced` network to raw embeddings (B, D). Both ends are float32; with `half` weights and arithmetic between are
    float16.

    Raises SteadfaceError, which calls the network `name`, for an operation without a translation.
    """
    graph = Graph(half=half)
    pixels = _prepared(graph, convention)
    try:
        embeddings = _Writer(network, graph).run(pixels)
    except Untranslated as reason:
        raise Unsupported(f"{name}: {reason} is not translated to ONNX; {ELSEWHERE}") from reason
    if isinstance(embeddings, tuple | list) and embeddings:
        embeddings, *_ = embeddings
    if not isinstance(embeddings, Value) or len(embeddings.shape) < 2 or math.prod(embeddings.shape[2:]) != 1:
        raise Unsupported(f"{name} gives no embeddings (B, D) that depend on the images; {ELSEWHERE}")
    if len(embeddings.shape) > 2:
        embeddings = replace(graph.add("Flatten", [embeddings], axis=1), shape=embeddings.shape[:2])
    graph.nodes.append(helper.make_node("Cast", [embeddings.name], [OUTPUT], name="Cast_last", to=TensorProto.FLOAT))
    return _model(graph, convention.size, int(embeddings.shape[1]), metadata)


def _prepared(graph: Graph, convention: Convention) -> Value:
    """Normalised pixels in the order that the network takes."""
    mean, std = (torch.tensor(part, dtype=torch.float64).view(1, 3, 1, 1) for part in convention.normalisation)
    pixels = graph.add("Mul", [graph.add("Sub", [Value(INPUT), mean]), 1 / std])
    graph.exact.update(graph.constants)
    if convention.channel_order == "bgr":
        pixels = graph.add("Gather", [pixels, torch.tensor([2, 1, 0])], axis=1)
    return graph.add("Cast", [pixels], to=TensorProto.FLOAT16) if graph.half else pixels


def _model(graph: Graph, size: tuple[int, int], dimension: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
    described = helper.make_graph(
        graph.nodes,
        "recogniser",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["batch", 3, *size])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", dimension])],
        [numpy_helper.from_array(value, key) for key, value in graph.arrays().items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(described, opset_imports=[opset], ir_version=IR, producer_name="steadface")
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    return model


class _Writer(fx.Interpreter):
    """Runs a traced network with `Value`s in place of what depends on the images; all else is computed as it is."""

    def __init__(self, network: fx.GraphModule, graph: Graph) -> None:
        super().__init__(network, garbage_collect_values=False)
        self.extra_traceback = False  # it would be added to what the user reads
        self._written = graph

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function" and not n.users:
            return None  # an assertion about what was traced
        result = super().run_node(n)
        if isinstance(result, Value):
            result.uses = max(result.uses, len(n.users))
            result.shape = n.meta["val"].shape
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not any(isinstance(one, Value | Batch) for one in tree_leaves((args, kwargs))):
            return super().call_function(target, args, kwargs)
        if target is torch.ops.higher_order.wrap_with_autocast:
            # Of our own networks' last layers, which it keeps out of lower precision: there is none here.
            _device, _type, _enabled, _cache, body, *inputs = args
            return _Writer(body, self._written).run(*inputs)
        if target not in TRANSLATIONS:
            name = getattr(target, "__name__", str(target))
            raise Untranslated(f"the operation {name}")
        return TRANSLATIONS[target](self._written, *args, **kwargs)
