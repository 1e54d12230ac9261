"""Whether a network, of whatever origin, behaves like a recogniser: told by a few images, before any work.

    z(x) = z(x) again      the same when asked again, at another place of the batch and in other company
    z(x + d) near z(x)     for |d| below half a step of 8 bits: adversarial images lie between the steps
    z(x) != z(y)           of numbers that are finite and not all zero
    d<z, r>/dx             finite, not zero everywhere, and of the same z; r is a random direction

A network that is random, changes while it runs or depends on the batch has no error rate: nothing can be calibrated on
it, and attacks fail against it for reasons of their own. One whose gradients are zero or missing hides from attacks
that follow them (Athalye, Carlini and Wagner, ICML 2018), so that only attacks without gradients say anything.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.errors import InvalidInput, SteadfaceError, first_line

STEADY = 0.05
"""How far unit embeddings of one image may be from each other (a cosine of 0.9988): what half precision and other
kernels for other batches make of it stays below."""

ONE_EMBEDDING = 1e-6
"""Of an embedding's length: less than this, single precision's rounding, tells no two faces apart."""

ALTOGETHER = 0.3
"""A cosine that no image falls below by being moved as little as rounding moves it."""

DETACHED = "no gradient reaches the images"

Embed = Callable[[Tensor], Tensor]


def noise_for(network: nn.Module, count: int = 2) -> Tensor:
    """Images (count, 3, H, W) of noise, the same each time, of the network's size and on its device."""
    height, width = cast("tuple[int, int]", network.image_size)
    parameter = next(network.parameters(), None)
    noise = torch.rand((count, 3, height, width), generator=torch.Generator().manual_seed(0))
    return noise if parameter is None else noise.to(parameter.device)


def is_constant(network: nn.Module) -> bool:
    """Whether noise, black and white have one and the same embedding, or none but zeros."""
    noise = noise_for(network)
    return all_alike(_embedded(network, torch.cat([noise, torch.zeros_like(noise[:1]), torch.ones_like(noise[:1])])))


def all_alike(embeddings: Tensor) -> bool:
    """Whether embeddings (n, D) are one and the same, or zeros; NaN are like nothing."""
    length = embeddings.norm(dim=1).max()
    return bool((embeddings - embeddings[0]).norm(dim=1).max() <= ONE_EMBEDDING * length)


def check_steady(network: Embed, images: Tensor, name: str) -> Tensor:
    """Embeddings (n, D), in double precision, of images (n, 3, H, W) in [0, 1] as 8 bits keep them.

    Raises InvalidInput, which says why, for a network that has more than one embedding for an image, none of finite
    numbers, or another altogether for the same image moved by less than half a step of 8 bits.
    """
    whole = (images * 255).round() / 255
    generator = torch.Generator().manual_seed(1)
    moved = (whole[:1] + 0.8 * (torch.rand(whole[:1].shape, generator=generator).to(whole) - 0.5) / 255).clamp(0, 1)
    first = _embedded(network, whole, name)
    company = _embedded(network, torch.cat([torch.ones_like(moved), whole.flip(0), moved]), name)
    again, between = company[1 : len(whole) + 1].flip(0), company[-1]
    _check_shape(first, again, name)
    if not torch.isfinite(first).all():
        raise InvalidInput(_not_finite(name, between=False))
    if not torch.isfinite(between).all():
        raise InvalidInput(_not_finite(name, between=True))
    _check_same(network, whole, first, again, name)
    likeness = float(F.cosine_similarity(first[0], between, dim=0))
    if first[0].any() and likeness < ALTOGETHER:
        raise InvalidInput(
            f"{name} gives an image that was moved by less than half a step of 8 bits another embedding altogether "
            f"(cosine {likeness:.2f}): adversarial images lie between the steps, so that nothing it answers to them "
            "says how it would answer such faces; give the network without what looks for them, or one that is not "
            "a hash of its input"
        )
    return first


def _check_shape(first: Tensor, again: Tensor, name: str) -> None:
    if first.shape != again.shape:
        raise InvalidInput(
            f"{name} gives embeddings of shape {tuple(first.shape)} for some images, and of {tuple(again.shape)} when "
            "it is asked again: it must give each image as many numbers, whenever and among whichever others it is"
        )


def _check_same(network: Embed, images: Tensor, first: Tensor, again: Tensor, name: str) -> None:
    if apart(first, again) <= STEADY:
        return
    repeated = _embedded(network, images, name)
    _check_shape(first, repeated, name)
    if not apart(first, repeated) <= STEADY:
        likeness = float(F.cosine_similarity(first, repeated).min())
        raise InvalidInput(
            f"{name} gives another embedding each time that it is asked for the same image (cosine {likeness:.2f}): "
            "it is random or changes while it runs, so that none of its figures would mean anything; switch off "
            "what is drawn at random (dropout, noise) and what learns, and give it in evaluation mode"
        )
    likeness = float(F.cosine_similarity(first, again).min())
    raise InvalidInput(
        f"{name} gives an image another embedding where it stands elsewhere in a batch, or beside other images (cosine "
        f"{likeness:.2f}), as BatchNorm does in training mode: what it answers depends on who else is asked for; give "
        "it in evaluation mode, or wrapped so that each image is embedded by itself"
    )


def why_not_finite(network: Embed, images: Tensor, name: str) -> str:
    """What to say of a network that gave NaN or infinity for these images, which lie between the steps of 8 bits."""
    return _not_finite(name, between=bool(torch.isfinite(_embedded(network, (images * 255).round() / 255)).all()))


def _not_finite(name: str, *, between: bool) -> str:
    if between:
        return (
            f"{name} gives NaN or infinity for an image that lies between the steps of 8 bits, and numbers for one "
            "that does not: adversarial images lie between them, so that it would seem to resist; give the network "
            "without what looks for such images"
        )
    return (
        f"{name} gives NaN or infinity; its weights are damaged, or its pixel range is not the one that it was opened "
        "with"
    )


def gradient_fault(network: Embed, images: Tensor) -> str | None:
    """What is wrong with the gradient of unit embeddings with respect to images (n, 3, H, W), in words; None if it can
    be followed: it is there and finite, not zero for all of them, and of the embeddings that there are without it.
    """
    images = images.detach().clone().requires_grad_(True)
    try:
        with torch.enable_grad():
            embeddings = F.normalize(network(images).float())
            if not embeddings.requires_grad:
                return DETACHED
            along = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2)).to(embeddings)
            found: Tensor | None = torch.autograd.grad((embeddings * along).sum(), images, allow_unused=True)[0]
    except Exception as error:  # torch's, and whatever somebody's own backward pass raises
        return f"{DETACHED} ({first_line(error)})"
    if found is None:
        return DETACHED
    if not torch.isfinite(found).all():
        return "the gradient with respect to the images is NaN or infinite"
    if not found.any():
        return "the gradient with respect to the images is zero"
    if not apart(embeddings.detach().double().cpu(), _embedded(network, images.detach())) <= STEADY:
        return "where a gradient is asked for it gives other embeddings, so that the gradient is of another network"
    return None


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of several byte strings, hex; where one ends counts."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.hexdigest()


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of the names, types, shapes and values of all parameters and buffers of a state dict.

    Raises InvalidInput for a state that has no values which could be told: weights that were never made, say.
    """
    try:
        return digest(part for name, value in network.state_dict().items() for part in _parts(name, value))
    except Exception as error:  # whatever somebody's module raises, and torch for tensors without values
        raise InvalidInput(
            f"the weights of {type(network).__name__} cannot be told from others ({first_line(error)}), so that no "
            "figure could be bound to them; give it with all its weights as plain tensors"
        ) from error


def _parts(name: str, value: object) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        value = list(value.items())
    if isinstance(value, list | tuple):  # what layers keep beside: packed weights of quantised ones
        yield repr((name, type(value).__name__, len(value))).encode()
        for place, part in enumerate(value):
            yield from _parts(f"{name}.{place}", part)
        return
    if not isinstance(value, Tensor):
        yield repr((name, value)).encode()
        return
    yield repr((name, value.dtype, tuple(value.shape))).encode()
    value = value.detach().cpu()
    value = value.dequantize() if value.is_quantized else value.to_dense()
    yield value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _embedded(network: Embed, images: Tensor, name: str = "the network") -> Tensor:
    try:
        with torch.no_grad():
            return network(images).detach().double().cpu()  # in float32 the squares of large numbers are infinite
    except SteadfaceError:
        raise
    except Exception as error:  # whatever somebody's module raises
        raise InvalidInput(
            f"{name} fails on images {tuple(images.shape)}, some of which lie between the steps of 8 bits: "
            f"{type(error).__name__}: {first_line(error)}; it must take any images in any number, as attacks and "
            "evaluations give them"
        ) from error


def apart(one: Tensor, other: Tensor) -> float:
    """The largest distance of unit embeddings, NaN where there are none."""
    return float((F.normalize(one) - F.normalize(other)).norm(dim=1).max())
