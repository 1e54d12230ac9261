from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steadface.backbones import save_backbone
from steadface.errors import NotFound, SteadfaceError
from steadface.evaluation.embedding import FaceNetwork, MirrorEmbedder
from steadface.recognizers import Convention, check_exists, open_recognizer, parse_size
from steadface.recognizers.convention import Known
from steadface.training.networks import trained_form

from .recognisers import backbone

CODE = """
import numpy as np
import torch
from torch import nn

class Sum(nn.Module):
    def __init__(self, size=(112, 112)):
        super().__init__()
        self.size, self.weight = size, nn.Parameter(torch.arange(1.0, 4.0))

    def forward(self, pixels):
        if pixels.shape[2:] != self.size:
            raise ValueError(f"made for {self.size}")
        return pixels.mean((2, 3)) * self.weight

class Rounded(Sum):
    def forward(self, pixels):
        return super().forward(pixels.round()).detach()

class Dead(Sum):
    def forward(self, pixels):
        return super().forward(pixels) * 0 + 1

class Blind(Sum):
    def forward(self, pixels):
        return super().forward(pixels.clamp(0, 1)) if pixels.min() >= 0 else pixels.new_ones(len(pixels), 3)

class Maps(Sum):
    def forward(self, pixels):
        return pixels

module = Sum()
number = 7

def factory():
    return Sum()

def older():
    return Sum((112, 96))

def odd():
    return Sum((50, 50))

def rounded():
    return Rounded()

def dead():
    return Dead()

def blind():
    return Blind()

def maps():
    return Maps()

def service(faces):
    assert faces.dtype == np.uint8
    return faces.mean((1, 2))

def makes_service():
    return service

def listed(faces):
    return [[1.0, 2.0]] * len(faces)

def short(faces):
    return np.ones((1, 4))

def flat(faces):
    return np.ones(len(faces))

def nan(faces):
    return np.full((len(faces), 4), np.nan)

def ragged(faces):
    return [[1.0], [1.0, 2.0]]

def down(faces):
    raise ConnectionError("the service is down")

def two(faces, boxes):
    return faces

def broken():
    raise RuntimeError("no weights")

def nothing():
    return None
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(CODE)
    return path


def images(count: int = 3, size: tuple[int, int] = (112, 112)) -> torch.Tensor:
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(2))


def test_our_weights_keep_their_pixels_and_stated_ones_take_their_place(tmp_path) -> None:
    network, path = backbone(), tmp_path / "model.safetensors"
    save_backbone(path, network, {})
    opened, x = open_recognizer(tmp_path), images(size=(32, 32))
    assert torch.equal(opened.network(x), network(x))
    assert opened.convention == Convention(size=(32, 32))
    assert opened.convention.known.pixel_range == "file"
    swapped = open_recognizer(path, channel_order="bgr", pixel_range="(x-127.5)/128")
    expected = network.embed((x.flip(1) * 255 - 127.5) / 128)
    torch.testing.assert_close(swapped.network(x), expected, rtol=1e-4, atol=1e-5)
    assert len({opened.fingerprint, swapped.fingerprint}) == 2
    assert open_recognizer(path).fingerprint == opened.fingerprint


def test_weights_made_for_bgr_are_trained_as_the_same_network_for_rgb(tmp_path) -> None:
    network, path = backbone(), tmp_path / "bgr.safetensors"
    save_backbone(path, network, {})
    opened, x = open_recognizer(path, channel_order="bgr"), images(size=(32, 32))
    trained, before = trained_form(opened), opened.network(x)
    torch.testing.assert_close(trained(x), before, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        next(trained.parameters()).zero_()
    assert torch.equal(opened.network(x), before)  # the recogniser itself stays


@pytest.mark.parametrize("name", ["module", "factory", "Sum"])
def test_a_module_or_what_makes_one_takes_normalised_pixels(code, name) -> None:
    opened, x = open_recognizer(f"{code}:{name}", pixel_range="0..255", channel_order="bgr"), images()
    expected = 255 * x.flip(1).mean((2, 3)) * torch.arange(1.0, 4.0)
    torch.testing.assert_close(opened.network(x), expected, rtol=1e-5, atol=1e-3)
    assert opened.differentiable
    assert opened.embedding_size == 3
    assert not opened.network.training
    assert isinstance(opened.network, FaceNetwork)
    assert MirrorEmbedder(opened.network).size == (112, 112)


@pytest.mark.parametrize(
    ("pixel_range", "mean", "std"),
    [
        ("0..1", 0, 255),
        ("-1..1", 127.5, 127.5),
        ("0..255", 0, 1),
        ("(x-127.5)/128", 127.5, 128),
        ("(x-100)/50", 100, 50),
    ],
)
def test_ranges_are_of_pixels_in_0_to_255(code, pixel_range, mean, std) -> None:
    opened, x = open_recognizer(f"{code}:module", pixel_range=pixel_range), images()
    expected = ((255 * x - mean) / std).mean((2, 3)) * torch.arange(1.0, 4.0)
    torch.testing.assert_close(opened.network(x), expected, rtol=1e-4, atol=1e-4)


def test_a_module_of_another_common_size_is_opened_at_it(code) -> None:
    opened = open_recognizer(f"{code}:older")
    assert opened.convention.size == (112, 96)
    assert opened.convention.known.size == "probed"
    assert open_recognizer(f"{code}:odd", image_size=(50, 50)).convention.known.size == "stated"


def test_a_module_that_no_gradient_passes_has_none(code) -> None:
    opened = open_recognizer(f"{code}:rounded")
    assert not opened.differentiable
    assert any("no gradient reaches the images" in note for note in opened.notes)


def test_an_importable_module_needs_no_path(code, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(code.parent))
    assert open_recognizer("theirs:factory").name == "theirs:factory"


@pytest.mark.parametrize("name", ["service", "makes_service"])
def test_a_function_is_given_uint8_faces(code, name) -> None:
    opened, x = open_recognizer(f"{code}:{name}"), images()
    pixels = (x * 255).round()
    torch.testing.assert_close(opened.network(x), pixels.mean((2, 3)), rtol=1e-4, atol=1e-3)
    assert not opened.differentiable
    assert not opened.network(x.requires_grad_(True)).requires_grad
    swapped = open_recognizer(f"{code}:{name}", channel_order="bgr")
    torch.testing.assert_close(swapped.network(x), pixels.mean((2, 3)).flip(1), rtol=1e-4, atol=1e-3)
    assert any("unknown" in note for note in opened.notes)


def test_lists_of_numbers_are_embeddings_too(code) -> None:
    assert torch.equal(open_recognizer(f"{code}:listed").network(images()), torch.tensor([[1.0, 2.0]] * 3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", r"returned a ndarray of shape \(1, 4\).*must return an array \(2, D\)"),
        ("flat", r"shape \(2,\)"),
        ("ragged", "returned a list"),
        ("nan", "NaN or infinity"),
        ("down", "raised ConnectionError: the service is down"),
        ("two", "takes 2 arguments.*Wrap it"),
        ("broken", "raised RuntimeError: no weights"),
        ("nothing", "returned a NoneType; it must return"),
        ("number", "is of type int; it must be"),
        ("sevrice", "there is no sevrice in it; there are service"),
        ("dead", "same embedding for every image: its weights are all zero or damaged"),
        ("maps", r"returned a Tensor of shape \(2, 3, 112, 112\).*must return embeddings"),
        ("odd", r"ValueError: made for \(50, 50\); state the image_size"),
    ],
)
def test_what_names_no_recogniser_is_refused_with_a_remedy(code, name, message) -> None:
    with pytest.raises(SteadfaceError, match=message):
        open_recognizer(f"{code}:{name}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.safetensors", "does not exist; give a run folder"),
        ("nowhere.py:function", "does not exist; give the path of a Python file"),
        ("no_such_module:function", "there is no module no_such_module"),
        ("steadface:", "names no function"),
    ],
)
def test_what_is_not_there_is_said(spec, message) -> None:
    with pytest.raises(SteadfaceError, match=message):
        open_recognizer(spec)


def test_code_without_a_function_and_code_that_fails(tmp_path, code) -> None:
    with pytest.raises(SteadfaceError, match="name a function in it"):
        open_recognizer(code)
    failing = tmp_path / "failing.py"
    failing.write_text("1 / 0")
    with pytest.raises(SteadfaceError, match="raised ZeroDivisionError"):
        open_recognizer(f"{failing}:f")
    failing.write_text("import sys\nsys.exit(0)")
    with pytest.raises(SteadfaceError, match="raised SystemExit"):
        open_recognizer(f"{failing}:f")
    failing.write_text("import no_such_module")
    with pytest.raises(SteadfaceError, match="no_such_module"):
        open_recognizer(f"{failing}:f")


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"pixel_range": "0..2"}, "pixel_range '0..2' is not known; give one of"),
        ({"pixel_range": "(x-1)/0"}, "is not known"),
        ({"channel_order": "gbr"}, "give rgb or bgr"),
        ({"image_size": (0, 112)}, "height, width. in pixels"),
    ],
)
def test_statements_that_cannot_be_are_refused_before_anything_is_loaded(stated, message) -> None:
    with pytest.raises(SteadfaceError, match=message):
        open_recognizer("nowhere", **stated)


def test_a_function_takes_no_other_range(code) -> None:
    with pytest.raises(SteadfaceError, match=r"given uint8 faces in 0\.\.255"):
        open_recognizer(f"{code}:service", pixel_range="0..1")


def test_images_of_another_size_are_refused(code) -> None:
    for name in ("module", "service"):
        with pytest.raises(SteadfaceError, match="load the faces at 112 x 112"):
            open_recognizer(f"{code}:{name}").network(images(size=(96, 96)))


def test_fingerprints_follow_weights_source_and_convention(tmp_path, code) -> None:
    first = open_recognizer(f"{code}:module").fingerprint
    assert open_recognizer(f"{code}:module").fingerprint == first
    assert open_recognizer(f"{code}:module", pixel_range="0..1").fingerprint != first
    other = tmp_path / "other.py"
    other.write_text(CODE.replace("arange(1.0, 4.0)", "arange(2.0, 5.0)"))
    assert open_recognizer(f"{other}:module").fingerprint != first
    assert len(first) == 64


def test_what_is_written_down_names_all_but_the_network(code) -> None:
    described = open_recognizer(f"{code}:module", pixel_range="0..1").to_json()
    assert described["convention"] == {
        "size": "112x112",
        "range": "0..1",
        "order": "rgb",
        "known": {"size": "default", "range": "stated", "order": "default"},
    }
    assert described["embedding_size"] == 3
    assert described["image_size"] == [112, 112]


def test_weights_of_zeros_are_refused(tmp_path) -> None:
    network, path = backbone(), tmp_path / "zeros.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in network.state_dict().items()}, path)
    with pytest.raises(SteadfaceError, match=r"zeros.safetensors.* the same embedding"):
        open_recognizer(path, image_size=(32, 32))


def test_who_is_blind_in_an_assumed_range_is_not_damaged_but_in_a_stated_one_of_no_use(code) -> None:
    assert open_recognizer(f"{code}:blind").embedding_size == 3
    assert open_recognizer(f"{code}:blind", pixel_range="0..1").embedding_size == 3
    with pytest.raises(SteadfaceError, match="same embedding for every image"):
        open_recognizer(f"{code}:blind", pixel_range="-1..1")


def test_a_statement_that_the_file_makes_too_is_known_from_the_file(tmp_path) -> None:
    path = tmp_path / "model.safetensors"
    save_backbone(path, backbone(), {})
    known = open_recognizer(path, pixel_range="-1..1", channel_order="bgr").convention.known
    assert known == Known(size="file", pixel_range="file", channel_order="stated")


@pytest.mark.parametrize(("text", "size"), [("112x96", (112, 96)), ("160", (160, 160)), (" 112 X 112 ", (112, 112))])
def test_sizes_are_height_by_width(text, size) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0x112", "112x", "a", "112x112x3", "-1", "9" * 5000])
def test_other_sizes_are_refused(text) -> None:
    with pytest.raises(SteadfaceError, match=r"give e\.g\. 112x112"):
        parse_size(text)


def test_float64_answers_become_float32(tmp_path) -> None:
    path = tmp_path / "double.py"
    path.write_text("def embed(faces):\n    return faces.reshape(len(faces), -1)[:, :4].astype('float64')\n")
    embeddings = open_recognizer(f"{path}:embed").network(images())
    assert embeddings.dtype == torch.float32
    assert np.isfinite(embeddings.numpy()).all()


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\0b"])
def test_what_no_file_can_be_called_is_not_there(name: str) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        open_recognizer(name)
    with pytest.raises(NotFound, match="does not exist"):
        check_exists(name)
