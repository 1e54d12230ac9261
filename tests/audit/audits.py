"""Small recognisers and faces that the tests of the audit share."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steadface.audit.request import QUICK, Preset, Request
from steadface.audit.run import perform_audit
from steadface.data.pairs import PairSet
from steadface.evaluation.labelled import pairs_from_labels
from steadface.recognizers import Convention, OpenedRecognizer

from ..evaluation.faces import LinearBackbone, noise_faces

TINY: Preset = replace(
    QUICK,
    apgd_steps=8,
    fmn_start_steps=4,
    fmn_steps=10,
    square_queries=20,
    transfer_steps=4,
    decision_queries=60,
    patch_steps=3,
    checked_pairs=4,
    gallery=20,
)
"""For what an audit does with what its attacks find, however little that is."""

ABLE: Preset = replace(TINY, square_queries=200)
"""For what the attacks have to find."""


class Masked(LinearBackbone):
    """Activations rounded to a few levels, and a gradient that leads astray: nothing resists any better."""

    def embed(self, pixels: Tensor) -> Tensor:
        return super().embed((8 * pixels).round() / 8 + 1e-4 * pixels.roll(1, dims=-1))


class Flat(LinearBackbone):
    """The same without any gradient but zero."""

    def embed(self, pixels: Tensor) -> Tensor:
        return super().embed((8 * pixels).round() / 8)


class Collapsed(LinearBackbone):
    """Everybody looks alike: a constant drowns what tells people apart."""

    def embed(self, pixels: Tensor) -> Tensor:
        embedded = super().embed(pixels)
        return embedded + 4 * embedded.detach().norm(dim=1, keepdim=True) * torch.ones_like(embedded[:1]) / 32**0.5


def people_pairs(people: int = 40, images: int = 4, seed: int = 0) -> PairSet:
    return pairs_from_labels(noise_faces(people, images, spread=30.0, seed=seed), 200, seed=seed)


def opened(network: torch.nn.Module, name: str = "linear") -> OpenedRecognizer:
    convention = Convention(size=(16, 16), pixel_range="0..1", channel_order="rgb")
    return OpenedRecognizer(network=network, name=name, fingerprint=name, convention=convention, notes=())


def request(network: torch.nn.Module | None = None, **changes: object) -> Request:
    values = {
        "model": opened(network or LinearBackbone()),
        "pairs": people_pairs(),
        "preset": TINY,
        "eps": (2 / 255, 8 / 255),
        "fmr": 0.05,
        "max_pairs": 12,
        "batch_size": 6,
    }
    return Request(**{**values, **changes})  # type: ignore[arg-type]


def audited(asked: Request, folder: Path, **more: Any) -> dict[str, Any]:
    """The record of that audit, as it stands in `audit.json`."""
    return perform_audit(asked, folder, **more).record.to_json()
