"""What is exported is what was opened: the same embeddings, by the rules of those who read such files."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from steadface.backbones import Architecture, Backbone, save_backbone
from steadface.backbones.base import PReLU
from steadface.backbones.soundness import noise_for, weights_digest
from steadface.errors import SteadfaceError
from steadface.recognizers import Convention, OpenedRecognizer, export, open_recognizer
from steadface.recognizers.adapters import Adapted, BlackBox
from steadface.recognizers.export import export_onnx
from steadface.recognizers.onnx import runtime, write
from steadface.recognizers.onnx.read import read_onnx

from ..few import SMALLEST

SHAPES: dict[str, dict[str, object]] = {
    SMALLEST.name: {"width": 0.5},
    "mobilefacenet": {"width": 0.125, "blocks": (1, 0, 0, 0)},
    "iresnet18": {"width": 0.125, "blocks": (1, 1, 1, 1)},
}


def backbone(name: str = SMALLEST.name, *, std: float = 128.0, size: tuple[int, int] = (32, 32)) -> Backbone:
    """A narrow network whose BatchNorms have seen images and have weights of their own, so that embeddings differ."""
    generator = torch.Generator().manual_seed(0)
    built = Architecture(name=name, image_size=size, embedding_size=8, std=std, **SHAPES[name]).build(generator)
    for part in built.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.momentum = 1.0
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(part.bias, -0.5, 0.5, generator=generator)
    with torch.no_grad():
        built(torch.rand(16, 3, *size, generator=generator) * torch.rand(16, 3, 1, 1, generator=generator))
    return built.eval()


def opened(tmp_path: Path, network: Backbone | None = None, **stated: object) -> OpenedRecognizer:
    save_backbone(tmp_path / "model.safetensors", backbone() if network is None else network, {})
    return open_recognizer(tmp_path / "model.safetensors", **stated)


def wrapped(core: nn.Module, size: tuple[int, int] = (16, 16), **convention: object) -> OpenedRecognizer:
    """What `module:function` opens."""
    taken = Convention(size=size, **convention)
    network = Adapted(core.eval(), taken, name="named").eval()
    return OpenedRecognizer(network=network, name="named", fingerprint="", convention=taken)


@pytest.fixture(scope="module")
def graphs() -> dict[tuple[object, ...], object]:
    """What became of following each network."""
    return {}


@pytest.fixture(autouse=True)
def _traced_once(monkeypatch: pytest.MonkeyPatch, graphs: dict[tuple[object, ...], object]) -> None:
    """Following a network takes most of an export; many tests export the same one."""

    def traced(network: nn.Module, *rest: object) -> object:
        if not isinstance(network, Backbone):
            return write.traced(network, *rest)
        key = (weights_digest(network), str(network.architecture), str(network), *rest)
        if key not in graphs:
            graphs[key] = write.traced(network, *rest)
        return graphs[key]

    monkeypatch.setattr(export, "traced", traced)


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenedRecognizer, Path]:
    """A recogniser and the file that it became."""
    folder = tmp_path_factory.mktemp("face")
    model = opened(folder, backbone("mobilefacenet"))
    export_onnx(model, folder / "face.onnx", metadata={"steadface": '{"fmr": 0.001}'})
    return model, folder / "face.onnx"


def faces(count: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def unit(raw: np.ndarray) -> np.ndarray:
    return raw / np.linalg.norm(raw, axis=1, keepdims=True)


def run(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: pixels})[0]


def torch_embeddings(network: nn.Module, shown: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255).numpy()


@pytest.mark.parametrize(
    ("name", "size", "order"), [("mobilefacenet", (32, 32), "rgb"), ("iresnet18", (32, 16), "bgr")]
)
def test_the_file_has_the_embeddings_of_the_network_at_any_batch(tmp_path, name, size, order) -> None:
    model = opened(tmp_path, backbone(name, size=size), channel_order=order)
    exported = export_onnx(model, tmp_path / "face.onnx")
    assert 0 < exported.parity < 1e-4
    assert (exported.dimension, exported.half, exported.least_cosine) == (8, False, None)
    assert exported.size == (tmp_path / "face.onnx").stat().st_size
    for count in (1, 2, 7, 64):
        shown = faces(count, size)
        raw = run(tmp_path / "face.onnx", shown.transpose(0, 3, 1, 2).astype(np.float32))
        np.testing.assert_allclose(raw, torch_embeddings(model.network, shown), rtol=1e-3, atol=1e-4)


def test_rounded_corners_travel_with_it(tmp_path) -> None:
    rounded = backbone()
    rounded.round_corners(0.5)
    model = opened(tmp_path, rounded)
    assert 0 < export_onnx(model, tmp_path / "face.onnx").parity < 1e-4
    again = open_recognizer(tmp_path / "face.onnx").network
    for network in (rounded, again):  # each a rectifier still, which is fast, and whose slope can be learnt
        layers = [part for part in network.modules() if isinstance(part, PReLU)]
        assert len(layers) == 2
        assert all(layer.corner == 0.5 for layer in layers)
    served = open_recognizer(tmp_path / "face.onnx", gradients=False).network
    torch.testing.assert_close(served(noise_for(rounded)), rounded(noise_for(rounded)), rtol=1e-4, atol=1e-5)


def test_in_onnxruntime_a_rounded_corner_takes_six_operations(tmp_path, monkeypatch) -> None:
    rounded, given = backbone(), []
    rounded.round_corners(0.5)
    export_onnx(opened(tmp_path, rounded), tmp_path / "face.onnx")
    monkeypatch.setattr(runtime, "open_session", lambda model: given.append(model))
    runtime._session(read_onnx(tmp_path / "face.onnx"))
    operations = Counter(node.op_type for node in onnx.load_from_string(given[0]).graph.node)
    assert operations["Sqrt"] == 2
    assert operations["BatchNormalization"] == 4
    assert operations["Mul"] == 2 + 1, "and that of the pixels"


def test_insightface_feeds_it_what_it_was_made_for(face) -> None:
    """Its rule: with nodes called Sub and Mul among the first eight it feeds pixels in 0..255, else -1..1."""
    model, path = face
    first = [node.name for node in onnx.load(path).graph.node[:8]]
    assert any(name.startswith("Sub") for name in first)
    assert any(name.startswith("Mul") for name in first)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (images,), (embedding,) = session.get_inputs(), session.get_outputs()
    assert images.shape[1:] == [3, 32, 32]
    assert isinstance(images.shape[0], str)
    assert (images.type, embedding.type, embedding.shape[1]) == ("tensor(float)", "tensor(float)", 8)
    embedded = unit(session.run(None, {images.name: faces(3).transpose(0, 3, 1, 2).astype(np.float32)})[0])
    np.testing.assert_allclose(embedded, unit(torch_embeddings(model.network, faces(3))), atol=1e-4)
    assert (embedded @ embedded.T).min() < 0.9, "or the comparison would say little"


def test_no_batch_norm_is_left_behind_a_convolution(face, tmp_path) -> None:
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(face[1]).graph.node}
    # In front of a padded convolution it cannot be folded: the padding is zero after it, not before.
    deep = opened(tmp_path, backbone("iresnet18", size=(32, 16)), channel_order="bgr")
    export_onnx(deep, tmp_path / "deep.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "deep.onnx").graph.node]
    assert kinds.count("BatchNormalization") == 4 + 1


def test_opened_again_it_is_the_same_recogniser_with_gradients(face) -> None:
    model, path = face
    again = open_recognizer(path)
    assert again.differentiable
    assert not again.notes
    assert again.convention == Convention(size=(32, 32), pixel_range="0..255")
    gradients = []
    for network in (model.network, again.network):
        images = (torch.from_numpy(faces(2)).permute(0, 3, 1, 2).float() / 255).requires_grad_(True)
        embeddings = network(images)
        torch.testing.assert_close(embeddings, model.network(images.detach()), rtol=1e-3, atol=1e-4)
        gradients.append(torch.autograd.grad(embeddings[:, 0].sum(), images)[0])
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("std", [255.0, 1.0])
def test_whatever_the_model_normalises_the_file_takes_0_to_255(tmp_path, std) -> None:
    export_onnx(opened(tmp_path, backbone(std=std)), tmp_path / "face.onnx")
    assert open_recognizer(tmp_path / "face.onnx").convention.pixel_range == "0..255"


def test_metadata_travel_with_it_and_files_are_the_same_each_time(face, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(export, "traced", write.traced)
    model, path = face
    properties = onnx.load(path).metadata_props
    assert {one.key: one.value for one in properties} == {"steadface": '{"fmr": 0.001}'}
    export_onnx(model, tmp_path / "again.onnx", metadata={"steadface": '{"fmr": 0.001}'})
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


def test_half_precision_is_half_the_size_and_says_what_it_costs(tmp_path) -> None:
    model = opened(tmp_path)
    whole = export_onnx(model, tmp_path / "whole.onnx")
    half = export_onnx(model, tmp_path / "half.onnx", half=True, faces=faces(70))
    assert half.size < 0.7 * whole.size
    assert half.faces == 70
    assert 0.999 < half.least_cosine <= half.mean_cosine < 1
    shown = faces(70)
    embedded = unit(run(tmp_path / "half.onnx", shown.transpose(0, 3, 1, 2).astype(np.float32)).astype(np.float64))
    cosines = (embedded * unit(torch_embeddings(model.network, shown).astype(np.float64))).sum(1)
    assert half.least_cosine == pytest.approx(cosines.min(), abs=1e-6)
    assert half.mean_cosine == pytest.approx(cosines.mean(), abs=1e-6)
    weights = {one.name: one.data_type for one in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert sum(kind == onnx.TensorProto.FLOAT for kind in weights.values()) == 2, "mean and std alone stay float32"


def test_half_precision_that_leaves_its_range_is_refused(tmp_path) -> None:
    network = backbone()
    with torch.no_grad():
        network.layers[0].layers[1].weight.mul_(1e5)
        network.layers[0].layers[1].bias.mul_(1e5)
    model = opened(tmp_path, network)
    with pytest.raises(SteadfaceError, match=r"half"):
        export_onnx(model, tmp_path / "half.onnx", half=True)
    assert not (tmp_path / "half.onnx").exists()
    export_onnx(model, tmp_path / "whole.onnx")


def test_a_file_that_fails_parity_is_never_written(tmp_path, monkeypatch) -> None:
    written = export._written
    monkeypatch.setattr(export, "_written", lambda one, graph, **rest: written(damaged(one), graph, **rest))
    (tmp_path / "face.onnx").write_bytes(b"before")
    with pytest.raises(SteadfaceError, match=r"differs by .* nothing was written"):
        export_onnx(opened(tmp_path), tmp_path / "face.onnx")
    assert (tmp_path / "face.onnx").read_bytes() == b"before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["face.onnx", "model.safetensors"]


def test_embeddings_too_long_to_square_in_float32_are_compared_as_well(tmp_path, monkeypatch) -> None:
    network = backbone()
    with torch.no_grad():
        network.features.layers[3].weight.mul_(1e25)
        network.features.layers[3].bias.mul_(1e25)
    model, written = opened(tmp_path, network), export._written
    assert 0 < export_onnx(model, tmp_path / "face.onnx").parity < 1e-4
    monkeypatch.setattr(export, "_written", lambda one, graph, **rest: written(damaged(one), graph, **rest))
    with pytest.raises(SteadfaceError, match="differs by"):
        export_onnx(model, tmp_path / "face.onnx")


def damaged(one: OpenedRecognizer) -> OpenedRecognizer:
    """As if its pixels were a little brighter."""
    convention = one.convention.changed(pixel_range="(x-125)/128")
    return OpenedRecognizer(network=one.network, name=one.name, fingerprint="", convention=convention)


class Unlike(nn.Module):
    """Somebody's network, made of what ours lack, with two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3, bias=False)
        self.drop, self.last = nn.Dropout(0.5), nn.Linear(6 * 16, 5)
        for value in self.parameters():
            nn.init.normal_(value, 0, 0.4, generator=torch.Generator().manual_seed(value.numel()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.max_pool2d(torch.relu_(self.norm(self.first(x))), 2)
        x = nn.functional.silu(self.second(x)) * 0.5 - nn.functional.leaky_relu(x - 1.0, 0.3).flip(1) / 3.0
        return self.last(self.drop(x.reshape(x.size(0), -1))), x.mean((2, 3))


class Shared(nn.Module):
    """A convolution that is read before its BatchNorm too, which therefore must not change it; maps of 1 x 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.normal_(self.conv.weight, 0, 0.3, generator=torch.Generator().manual_seed(0))
        nn.init.constant_(self.norm.weight, 3.0)

    def forward(self, x: Tensor) -> Tensor:
        read = self.conv(x)
        return nn.functional.adaptive_avg_pool2d(torch.sigmoid(self.norm(read)) + read.flip(1), 1)


class Arranged(nn.Module):
    """What moves numbers about: as converters of other frameworks write it."""

    def forward(self, x: Tensor) -> Tensor:
        low, high = x.new_tensor(-0.5), x.new_tensor(0.5)
        padded = nn.functional.pad(x, (1, 2, 3, 0), value=0.25)[:, :, 1:-1, ::2]
        clipped = torch.maximum(torch.minimum(padded, high), low).permute(0, 2, 3, -3)
        flat = clipped.reshape(-1, clipped.shape[1] * clipped.shape[2] * 3)
        return torch.cat([flat / torch.linalg.vector_norm(flat, dim=1, keepdim=True), x.mean((2, 3))], 1)


@pytest.mark.parametrize("core", [Unlike(), Shared(), Arranged()])
@pytest.mark.parametrize(("pixels", "order"), [("imagenet", "rgb"), ("0..1", "bgr")])
def test_networks_of_other_people_are_exported_too(tmp_path, core, pixels, order) -> None:
    model = wrapped(core, pixel_range=pixels, channel_order=order)
    export_onnx(model, tmp_path / "face.onnx")
    shown = faces(3, (16, 16))
    raw = run(tmp_path / "face.onnx", shown.transpose(0, 3, 1, 2).astype(np.float32))
    np.testing.assert_allclose(raw, torch_embeddings(model.network, shown), rtol=1e-3, atol=1e-5)


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x.flatten(1)).values


class Counting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if len(x) == 2 else x.flatten(1) + 1


def test_what_cannot_be_exported_says_why_and_what_to_do(tmp_path) -> None:
    service = BlackBox(lambda shown: shown.reshape(len(shown), -1), Convention(pixel_range="0..255"), name="service")
    asked = OpenedRecognizer(network=service, name="service", fingerprint="", convention=service.convention)
    with pytest.raises(SteadfaceError, match="a function that embeds faces"):
        export_onnx(asked, tmp_path / "face.onnx")
    with pytest.raises(SteadfaceError, match=r"the operation sort.* write it as ONNX"):
        export_onnx(wrapped(Sorted()), tmp_path / "face.onnx")
    with pytest.raises(SteadfaceError, match="cannot be traced"):
        export_onnx(wrapped(Counting()), tmp_path / "face.onnx")
    model = opened(tmp_path)
    with pytest.raises(SteadfaceError, match=r"call it face\.onnx"):
        export_onnx(model, tmp_path / "face.pt")
    with pytest.raises(SteadfaceError, match=r"uint8 RGB \(B, 32, 32, 3\)"):
        export_onnx(model, tmp_path / "face.onnx", faces=faces(2, (16, 16)))
    assert not list(tmp_path.glob("*.onnx"))
    export_onnx(model, tmp_path / "face.onnx")
    with pytest.raises(SteadfaceError, match="an ONNX file already"):
        export_onnx(open_recognizer(tmp_path / "face.onnx"), tmp_path / "other.onnx")
