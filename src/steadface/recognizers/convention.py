"""What a recogniser expects of its pixels, and how that came to be known.

input = (255 x - mean) / std     x in [0, 1], per channel, after the colours have been put in order
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, get_args

from steadface.errors import InvalidInput, quoted, short

PixelRange = Literal["0..1", "-1..1", "0..255", "(x-127.5)/128", "imagenet"]
ChannelOrder = Literal["rgb", "bgr"]
Aspect = Literal["size", "pixel range", "colour order"]
Origin = Literal["stated", "file", "default", "probed"]
Triple = tuple[float, float, float]

SIZE = (112, 112)
"""(height, width) where nothing says otherwise: that of aligned faces."""

NORMALISATIONS: Mapping[str, tuple[Triple, Triple]] = MappingProxyType(
    {
        "0..1": ((0.0,) * 3, (255.0,) * 3),
        "-1..1": ((127.5,) * 3, (127.5,) * 3),
        "0..255": ((0.0,) * 3, (1.0,) * 3),
        "(x-127.5)/128": ((127.5,) * 3, (128.0,) * 3),
        # Mean and standard deviation of ImageNet's pixels in red, green, blue (torchvision's), times 255.
        "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    }
)
LARGEST_SIZE = 4096
"""Pixels of a side; what is made for a size takes its square in memory."""

LARGEST_MEAN, STDS = 255.0, (0.25, 1024.0)
"""Of pixels in 0..255; beyond them the network sees one grey, or black and white alone, and everybody looks alike."""

_FORMULA = re.compile(r"\(x-(-?[\d.e+-]+)\)/([\d.e+-]+)")


@dataclass(frozen=True, kw_only=True)
class Known:
    """How each part of a convention is known: stated by the user, read in the file, taken by default, or probed."""

    size: Origin = "stated"
    pixel_range: Origin = "stated"
    channel_order: Origin = "stated"


@dataclass(frozen=True, kw_only=True)
class Convention:
    """The pixels that a network takes: `size` (height, width), `pixel_range` (a `PixelRange`, or a formula such as
    "(x-127.5)/128" of pixels in 0..255), `channel_order`.

    Raises SteadfaceError for a range or an order that is none.
    """

    size: tuple[int, int] = SIZE
    pixel_range: str = "-1..1"
    channel_order: ChannelOrder = "rgb"
    known: Known = field(default=Known(), compare=False)

    def __post_init__(self) -> None:
        if self.channel_order not in get_args(ChannelOrder):
            raise InvalidInput(f"channel_order {self.channel_order!r} is not known; give rgb or bgr")
        if not 1 <= min(self.size) <= max(self.size) <= LARGEST_SIZE:
            raise InvalidInput(
                f"image_size {short(self.size)} is not (height, width) in pixels, of 1 to {LARGEST_SIZE}; give e.g. "
                "(112, 112)"
            )
        _ = self.normalisation

    @property
    def normalisation(self) -> tuple[Triple, Triple]:
        """(mean, std) of red, green and blue pixels in 0..255."""
        if self.pixel_range in NORMALISATIONS:
            return NORMALISATIONS[self.pixel_range]
        match = _FORMULA.fullmatch(self.pixel_range.replace(" ", ""))
        try:
            mean, std = (float(part) for part in match.groups()) if match else (0.0, 0.0)
        except ValueError:
            mean, std = 0.0, 0.0
        if not STDS[0] <= std <= STDS[1] or not abs(mean) <= LARGEST_MEAN:
            raise InvalidInput(
                f"pixel_range {quoted(self.pixel_range)} is not known; give one of {', '.join(NORMALISATIONS)}, or "
                "(x-M)/S for pixels in 0..255"
            )
        return (mean,) * 3, (std,) * 3

    def differing(self, other: "Convention") -> tuple[Aspect, ...]:
        """In which respects two conventions differ."""
        pairs: dict[Aspect, bool] = {
            "size": self.size != other.size,
            "pixel range": self.normalisation != other.normalisation,
            "colour order": self.channel_order != other.channel_order,
        }
        return tuple(aspect for aspect, differ in pairs.items() if differ)

    def changed(
        self,
        *,
        size: tuple[int, int] | None = None,
        pixel_range: str | None = None,
        channel_order: ChannelOrder | None = None,
        origin: Origin = "stated",
    ) -> "Convention":
        """With what is given in place of what was, known through `origin`."""
        given = {"size": size, "pixel_range": pixel_range, "channel_order": channel_order}
        set_ = {name: value for name, value in given.items() if value is not None}
        return replace(self, known=replace(self.known, **dict.fromkeys(set_, origin)), **set_)  # type: ignore[arg-type]

    def __str__(self) -> str:
        height, width = self.size
        return f"{height}x{width}, {self.pixel_range}, {self.channel_order}"

    def to_json(self) -> dict[str, object]:
        """`size`, `range`, `order`, and in `known` how each is known."""
        height, width = self.size
        known = {
            "size": self.known.size,
            "range": self.known.pixel_range,
            "order": self.known.channel_order,
        }
        return {"size": f"{height}x{width}", "range": self.pixel_range, "order": self.channel_order, "known": known}


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What the user says of the pixels; None where nothing is said."""

    image_size: tuple[int, int] | None
    pixel_range: str | None
    channel_order: ChannelOrder | None

    def over(self, convention: Convention) -> Convention:
        """What is stated in place of what was known; what the file says as well is known from it."""
        stated = convention.changed(
            size=self.image_size, pixel_range=self.pixel_range, channel_order=self.channel_order, origin="stated"
        )
        before, differing = convention.known, stated.differing(convention)
        return replace(
            stated,
            known=Known(
                size="file" if before.size == "file" and "size" not in differing else stated.known.size,
                pixel_range="file"
                if before.pixel_range == "file" and "pixel range" not in differing
                else stated.known.pixel_range,
                channel_order="file"
                if before.channel_order == "file" and "colour order" not in differing
                else stated.known.channel_order,
            ),
        )


def range_named(mean: float, std: float) -> str:
    """The `PixelRange` of that mean and standard deviation in pixels, or else the formula."""
    for name, normalisation in NORMALISATIONS.items():
        if normalisation == ((mean,) * 3, (std,) * 3):
            return name
    return f"(x-{mean!r})/{std!r}"


def parse_size(text: str) -> tuple[int, int]:
    """(height, width) of "112x96" or "112". Raises SteadfaceError for anything else."""
    match = re.fullmatch(r"\s*(\d{1,9})\s*(?:[xX]\s*(\d{1,9})\s*)?", text)
    size = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
    if min(size) < 1:
        raise InvalidInput(f"size {quoted(text)} is not a height x width in pixels; give e.g. 112x112")
    return size
