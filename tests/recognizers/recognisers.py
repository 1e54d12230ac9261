"""Small recognisers of several origins that the tests of opened models share."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from steadface.backbones import Architecture, Backbone

HEIGHT, WIDTH = 16, 16


class Reader(nn.Module):
    """Embeds what the first channel shows at 16 x 16, if its pixels lie in -1..1; it is blind beyond."""

    def __init__(self, dimensions: int = 96) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        weight = torch.randn(dimensions, HEIGHT * WIDTH, generator=generator) / (HEIGHT * WIDTH) ** 0.5
        self.weight = nn.Parameter(weight)

    def forward(self, pixels: Tensor) -> Tensor:
        seen = pixels[:, 0].flatten(1)
        return (seen * torch.exp(-(seen**4))) @ self.weight.T


def faces_in_red(people: int = 8, each: int = 3, seed: int = 0) -> tuple[Tensor, NDArray[np.int64]]:
    """Images (n, 3, 16, 16) and people (n,): who it is shows in red alone, green and blue are noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), each)
    pixels = rng.uniform(0, 1, (len(labels), 3, HEIGHT, WIDTH))
    base = rng.uniform(0.2, 0.8, (people, HEIGHT, WIDTH))
    pixels[:, 0] = base[labels] + rng.normal(0, 0.15, (len(labels), HEIGHT, WIDTH))
    return torch.from_numpy(pixels.clip(0, 1).astype(np.float32)), labels


def backbone(seed: int = 0) -> Backbone:
    """A MobileFaceNet of a few channels whose BatchNorms hold statistics of their own."""
    built = Architecture(image_size=(32, 32), embedding_size=8, width=0.125, blocks=(1, 0, 0, 0)).build(
        torch.Generator().manual_seed(seed)
    )
    generator = torch.Generator().manual_seed(seed + 1)
    for part in built.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.copy_(0.1 * torch.randn(part.num_features, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(part.num_features, generator=generator))
    return built.eval()


class Embedding(nn.Module):
    """A backbone from normalised pixels on, as people export it."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.embed(pixels)


def exported(path: Path, network: nn.Module, size: tuple[int, int] = (32, 32), *, dynamic: bool = True) -> Path:
    """`network` as an ONNX file, for any batch or for batches of one."""
    axes = {"images": {0: "batch"}, "embeddings": {0: "batch"}} if dynamic else None
    names = {"input_names": ["images"], "output_names": ["embeddings"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the older one, and says so
        torch.onnx.export(network.eval(), torch.zeros(1, 3, *size), path, dynamic_axes=axes, dynamo=False, **names)
    return path


def written(
    path: Path,
    nodes: list[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]] | None = None,
    *,
    shape: tuple[int | str, ...] = ("batch", 3, 16, 16),
    opset: int = 17,
) -> Path:
    """A graph from `images` of that shape to `embeddings` as an ONNX file."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path
