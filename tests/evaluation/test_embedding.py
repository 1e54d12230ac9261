from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch

from steadface.data.faces import Image, UnreadableImage
from steadface.data.loading import load_images
from steadface.errors import SteadfaceError
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces

from ..rounding import rounding
from .faces import SIZE, Damaged, LinearBackbone, noise_faces

FACES = noise_faces(5, 3)
ROUNDING = rounding(3 * SIZE * SIZE)
"""Of unit embeddings of a `LinearBackbone`."""


def random_images(count: int = 4) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def test_mirror_embedding_does_not_see_mirroring() -> None:
    images = random_images()
    with_mirror, without = (MirrorEmbedder(LinearBackbone().eval(), mirror) for mirror in (True, False))
    torch.testing.assert_close(with_mirror(images), with_mirror(images.flip(-1)), atol=ROUNDING, rtol=0)
    assert (without(images) - without(images.flip(-1))).abs().max() > 0.1


def test_embeddings_are_the_normalised_sum_of_raw_ones() -> None:
    images, backbone = random_images(), LinearBackbone().eval()
    total = backbone(images) + backbone(images.flip(-1))
    expected = total / total.norm(dim=1, keepdim=True)
    torch.testing.assert_close(MirrorEmbedder(backbone)(images), expected, atol=ROUNDING, rtol=0)


def test_gradient_reaches_the_pixels_of_both_sides() -> None:
    images = random_images().requires_grad_(True)
    MirrorEmbedder(LinearBackbone().eval())(images)[:, 0].sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad, images.grad.flip(-1))
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 0), (4, 1), (4, 3), (64, 2)])
def test_batches_and_threads_make_no_difference(batch_size: int, threads: int) -> None:
    embedder = MirrorEmbedder(LinearBackbone())
    embedder.eval()
    chosen = np.array([7, 2, 2, 14, 0, 3, 9])
    expected = embedder(load_images(FACES, chosen, (SIZE, SIZE))).detach().numpy()
    found = embed_faces(embedder, FACES, chosen, batch_size=batch_size, threads=threads)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=ROUNDING)


def test_embedding_leaves_modes_and_statistics_and_reports_progress() -> None:
    backbone = LinearBackbone().train()
    backbone.norm.eval()
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    heard: list[tuple[int, int]] = []
    embed_faces(MirrorEmbedder(backbone), FACES, batch_size=4, progress=lambda *step: heard.append(step))
    assert heard == [(4, 15), (8, 15), (12, 15), (15, 15)]
    assert backbone.training
    assert not backbone.norm.training
    assert backbone.weight.requires_grad
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, before[key])


def test_unreadable_images_are_raised_or_become_nan() -> None:
    faces = Damaged(FACES, frozenset({0, 1, 2, 3, 9}))
    embedder = MirrorEmbedder(LinearBackbone())
    with pytest.raises(UnreadableImage, match=r"image 0 in memory.* damaged"):
        embed_faces(embedder, faces)
    found = embed_faces(embedder, faces, batch_size=4, skip_unreadable=True)  # the first batch has no readable one
    assert np.flatnonzero(np.isnan(found).any(1)).tolist() == [0, 1, 2, 3, 9]
    whole = embed_faces(embedder, FACES)
    readable = ~np.isnan(found).any(1)
    np.testing.assert_allclose(found[readable], whole[readable], atol=ROUNDING)


def test_each_image_is_read_once_even_beside_unreadable_ones() -> None:
    class Counting(Damaged):
        reads: ClassVar[Counter[int]] = Counter()

        def read(self, index: int) -> Image:
            self.reads[index] += 1
            return super().read(index)

    embed_faces(MirrorEmbedder(LinearBackbone()), Counting(FACES, frozenset({3})), skip_unreadable=True)
    assert Counting.reads == dict.fromkeys(range(len(FACES)), 1)


def test_a_network_that_gives_nan_is_named_as_the_cause() -> None:
    backbone = LinearBackbone()
    backbone.weight.data[0, 0] = torch.nan
    with pytest.raises(SteadfaceError, match=r"NaN or infinity for person 0 .* diverged"):
        embed_faces(MirrorEmbedder(backbone), FACES)


def test_nothing_to_embed_is_refused() -> None:
    with pytest.raises(SteadfaceError, match="no images"):
        embed_faces(MirrorEmbedder(LinearBackbone()), FACES, np.empty(0, dtype=np.int64))
