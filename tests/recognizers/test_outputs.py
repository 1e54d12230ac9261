"""Of several outputs the embedding is taken, whatever its place."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from steadface.errors import SteadfaceError
from steadface.recognizers import open_recognizer
from steadface.recognizers.adapters import dimension, embedding_output

from .recognisers import written

RNG = np.random.default_rng(0)


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def with_outputs(path, sizes: dict[str, int | tuple[int, ...]], *, batch: int | str = "batch"):
    """A file whose outputs are products of the images with matrices, of those sizes and with no shapes declared."""
    nodes, constants, outputs = [helper.make_node("Flatten", ["images"], ["flat"])], [], []
    for name, size in sizes.items():
        shape = size if isinstance(size, tuple) else (size,)
        weight = RNG.normal(size=(768, int(np.prod(shape)))).astype(np.float32)
        constants += [
            numpy_helper.from_array(weight, f"{name}.w"),
            numpy_helper.from_array(np.array([0, *shape]), f"{name}.s"),
        ]
        nodes += [
            helper.make_node("MatMul", ["flat", f"{name}.w"], [f"{name}.m"]),
            helper.make_node("Reshape", [f"{name}.m", f"{name}.s"], [name]),
        ]
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, 16, 16])
    graph = helper.make_graph(nodes, "graph", [given], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("batch", ["batch", 1])
@pytest.mark.parametrize("shape", [64, (64, 1, 1), (1, 1, 64)])
def test_the_only_embedding_is_taken(tmp_path, shape, batch) -> None:
    path = with_outputs(tmp_path / "s.onnx", {"score": 1, "embedding": shape, "points": 10}, batch=batch)
    opened = open_recognizer(path)
    assert (opened.output, opened.embedding_size, opened.differentiable) == ("embedding", 64, True)
    weight = next(numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer if one.name == "embedding.w")
    pixels = (images() * 2 - 1).flatten(1)
    torch.testing.assert_close(opened.network(images()), pixels @ torch.from_numpy(weight.copy()), rtol=1e-4, atol=1e-4)


def test_what_another_output_is_made_of_takes_no_gradients_away(tmp_path) -> None:
    path = with_outputs(tmp_path / "s.onnx", {"embedding": 64, "kinds": 3})
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Hardmax", ["kinds"], ["kind"]))
    model.graph.output[1].name = "kind"
    onnx.save(model, path)
    assert open_recognizer(path).differentiable


def test_several_embeddings_are_listed_and_one_is_named(tmp_path) -> None:
    path = with_outputs(tmp_path / "s.onnx", {"score": 1, "raw": 64, "unit": 64})
    with pytest.raises(SteadfaceError, match=r"3 outputs.*score \(1\), raw \(64\), unit \(64\).*--output NAME"):
        open_recognizer(path)
    raw, unit = (open_recognizer(path, output=name) for name in ("raw", "unit"))
    assert (raw.output, unit.output) == ("raw", "unit")
    assert raw.fingerprint != unit.fingerprint
    with pytest.raises(SteadfaceError, match=r"no output 'norm'; its outputs are score \(1\), raw \(64\)"):
        open_recognizer(path, output="norm")


def test_one_number_is_no_embedding(tmp_path) -> None:
    for path, output in (
        (with_outputs(tmp_path / "s.onnx", {"score": 1, "raw": 64}), "score"),
        (with_outputs(tmp_path / "one.onnx", {"score": 1}), None),
    ):
        with pytest.raises(SteadfaceError, match="one number for an image, which is not an embedding"):
            open_recognizer(path, output=output)


def test_small_embeddings_count_where_there_are_no_larger_ones() -> None:
    assert embedding_output("m", {"score": (2, 1), "z": (2, 8)}, 2) == "z"
    assert embedding_output("m", {"points": (2, 10), "z": (2, 128)}, 2) == "z"
    with pytest.raises(SteadfaceError, match=r"none of them is an embedding.*maps \(4 x 7 x 7\), one \(no axis\)"):
        embedding_output("m", {"maps": (2, 4, 7, 7), "one": (2,)}, 2)
    with pytest.raises(SteadfaceError, match="2 of them may be"):
        embedding_output("m", {"points": (2, 10), "z": (2, 16)}, 2)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((2, 5), 5), ((2, 5, 1, 1), 5), ((2, 1, 1, 5), 5), ((2, 1), 1), ((2,), None), ((3, 5), None), ((2, 5, 2), None)],
)
def test_axes_of_length_one_do_not_count(shape, size) -> None:
    assert dimension(shape, 2) == size


CODE = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self, named):
        super().__init__()
        self.weight, self.named = nn.Parameter(torch.randn(3, 64, generator=torch.Generator().manual_seed(0))), named

    def forward(self, pixels):
        z = pixels.mean((2, 3)) @ self.weight
        norm = z.norm(dim=1, keepdim=True)
        return {"norm": norm, "feature": z} if self.named else (norm, z)

def placed():
    return Two(False)

def named():
    return Two(True)
"""


@pytest.mark.parametrize(("function", "output"), [("placed", "1"), ("named", "feature")])
def test_a_module_with_several_outputs_has_one_embedding_too(tmp_path, function, output) -> None:
    path = tmp_path / "two.py"
    path.write_text(CODE)
    opened = open_recognizer(f"{path}:{function}")
    assert (opened.output, opened.embedding_size) == (output, 64)
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert opened.network(faces).shape == (2, 64)
    with pytest.raises(SteadfaceError, match="no output 'other'"):
        open_recognizer(f"{path}:{function}", output="other")


def test_what_has_one_output_has_no_other(tmp_path) -> None:
    path = written(tmp_path / "o.onnx", [helper.make_node("Flatten", ["images"], ["embeddings"])])
    assert open_recognizer(path).output is None
    assert open_recognizer(path, output="embeddings").output is None
    with pytest.raises(SteadfaceError, match=r"no output 'z'; its outputs are embeddings \(768\)"):
        open_recognizer(path, output="z")


def test_a_file_of_zeros_is_refused(tmp_path) -> None:
    nodes = [helper.make_node("Flatten", ["images"], ["f"]), helper.make_node("Gemm", ["f", "w", "b"], ["embeddings"])]
    for bias in (0.0, 0.3):
        constants = {"w": np.zeros((768, 8), np.float32), "b": np.full(8, bias, np.float32)}
        with pytest.raises(SteadfaceError, match="same embedding for every image: its weights are all zero"):
            open_recognizer(written(tmp_path / "z.onnx", nodes, constants))
