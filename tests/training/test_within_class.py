"""Within-class covariance normalisation: what differs between images of one person counts less."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from steadface.backbones import Architecture
from steadface.data.synthetic import synthetic_faces
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.training.within_class import normalise_within, within_class_map


def scattered(people, images, spread, seed=0):
    """Embeddings around a mean of each person, with `spread` (D,) as standard deviations, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), images)
    means = random.normal(size=(people, len(spread)))
    embeddings = means[labels] + random.normal(size=(len(labels), len(spread))) * np.asarray(spread)
    return torch.from_numpy(embeddings.astype(np.float32)), torch.from_numpy(labels)


def within(embeddings, labels):
    apart = torch.cat([one - one.mean(0) for one in (embeddings[labels == label] for label in labels.unique())])
    return apart.T @ apart / len(apart)


def test_at_full_strength_people_differ_alike_in_every_direction():
    embeddings, labels = scattered(40, 20, [0.5, 1.0, 2.0])
    before = within(embeddings.double(), labels)
    matrix = within_class_map(embeddings, labels, 1.0)
    floor = 0.1 * before.trace() / 3 * torch.eye(3, dtype=torch.float64)
    after = matrix @ (before + floor) @ matrix.T  # but for the floor
    torch.testing.assert_close(after, after[0, 0] * torch.eye(3, dtype=torch.float64), atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(matrix.det(), torch.ones((), dtype=torch.float64))


def test_two_half_strengths_make_a_whole_and_none_changes_nothing():
    embeddings, labels = scattered(30, 5, [0.5, 1.0, 2.0, 3.0])
    half, whole, none = (within_class_map(embeddings, labels, strength) for strength in (0.5, 1.0, 0.0))
    torch.testing.assert_close(half @ half, whole)
    torch.testing.assert_close(none, torch.eye(4, dtype=torch.float64))


def test_people_seen_once_say_nothing_of_how_one_person_differs():
    embeddings, labels = scattered(10, 4, [0.5, 1.0, 2.0])
    strangers = torch.full((5, 3), 9.0)
    more, theirs = torch.cat([embeddings, strangers]), torch.cat([labels, 20 + torch.arange(5)])
    torch.testing.assert_close(within_class_map(more, theirs, 0.5), within_class_map(embeddings, labels, 0.5))
    alone = within_class_map(strangers, torch.arange(5), 0.5)
    assert torch.equal(alone, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("images", [3, 1], ids=["several images", "one image each"])
def test_a_network_gives_normalised_embeddings(images):
    faces = synthetic_faces(people=12, images_per_person=images, size=(16, 16), seed=0)
    architecture = Architecture(width=0.125, blocks=(1, 0, 0, 0), image_size=(16, 16), embedding_size=8)
    network = architecture.build(torch.Generator().manual_seed(0)).eval()
    before = torch.from_numpy(embed_faces(MirrorEmbedder(network, mirror=False), faces))
    matrix = within_class_map(before, torch.from_numpy(faces.labels), 0.5)
    normalise_within(network, faces, 0.5)
    after = torch.from_numpy(embed_faces(MirrorEmbedder(network, mirror=False), faces))
    torch.testing.assert_close(after, F.normalize(before @ matrix.float()), atol=1e-4, rtol=1e-4)
    assert torch.allclose(before, after, atol=1e-4) == (images == 1)
