"""Networks that do not behave like recognisers are told from those that do, by a few images."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.backbones.soundness import check_steady, gradient_fault, is_constant, noise_for, weights_digest
from steadface.errors import InvalidInput

SIZE = 8


class Honest(nn.Module):
    """A fixed projection of the pixels, and what the planted ones below make of it."""

    image_size = (SIZE, SIZE)
    differentiable = True

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(24, 3 * SIZE * SIZE, generator=torch.Generator().manual_seed(0)) / 14
        self.weight = nn.Parameter(weight)
        self.norm = nn.BatchNorm1d(24)
        self.calls = 0
        self.eval()

    def plain(self, images: Tensor) -> Tensor:
        return (images.flatten(1) - 0.5) @ self.weight.T

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.planted(images)

    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images)


def on_grid(images: Tensor) -> Tensor:
    steps = images * 255
    return ((steps - steps.round()).abs() < 1e-3).flatten(1).all(1)


class Random(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return torch.randn(len(images), 24)


class Noisy(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images) + 0.1 * torch.randn(len(images), 24)


class Dropped(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return F.dropout(self.plain(images), 0.3, training=True)


class Resized(Honest):
    """Random resizing and padding, as a defence."""

    def planted(self, images: Tensor) -> Tensor:
        side = int(torch.randint(4, SIZE, ()))
        return self.plain(F.pad(F.interpolate(images, size=(side, side)), [0, SIZE - side, 0, SIZE - side]))


class Learning(Honest):
    def planted(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            self.weight.copy_(self.weight.roll(1, 0))
        return self.plain(images)


class Counting(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images).roll(self.calls, 1)


class Seeded(Honest):
    """Random, and the same for every batch of so many images."""

    def planted(self, images: Tensor) -> Tensor:
        return torch.randn(len(images), 24, generator=torch.Generator().manual_seed(0))


class Batched(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return F.batch_norm(self.plain(images), None, None, training=True)


class Placed(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images) + torch.arange(len(images))[:, None] * self.weight[:, 0]


class Hashed(Honest):
    """Every image an embedding of its own, the same each time, and no likeness between any two."""

    def planted(self, images: Tensor) -> Tensor:
        return torch.sin(1e4 * self.plain(images))


class NanBetween(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return torch.where(on_grid(images)[:, None], self.plain(images), torch.nan)


class ZerosBetween(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return torch.where(on_grid(images)[:, None], self.plain(images), 0.0)


class ConstantBetween(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return torch.where(on_grid(images)[:, None], self.plain(images), self.weight[:, 0])


class Infinite(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images) / 0.0


class RaisingBetween(Honest):
    def planted(self, images: Tensor) -> Tensor:
        if not on_grid(images).all():
            raise KeyError("no camera took this")
        return self.plain(images)


class OnlyTwo(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images.reshape(2, 3, SIZE, SIZE))


UNSTEADY = {
    RaisingBetween: "between the steps",
    OnlyTwo: "in any number",
    Random: "each time",
    Noisy: "each time",
    Dropped: "each time",
    Resized: "each time",
    Learning: "each time",
    Counting: "each time",
    Seeded: "elsewhere in a batch",
    Batched: "elsewhere in a batch",
    Placed: "elsewhere in a batch",
    Hashed: "another embedding altogether",
    NanBetween: "between the steps",
    ZerosBetween: "between the steps",
    ConstantBetween: "between the steps",
    Infinite: "NaN or infinity",
}


def test_an_honest_network_is_steady_and_its_embeddings_are_those_of_whole_steps() -> None:
    network = Honest()
    noise = noise_for(network)
    whole = (noise * 255).round() / 255
    torch.testing.assert_close(check_steady(network, noise, "m"), network(whole).double().detach())
    assert not is_constant(network)
    assert gradient_fault(network, noise) is None


@pytest.mark.parametrize("kind", UNSTEADY)
def test_one_that_is_not_is_refused_with_the_reason(kind: type[Honest]) -> None:
    torch.manual_seed(0)
    network = kind()
    with pytest.raises(InvalidInput, match=UNSTEADY[kind]):
        check_steady(network, noise_for(network), "m")


def test_rounding_of_half_precision_is_no_unsteadiness() -> None:
    class Half(Honest):
        def planted(self, images: Tensor) -> Tensor:
            return self.plain(images).half().float() * (1 + 1e-3 * (self.calls % 2))

    network = Half()
    check_steady(network, noise_for(network), "m")


class Zeros(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return 0 * self.plain(images)


class Ignoring(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.weight[:, 0].expand(len(images), -1) + 0 * self.plain(images)


@pytest.mark.parametrize("kind", [Zeros, Ignoring])
def test_one_that_does_not_look_is_constant(kind: type[Honest]) -> None:
    assert is_constant(kind())


class Detached(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images.detach())


class Numpy(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.plain(images).detach().numpy())


class Quantized(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain((images * 8).round() / 8)


class Exploding(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images) + (images.flatten(1)[:, :1] * 0).sqrt()


class Refusing(Honest):
    def planted(self, images: Tensor) -> Tensor:
        return Broken.apply(self.plain(images))


class Elsewhere(Honest):
    """Another network where a gradient is asked for."""

    def planted(self, images: Tensor) -> Tensor:
        return self.plain(images.flip(2) if torch.is_grad_enabled() else images)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.clone()

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # noqa: ARG004
        raise ValueError("not written")


FAULTY = {
    Detached: "no gradient reaches",
    Numpy: "no gradient reaches",
    Quantized: "is zero",
    Exploding: "NaN or infinite",
    Refusing: "not written",
    Elsewhere: "of another network",
}


@pytest.mark.parametrize("kind", FAULTY)
def test_gradients_that_cannot_be_followed_are_called_so(kind: type[Honest]) -> None:
    network = kind()
    fault = gradient_fault(network, noise_for(network))
    assert fault is not None
    assert FAULTY[kind] in fault
    check_steady(network, noise_for(network), "m")  # it is a recogniser all the same


def test_embeddings_of_another_length_each_time_are_refused() -> None:
    lengths = iter(range(8, 99))
    with pytest.raises(InvalidInput, match="as many numbers"):
        check_steady(lambda images: torch.ones(len(images), next(lengths)), torch.rand(2, 3, 4, 4), "it")


class Beside(nn.Module):
    """Keeps its weights beside the parameters, as quantised layers keep packed ones."""

    def __init__(self, kept: Any) -> None:
        super().__init__()
        self.kept = kept

    def get_extra_state(self) -> Any:
        return self.kept

    def set_extra_state(self, state: Any) -> None:
        self.kept = state


def test_what_lies_beside_the_parameters_counts_to_its_last_number() -> None:
    long = torch.zeros(5000)  # printed, the middle is left out
    other = long.index_fill(0, torch.tensor([2500]), 1.0)
    found = {weights_digest(Beside(({"packed": part}, 8))) for part in (long, long.clone(), other, other.to_sparse())}
    assert len(found) == 2


@pytest.mark.parametrize("device", ["meta", "lazy"])
def test_weights_without_values_are_refused(device: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be told from others"):
        weights_digest(nn.LazyLinear(3) if device == "lazy" else nn.Linear(2, 3, device=device))
