import pytest
import torch
from torch import nn

from steadface.errors import SteadfaceError
from steadface.recognizers import Convention, OpenedRecognizer, fitted, surrogate_embed
from steadface.recognizers.adapters import Adapted
from steadface.recognizers.network import resized


class Plain(nn.Module):
    """All pixels in a row, so that what it was given can be read off its embedding."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1)


def network(size: tuple[int, int], differentiable: bool = True) -> Adapted:
    return Adapted(Plain(), Convention(size=size, pixel_range="0..1"), name="plain", differentiable=differentiable)


def images(height: int = 112, width: int = 112) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_the_older_crop_is_cut_out_and_not_squeezed() -> None:
    x = images()
    assert torch.equal(resized(x, (112, 96)), x[..., 8:104])


def test_a_network_of_the_same_size_is_itself() -> None:
    own = network((112, 112))
    assert fitted(own, (112, 112)) is own


@pytest.mark.parametrize("size", [(112, 96), (160, 160), (96, 96), (128, 112)])
def test_the_victims_images_reach_a_network_of_another_size_differentiably(size: tuple[int, int]) -> None:
    wrapped, x = fitted(network(size), (112, 112)), images().requires_grad_(True)
    assert wrapped.image_size == (112, 112)
    assert wrapped.differentiable
    embeddings = wrapped(x)
    assert embeddings.shape == (2, 3 * size[0] * size[1])
    (gradient,) = torch.autograd.grad(embeddings.square().sum(), x)
    # Only the columns outside the older crop have no say.
    silent = (gradient == 0).all(dim=0).all(dim=0).all(dim=0)
    assert int(silent.sum()) == (16 if size == (112, 96) else 0)


@pytest.mark.parametrize("size", [(160, 160), (64, 96)])
def test_resizing_keeps_what_is_the_same_everywhere_and_the_range(size: tuple[int, int]) -> None:
    even = torch.full((1, 3, 112, 112), 0.3)
    torch.testing.assert_close(resized(even, size), torch.full((1, 3, *size), 0.3))
    x = resized(images(), size)
    assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_a_surrogate_needs_gradients() -> None:
    def opened(differentiable: bool) -> OpenedRecognizer:
        made = network((112, 96), differentiable)
        return OpenedRecognizer(network=made, name="other", fingerprint="0", convention=made.convention)

    assert surrogate_embed(opened(True), (112, 112))(images()).shape == (2, 3 * 112 * 96)
    with pytest.raises(SteadfaceError, match=r"other has no gradients.*name a surrogate that has"):
        surrogate_embed(opened(False), (112, 112))
