"""Embeddings in service are those that were evaluated."""

import numpy as np
import pytest
import torch

from steadface.backbones import load_backbone
from steadface.errors import SteadfaceError
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.recognizers import open_recognizer
from steadface.recognizers.embedder import NetworkEmbedder, open_embedder, stacked


@pytest.fixture
def opened(model):
    return open_recognizer(model)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_they_are_those_of_the_evaluation(opened, model, faces, mirror, batch):
    expected = embed_faces(MirrorEmbedder(load_backbone(model), mirror), faces, np.arange(20))
    embedder = NetworkEmbedder(opened.network, mirror=mirror, batch=batch)
    found = embedder(faces.images[:20])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_half_precision_stays_near(opened, faces):
    exact = NetworkEmbedder(opened.network)(faces.images[:8])
    near = NetworkEmbedder(opened.network, precision="bf16")(faces.images[:8])
    assert near.dtype == np.float32
    cosines = (exact * near).sum(1)
    assert (cosines > 0.999).all()
    assert not np.array_equal(exact, near)


def test_without_a_compiler_it_stays_eager_and_says_so(opened, faces, monkeypatch, caplog):
    monkeypatch.setattr("shutil.which", lambda _name: None)
    embedder = NetworkEmbedder(opened.network, compile=True)
    assert "no C++ compiler" in caplog.text
    np.testing.assert_array_equal(embedder(faces.images[:3]), NetworkEmbedder(opened.network)(faces.images[:3]))


def test_other_arrays_are_refused_with_what_is_taken(opened, faces):
    embedder = open_embedder(opened)
    with pytest.raises(SteadfaceError, match=r"float32 of shape .* takes uint8 RGB \(B, 32, 32, 3\)"):
        embedder(faces.images[:2].astype(np.float32))
    with pytest.raises(SteadfaceError, match=r"uint8 of shape \(2, 16, 32, 3\)"):
        embedder(faces.images[:2, ::2])
    with pytest.raises(SteadfaceError, match="no faces"):
        embedder(faces.images[:0])


def test_a_damaged_model_gives_no_embeddings(opened, faces):
    with torch.no_grad():
        next(opened.network.parameters()).fill_(float("nan"))
    with pytest.raises(SteadfaceError, match="weights are damaged"):
        open_embedder(opened)(faces.images[:2])


def test_onnxruntime_needs_an_onnx_file(opened):
    with pytest.raises(SteadfaceError, match=r"not an ONNX file.*steadface export"):
        open_embedder(opened, backend="onnxruntime")


def test_faces_of_any_size_are_brought_to_one(faces):
    small = faces.images[0][::2, ::2]
    assert stacked([faces.images[0], small], (32, 32)).shape == (2, 32, 32, 3)
