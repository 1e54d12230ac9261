"""A backbone of one's own: options and a network in one file, and a row in the table of families."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadface.backbones import Architecture, Backbone, architecture, load_backbone, save_backbone
from steadface.backbones.base import Description, FamilyOptions, reset_norms_and_activations
from steadface.training.loop import TrainingRun
from steadface.training.recipe import make_recipe


class PlainOptions(FamilyOptions):
    """Channels of the only layer."""

    channels: int = 8


class Plain(Backbone):
    """One strided convolution, the mean over all positions, and a linear layer."""

    def __init__(self, architecture: Description, options: PlainOptions) -> None:
        super().__init__(architecture)
        self.conv = nn.Conv2d(3, options.channels, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(options.channels)
        self.fc = nn.Linear(options.channels, architecture.embedding_size)

    def embed(self, pixels: Tensor) -> Tensor:
        embeddings: Tensor = self.fc(self.norm(self.conv(pixels)).relu().mean((2, 3)))
        return embeddings

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        reset_norms_and_activations(self)
        for weight in (self.conv.weight, self.fc.weight):
            nn.init.normal_(weight, 0.0, 0.1, generator=generator)
        nn.init.zeros_(self.fc.bias)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    row: architecture.Family[Any] = architecture.Family(names=("plain",), options=PlainOptions, network=Plain)
    monkeypatch.setattr(architecture, "FAMILIES", (*architecture.FAMILIES, row))


@pytest.mark.usefixtures("plain")
def test_a_new_family_is_described_saved_and_loaded(tmp_path: Path) -> None:
    described = Architecture(name="plain", image_size=(16, 16), embedding_size=4)
    assert described.model_dump(mode="json")["channels"] == 8
    with pytest.raises(ValueError, match="blocks"):
        Architecture(name="plain", blocks=(1, 1, 1, 1))
    saved = described.build(torch.Generator().manual_seed(0)).eval()
    save_backbone(tmp_path / "plain.safetensors", saved, {})
    loaded = load_backbone(tmp_path / "plain.safetensors")
    images = torch.rand(2, 3, 16, 16)
    assert loaded.architecture == described
    assert torch.equal(loaded(images), saved(images))


@pytest.mark.usefixtures("plain")
def test_a_new_family_is_trained(tmp_path: Path) -> None:
    recipe = make_recipe(
        {
            "name": "plain",
            "data": {"synthetic": {"people": 4, "images_per_person": 2}, "size": [16, 16], "batch": 4, "validation": 0},
            "model": {"architecture": {"name": "plain", "embedding_size": 4, "channels": 6}},
            "method": {"gate": {"kind": "always"}},
            "run": {"out": str(tmp_path / "run"), "steps": 2, "device": "cpu", "tensorboard": False},
        }
    )
    assert TrainingRun.start(recipe).train().finished
    model = load_backbone(tmp_path / "run")
    assert isinstance(model, Plain)
    assert model.conv.out_channels == 6
