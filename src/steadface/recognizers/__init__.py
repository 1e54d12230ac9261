"""Recognisers of any origin: opened as one kind of network, their convention stated, read or probed."""

from steadface.recognizers.convention import ChannelOrder, Convention, Known, PixelRange, parse_size
from steadface.recognizers.diagnosis import (
    CAUSE,
    POORLY,
    TRIED,
    Diagnosis,
    diagnose,
    probed,
    starting_from,
    with_known_convention,
)
from steadface.recognizers.network import OpenedRecognizer, fitted, surrogate_embed
from steadface.recognizers.opening import check_exists, open_recognizer
from steadface.recognizers.probing import Probe, Trial, probe_convention

__all__ = [
    "CAUSE",
    "POORLY",
    "TRIED",
    "ChannelOrder",
    "Convention",
    "Diagnosis",
    "Known",
    "OpenedRecognizer",
    "PixelRange",
    "Probe",
    "Trial",
    "check_exists",
    "diagnose",
    "fitted",
    "open_recognizer",
    "parse_size",
    "probe_convention",
    "probed",
    "starting_from",
    "surrogate_embed",
    "with_known_convention",
]
