"""Recognisers of any origin: opened as one kind of network, their convention stated, read or probed."""

from steadface.models.convention import ChannelOrder, Convention, Known, PixelRange, parse_size
from steadface.models.fitting import fitted, surrogate_embed
from steadface.models.opened import OpenedRecogniser
from steadface.models.opening import open_recogniser

__all__ = [
    "ChannelOrder",
    "Convention",
    "Known",
    "OpenedRecogniser",
    "PixelRange",
    "fitted",
    "open_recogniser",
    "parse_size",
    "surrogate_embed",
]
