"""The weights that a run starts from and is compared with, kept in its folder so that it can be resumed."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from steadface.backbones import Backbone, load_backbone, save_backbone
from steadface.backbones.folding import fold_norms
from steadface.errors import InvalidInput
from steadface.training.compute import Compute, FastNetwork
from steadface.training.recipe import Recipe

Reference = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) to the unit embeddings (B, D) of a frozen model."""


def start_weights(recipe: Recipe, run: Path, *, fresh: bool) -> Path | None:
    """The run's own copy of the weights it starts from, so that it can be resumed wherever they went since.

    A `fresh` run makes it anew: a copy that is there already is another's, killed before its first checkpoint.
    """
    return _own_copy(recipe, "start", recipe.model.start, run, fresh=fresh)


def reference_weights(recipe: Recipe, run: Path, *, fresh: bool) -> Path | None:
    """The run's own copy of a reference that it does not start from."""
    return _own_copy(recipe, "reference", recipe.model.reference, run, fresh=fresh)


def load_start(recipe: Recipe, start: Path) -> Backbone:
    """The weights that a run starts from, in the form in which they are trained on."""
    backbone = load_backbone(start)
    if recipe.model.corner is not None:
        backbone.round_corners(recipe.model.corner)
    if recipe.method.batchnorm == "folded":
        fold_norms(backbone)
    return backbone


def _own_copy(recipe: Recipe, key: str, given: Path | None, run: Path, *, fresh: bool) -> Path | None:
    if given is None:
        return None
    copy = run / f"{key}.safetensors"
    if fresh or not copy.exists():
        backbone = load_backbone(given)
        if backbone.architecture.image_size != recipe.data.size:
            raise InvalidInput(
                f"model.{key} {given} takes {backbone.architecture.image_size} images, data.size is "
                f"{recipe.data.size}: set data.size to the former"
            )
        save_backbone(copy, backbone, {})
    return copy


def load_reference(recipe: Recipe, weights: Path | None, backbone: Backbone, compute: Compute) -> Reference | None:
    """The frozen model whose embeddings `backbone` is compared with; None where the recipe compares with none."""
    if weights is None or not (recipe.needs_reference or recipe.method.regularizer.function):
        return None
    model = load_backbone(weights)
    size, own = model.architecture.embedding_size, backbone.architecture.embedding_size
    if size != own:
        raise InvalidInput(
            f"model.reference gives embeddings of {size} numbers and the model to train of {own}: set "
            f"model.architecture.embedding_size to {size}"
        )
    fold_norms(model)  # in evaluation mode for good
    model = model.to(compute.device).requires_grad_(False)
    network = FastNetwork(model, compute)

    def reference(images: Tensor) -> Tensor:
        with torch.no_grad():
            return F.normalize(network(images))

    return reference
