"""Recognisers that are fused: one file, whose cosine is the mean of theirs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from steadface.backbones import Architecture, save_backbone
from steadface.errors import SteadfaceError
from steadface.recognizers import Convention, OpenedRecognizer, open_recognizer
from steadface.recognizers.adapters import BlackBox
from steadface.recognizers.fusion import fused
from steadface.workflows.fuse import fuse

from .recognisers import Embedding, backbone, exported

ROUNDING = 1e-5


def images(count: int, size: tuple[int, int] = (32, 32)) -> Tensor:
    """Soft patches of colour, which networks tell apart."""
    patches = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(patches, size, mode="bilinear")


def cosines(network: nn.Module, faces: Tensor) -> Tensor:
    embeddings = nn.functional.normalize(network(faces))
    return embeddings @ embeddings.T


@pytest.fixture
def members(tmp_path: Path) -> list[Path]:
    """Weights of ours, and a file of other people's that is made for one image at a time."""
    save_backbone(tmp_path / "one.safetensors", backbone(0), {})
    exported(tmp_path / "two.onnx", Embedding(backbone(1)), dynamic=False)
    return [tmp_path / "one.safetensors", tmp_path / "two.onnx"]


def test_the_cosine_of_the_fused_is_the_mean_of_theirs(members, tmp_path) -> None:
    written = fuse(members, tmp_path / "both.onnx")
    both = open_recognizer(written.path).network
    faces = images(5).requires_grad_(True)
    mean = torch.stack([cosines(open_recognizer(path).network, faces) for path in members]).mean(0)
    assert written.dimension == 16
    torch.testing.assert_close(cosines(both, faces), mean, rtol=0, atol=ROUNDING)
    (by_both,) = torch.autograd.grad(cosines(both, faces)[0, 1], faces)
    (by_each,) = torch.autograd.grad(mean[0, 1], faces)
    torch.testing.assert_close(by_both, by_each, rtol=1e-3, atol=1e-3 * float(by_each.abs().max()))


def test_the_older_crop_is_cut_out_of_the_image_that_the_others_take(tmp_path) -> None:
    opened = []
    for size in ((112, 96), (112, 112)):
        architecture = Architecture(image_size=size, embedding_size=8, width=0.125, blocks=(1, 0, 0, 0))
        path = tmp_path / f"{size[1]}.safetensors"
        save_backbone(path, architecture.build(torch.Generator().manual_seed(1)).eval(), {})
        opened.append(open_recognizer(path))
    both, faces = fused(opened), images(3, (112, 112))
    assert both.convention.size == (112, 112)
    expected = (cosines(opened[0].network, faces[..., 8:-8]) + cosines(opened[1].network, faces)) / 2
    torch.testing.assert_close(cosines(both.network, faces), expected, rtol=0, atol=ROUNDING)
    fuse([tmp_path / "96.safetensors", tmp_path / "112.safetensors"], tmp_path / "both.onnx")
    written = open_recognizer(tmp_path / "both.onnx").network
    torch.testing.assert_close(cosines(written, faces), expected, rtol=0, atol=ROUNDING)


def test_what_cannot_be_fused_is_refused_and_nothing_written(members, tmp_path) -> None:
    one, two = (open_recognizer(path) for path in members)
    with pytest.raises(SteadfaceError, match="1 recogniser is given, and fusing takes two or more"):
        fused([one])
    with pytest.raises(SteadfaceError, match="one is given twice"):
        fused([one, two, one])
    save_backbone(tmp_path / "large.safetensors", Architecture(image_size=48, width=0.125).build().eval(), {})
    with pytest.raises(SteadfaceError, match=r"one 32 x 32, large 48 x 48"):
        fuse([members[0], tmp_path / "large.safetensors"], tmp_path / "both.onnx")
    service = BlackBox(lambda shown: np.zeros((len(shown), 8)), Convention(size=(32, 32)), name="service")
    with pytest.raises(SteadfaceError, match="service has no gradients"):
        fused([one, OpenedRecognizer(network=service, name="service", fingerprint="", convention=service.convention)])
    assert not (tmp_path / "both.onnx").exists()
