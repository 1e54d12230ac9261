"""What an architecture accepts, implies and writes down; what every backbone does with pixels."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from steadface.backbones import Architecture, Backbone
from steadface.errors import SteadfaceError

SMALL = [
    Architecture(image_size=(48, 32), embedding_size=8, width=0.125, blocks=(1, 1, 1, 1)),
    Architecture(name="iresnet18", image_size=(48, 32), embedding_size=8, width=0.0625, blocks=(1, 1, 1, 1)),
]
every_network = pytest.mark.parametrize("architecture", SMALL, ids=lambda a: a.name)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 48, 32, generator=seeded(1))


def test_defaults_depend_on_the_name_and_are_written_down() -> None:
    assert Architecture().model_dump(mode="json") == {
        "name": "mobilefacenet",
        "embedding_size": 512,
        "image_size": [112, 112],
        "width": 2.0,
        "blocks": [1, 4, 6, 2],
        "mean": 127.5,
        "std": 127.5,
        "corner": 0.0,
    }
    large = Architecture(name="iresnet100")
    assert (large.width, large.blocks) == (1.0, (3, 13, 30, 3))  # type: ignore[attr-defined]
    assert Architecture.model_validate({"name": "iresnet50", "blocks": None, "width": None}).blocks == (3, 4, 14, 3)  # type: ignore[attr-defined]
    assert Architecture.model_validate_json(large.model_dump_json()) == large


def test_a_single_number_is_a_square_image() -> None:
    assert Architecture.model_validate({"image_size": 64}).image_size == (64, 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "resnet50"},
        {"image_size": 8},
        {"embedding_size": 0},
        {"width": 0},
        {"std": 0},
        {"mean": float("nan")},
        {"blocks": (0, 4, 6, 2)},
        {"name": "iresnet18", "blocks": (2, 0, 2, 2)},
        {"depth": 3},
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong)) if len(wrong) == 1 else "blocks"):
        Architecture.model_validate(wrong)


@every_network
def test_weights_come_from_the_generator_alone(architecture: Architecture) -> None:
    before = torch.random.get_rng_state()
    first, again, other = (architecture.build(seeded(s)).state_dict() for s in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@every_network
def test_every_weight_is_initialised(architecture: Architecture) -> None:
    """Storage is allocated without being written, so whatever initialisation forgot would be arbitrary."""
    torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)  # fills fresh storage with NaN
    try:
        backbone = architecture.build(seeded())
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(value.isfinite().all() for value in backbone.state_dict().values())
    assert all(value == 0 for key, value in backbone.state_dict().items() if key.endswith("num_batches_tracked"))


@every_network
def test_embeddings_are_raw_and_differentiable_to_the_pixels(architecture: Architecture) -> None:
    backbone, x = architecture.build(seeded()), images(4).requires_grad_()
    z = backbone(x)
    (gradient,) = torch.autograd.grad((z * torch.randn(z.shape, generator=seeded(2))).sum(), x)
    assert z.shape == (4, 8)
    assert z.norm(dim=1).std() > 1e-3
    assert (gradient.abs().amax(dim=(1, 2, 3)) > 0).all()


@every_network
def test_pixels_are_normalised_inside(architecture: Architecture) -> None:
    """(x - mean) / std in units of 0..255; two descriptions of one affine map give one result."""
    backbone = architecture.build(seeded()).eval()
    x = images()
    torch.testing.assert_close(backbone(x), backbone.embed((x * 255 - 127.5) / 127.5))
    other = architecture.model_copy(update={"mean": 100.0, "std": 50.0})
    backbone.architecture = other
    torch.testing.assert_close(backbone(x), backbone.embed((x * 255 - 100) / 50))


@every_network
def test_images_of_another_size_are_refused(architecture: Architecture) -> None:
    backbone = architecture.build(seeded())
    with pytest.raises(SteadfaceError, match=r"\(2, 3, 112, 112\) do not fit .* \(B, 3, 48, 32\)"):
        backbone(torch.zeros(2, 3, 112, 112))
    with pytest.raises(SteadfaceError, match="do not fit"):
        backbone(torch.zeros(2, 1, 48, 32))


@every_network
@pytest.mark.parametrize("size", [(16, 16), (17, 33), (48, 48), (56, 56), (112, 96)])
def test_any_image_size_gives_an_embedding(architecture: Architecture, size: tuple[int, int]) -> None:
    other = architecture.model_copy(update={"image_size": size})
    assert other.build(seeded()).eval()(torch.rand(1, 3, *size, generator=seeded())).shape == (1, 8)


@every_network
def test_bf16_autocast_keeps_float32_embeddings_and_their_directions(architecture: Architecture) -> None:
    backbone: Backbone = architecture.build(seeded()).eval()
    plain = backbone(images())
    with torch.autocast("cpu", torch.bfloat16):
        z = backbone(images())
    assert z.dtype == torch.float32
    assert (torch.nn.functional.cosine_similarity(z, plain) > 0.99).all()


@every_network
def test_channels_last_changes_no_embedding(architecture: Architecture) -> None:
    backbone = architecture.build(seeded()).eval()
    plain = backbone(images())
    backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    torch.testing.assert_close(backbone(images().contiguous(memory_format=torch.channels_last)), plain)
