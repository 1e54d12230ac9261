"""Pixels that are in memory already, by one rule for numpy arrays and torch tensors.

    (H, W)       (1, H, W)  (H, W, 1)     grey
                 (3, H, W)  (H, W, 3)     RGB
                 (4, H, W)  (H, W, 4)     RGB with alpha

uint8 in 0..255, or floating point in [0, 1]. What could be read in two ways, (3, 50, 4) say, is refused, and so are
other types and ranges: nothing is guessed from the values.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from steadface.data.faces import UnreadableImage

Pixels = NDArray[np.uint8]
"""(H, W, C) with one, three or four channels."""

CHANNELS = (1, 3, 4)

ROUNDING = 1e-4
"""How far beyond [0, 1] arithmetic may have carried a value."""

FORMS = "uint8 or floats in [0, 1] of shape (H, W, 3), (3, H, W) or (H, W), RGB or grey"


def pixels_of(array: NDArray[Any] | Tensor, name: str) -> Pixels:
    """Channels last, 8 bits. Raises UnreadableImage for what is no picture by the rule above."""
    values = _as_numpy(array, name)
    if 0 in values.shape:
        raise UnreadableImage(f"{name} has no pixels (its shape is {values.shape}); give {FORMS}")
    return np.ascontiguousarray(_eight_bits(_channels_last(values, name), name))


def _as_numpy(array: NDArray[Any] | Tensor, name: str) -> NDArray[Any]:
    if isinstance(array, np.ndarray):
        return array
    if array.is_floating_point():
        array = array.float()  # numpy knows no bfloat16
    try:
        return array.detach().cpu().resolve_conj().resolve_neg().numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # sparse, quantised, or on the meta device
        reason = str(error).splitlines()[0]
        raise UnreadableImage(f"{name} is a tensor without plain numbers ({reason}); give {FORMS}") from None


def _channels_last(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.ndim == 2:
        return values[:, :, None]
    if values.ndim != 3:
        batch = ", a batch; take one picture at a time" if values.ndim == 4 else ""
        raise UnreadableImage(f"{name} has shape {values.shape}{batch}; give {FORMS}")
    first, last = (side if side in CHANNELS else 0 for side in (values.shape[0], values.shape[2]))
    if 1 in (first, last) and max(first, last) > 1:  # a row or column of pixels: colour says which the channels are
        first, last = first > 1, last > 1
    if bool(first) == bool(last):
        why = "could have its channels first or last" if first else "has neither 1, 3 nor 4 channels"
        raise UnreadableImage(f"{name} of shape {values.shape} {why}; give {FORMS}")
    return np.moveaxis(values, 0, 2) if first else values


def _eight_bits(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f":
        raise UnreadableImage(f"{name} holds {values.dtype}; give {FORMS}")
    least, most = float(values.min()), float(values.max())
    if not (least >= -ROUNDING and most <= 1 + ROUNDING):  # not the other way round: NaN is outside too
        raise UnreadableImage(f"{name} holds floats from {least:.4g} to {most:.4g}; give {FORMS}")
    eight: Pixels = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return eight
