"""Recognisers of any origin: opened as one kind of network, their convention stated, read or probed."""

from steadface.models.convention import ChannelOrder, Convention, Known, PixelRange, parse_size
from steadface.models.diagnosis import CAUSE, POORLY, TRIED, Diagnosis, diagnose, starting_from, with_known_convention
from steadface.models.fitting import fitted, surrogate_embed
from steadface.models.opened import OpenedRecogniser
from steadface.models.opening import check_exists, open_recogniser
from steadface.models.probing import Probe, Trial, probe_convention

__all__ = [
    "CAUSE",
    "POORLY",
    "TRIED",
    "ChannelOrder",
    "Convention",
    "Diagnosis",
    "Known",
    "OpenedRecogniser",
    "PixelRange",
    "Probe",
    "Trial",
    "check_exists",
    "diagnose",
    "fitted",
    "open_recogniser",
    "parse_size",
    "probe_convention",
    "starting_from",
    "surrogate_embed",
    "with_known_convention",
]
