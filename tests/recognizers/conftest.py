"""A small recogniser of synthetic faces that the tests of recognisers and of the recognition device share."""

from pathlib import Path

import pytest
import torch

from steadface.backbones import Architecture, Backbone, save_backbone
from steadface.data.faces import ArrayFaces
from steadface.data.synthetic import synthetic_faces


@pytest.fixture(scope="session")
def network() -> Backbone:
    """Untrained, for faces of 32 x 32; its embeddings tell synthetic people apart by their colours."""
    architecture = Architecture(image_size=(32, 32), embedding_size=16, width=0.25, blocks=(1, 0, 0, 0))
    return architecture.build(torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="session")
def faces() -> ArrayFaces:
    return synthetic_faces(people=24, images_per_person=5, size=(32, 32), seed=0)


@pytest.fixture
def model(tmp_path: Path, network: Backbone) -> Path:
    """A file of the network without any contract."""
    path = tmp_path / "small.safetensors"
    save_backbone(path, network, {})
    return path
