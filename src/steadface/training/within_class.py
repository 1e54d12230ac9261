"""What a recogniser makes of the people it is trained on: their mean embeddings, and how one's faces differ.

Within-class covariance normalisation makes directions in which embeddings of one person differ count less. `e`
unit embeddings `(D,)`, `c` the mean over those of a person, `N` images of people seen twice or more:

    S = 1/N sum (e - c)(e - c)^T          A = (S / (tr(S) / D) + lambda I)^(-strength / 2)

    z' = A z          strength 0: nothing changes, 1: S becomes the identity, but for lambda

(Hatch, Kajarekar and Stolcke, "Within-class covariance normalization for SVM-based speaker recognition", Interspeech
2006, equations 10 to 13, with a power below the full one.) Scaled to determinant 1. As a linear map it is folded into
the last layer, and costs nothing.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from steadface.backbones import Backbone
from steadface.backbones.frozen import fold_map
from steadface.data.faces import FaceSource
from steadface.evaluation.embedding import MirrorEmbedder, embed_faces
from steadface.training.networks import Network, judged

FEW = 10
"""Images of a person that are looked at: the mean has settled by then, and large sets start soon."""
FLOOR = 0.1
"""`lambda`: a direction in which hardly anybody differs is not blown up."""


def mean_embeddings(backbone: Network, faces: FaceSource, people: slice) -> Tensor:
    """Unit mean embedding `(c, D)` of each of the `people`, from up to `FEW` of their clean images."""
    if people.start == people.stop:
        return torch.zeros(0, backbone.embedding_size)
    embeddings, labels = _few_of_each(backbone, faces, people)
    return F.normalize(_sums(embeddings, labels - people.start, people.stop - people.start))


def normalise_within(backbone: Backbone, faces: FaceSource, strength: float) -> None:
    """Normalises, in place, what `backbone` gives, by up to `FEW` clean images of every person of `faces`.

    Its BatchNorms are folded (`fold_norms`). Where nobody is seen twice nothing else changes.
    """
    embeddings, labels = _few_of_each(backbone, faces, slice(0, len(faces.people)))
    fold_map(backbone, within_class_map(embeddings, labels, strength))


def within_class_map(embeddings: Tensor, labels: Tensor, strength: float) -> Tensor:
    """`A` `(D, D)`, symmetric, in double precision, for unit `embeddings` `(N, D)` of people `(N,)`."""
    embeddings = embeddings.double()
    images = torch.bincount(labels)
    means = _sums(embeddings, labels, len(images)) / images.clamp(min=1)[:, None]
    apart = (embeddings - means[labels])[images[labels] > 1]
    scatter = apart.T @ apart
    size = scatter.trace() / len(scatter)
    if not size > 0:
        return torch.eye(len(scatter), dtype=scatter.dtype)
    variances, directions = torch.linalg.eigh(scatter / size)
    gains = (variances.clamp(min=0) + FLOOR).log() * (-strength / 2)
    matrix: Tensor = directions * (gains - gains.mean()).exp() @ directions.T
    return matrix


def _few_of_each(backbone: Network, faces: FaceSource, people: slice) -> tuple[Tensor, Tensor]:
    """Unit embeddings `(N, D)` of readable images, up to `FEW` of each of the `people`, and their labels `(N,)`."""
    order: NDArray[np.int64] = np.argsort(faces.labels, kind="stable")
    order = order[slice(*np.searchsorted(faces.labels, [people.start, people.stop], sorter=order))]
    labels = faces.labels[order]
    few = np.arange(len(labels)) - np.searchsorted(labels, labels) < FEW
    embedder = MirrorEmbedder(judged(backbone), mirror=False)
    embeddings = torch.from_numpy(embed_faces(embedder, faces, order[few], skip_unreadable=True))
    readable = embeddings.isfinite().all(dim=1)
    return embeddings[readable], torch.from_numpy(labels[few])[readable]


def _sums(embeddings: Tensor, labels: Tensor, people: int) -> Tensor:
    return embeddings.new_zeros(people, embeddings.shape[1]).index_add_(0, labels, embeddings)
