"""From a recipe to a trainer, and to those of its parts that a checkpoint holds.

The weights that a run starts from and is compared with are kept in its folder, so that it can be resumed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steadface.arguments import SEEDS
from steadface.attacks import GenerativeAttack
from steadface.attacks.draws import PartGenerator
from steadface.backbones.frozen import copied
from steadface.errors import InvalidInput
from steadface.heads import AdaFace, ArcFace, CosFace, Softmax
from steadface.heads.heads import MarginObjective, SelfReference
from steadface.heads.sharded import DrawnRows
from steadface.ranks import ALONE, Ranks
from steadface.training.assembly.faces import Faces
from steadface.training.assembly.method import (
    make_attack,
    make_gate,
    make_performance,
    make_ramp,
    make_regularizer,
    make_targets,
)
from steadface.training.averaging import WeightAverage
from steadface.training.batchnorm import BatchNormPasses, share_statistics
from steadface.training.compute import Compute, FastNetwork
from steadface.training.lossscale import LossScale
from steadface.training.networks import Network, file_for, kept_file, load_network, prepared, save_network
from steadface.training.recipe import Recipe
from steadface.training.recipe.sections import HeadOptions, Optimizer
from steadface.training.recompute import recomputing
from steadface.training.step import Trainer, Weights
from steadface.training.within_class import mean_embeddings

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


def load_start(recipe: Recipe, start: Path) -> Network:
    """The weights that a run starts from, in the form in which they are trained on."""
    return _trainable(recipe, load_network(start, recipe.model.code))


def _trainable(recipe: Recipe, network: Network) -> Network:
    return prepared(network, corner=recipe.model.corner, folds=recipe.method.batchnorm == "folded")


def _own_copy(recipe: Recipe, key: str, given: Path | None, run: Path, *, fresh: bool) -> Path | None:
    if given is None:
        return None
    kept = kept_file(run, key)
    if kept is not None and not fresh:
        return kept
    network = load_network(given, recipe.model.code)
    if network.image_size != recipe.data.size:
        raise InvalidInput(
            f"model.{key} {given} takes {network.image_size} images, data.size is {recipe.data.size}: set data.size to "
            "the former"
        )
    if kept is not None:
        kept.unlink()  # it may be of another kind
    copy = file_for(run, key, network)
    save_network(copy, network, {})
    return copy


def _reference(model: Network | None, backbone: Network, compute: Compute) -> Reference | None:
    """The frozen `model`, which is changed, whose embeddings `backbone` is compared with; None without one."""
    if model is None:
        return None
    size, own = model.embedding_size, backbone.embedding_size
    if size != own:
        raise InvalidInput(
            f"model.reference gives embeddings of {size} numbers and the model to train of {own}: set "
            f"model.architecture.embedding_size to {size}"
        )
    model = prepared(model, corner=None, folds=True)  # in evaluation mode for good
    model = model.to(compute.device).requires_grad_(False)
    network = FastNetwork(model, compute)

    def reference(images: Tensor) -> Tensor:
        with torch.no_grad():
            return F.normalize(network(images))

    return reference


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A trainer and those of its parts that a checkpoint holds."""

    trainer: Trainer
    backbone: Network
    objective: nn.Module
    proposer: GenerativeAttack | None
    average: WeightAverage | None = None

    def averaged(self) -> AbstractContextManager[None]:
        """The backbone has the weights that it is judged by within."""
        return nullcontext() if self.average is None else self.average.applied()


def assemble(
    recipe: Recipe,
    faces: Faces,
    compute: Compute,
    *,
    fresh: bool,
    start: Path | None = None,
    reference: Path | None = None,
    ranks: Ranks = ALONE,
) -> Assembly:
    """Builds the trainer, of one of several `ranks` its part; the `start` is its reference unless another is given.

    `fresh` imprints the head's prototypes; a resumed run overwrites the weights anyway.
    """
    method, device = recipe.method, compute.device
    # Drawn from in this order: backbone, head, attack.
    seeds = torch.Generator().manual_seed(recipe.run.seed)
    given = None if start is None else load_network(start, recipe.model.code)
    compared = None
    if recipe.needs_reference or recipe.method.regularizer.function:
        if reference is not None:
            compared = load_network(reference, recipe.model.code)
        elif given is not None:
            compared = copied(given)
    backbone = _backbone(recipe, given, seeds).to(device)
    if recipe.run.recompute:
        recomputing(backbone)
    size = backbone.embedding_size
    objective = _objective(recipe.head, len(faces.training.people), size, seeds, ranks).to(device)
    if isinstance(objective, MarginObjective):
        objective.head.rate = recipe.head.sample_rate
    if fresh and start is not None and recipe.model.imprint and isinstance(objective, MarginObjective):
        objective.head.imprint(mean_embeddings(backbone, faces.training, objective.head.rows).to(device))
    attack = make_attack(method.attack, size, seeds, device)
    if isinstance(attack, GenerativeAttack) and not ranks.alone:
        attack.summed = ranks.sum
    average = WeightAverage(backbone, decay) if (decay := recipe.optimizer.average) else None

    def model() -> Network:
        with nullcontext() if average is None else average.applied():
            return copied(backbone)

    if not ranks.alone:
        share_statistics(backbone, ranks)
    scale = LossScale() if compute.half == torch.float16 else None
    network = FastNetwork(backbone.train(), compute, scale)
    kind_of_generator = torch.Generator if ranks.alone else PartGenerator
    optimizer = _optimizer(recipe.optimizer, backbone, objective)
    trainer = Trainer(
        backbone=backbone,
        network=network,
        objective=objective.train(),
        optimizer=optimizer,
        gate=make_gate(recipe, objective, model, faces.validation, ranks),
        performance=make_performance(recipe, objective, backbone, faces.validation, ranks),
        batchnorm=BatchNormPasses(backbone, method.batchnorm),
        generator=kind_of_generator(device).manual_seed((recipe.run.seed + 1) % SEEDS),
        attack=attack,
        targets=make_targets(recipe, faces.training, device),
        regularizer=make_regularizer(recipe),
        reference=_reference(compared, backbone, compute),
        timing=method.timing,
        adversarial_batches=method.adversarial_batches,
        goal=method.attack.goal,
        weights=Weights(source=method.source, alpha=method.alpha, regularizer=method.weight),
        ramp=make_ramp(method.attack),
        accumulate=recipe.optimizer.accumulate,
        clip_norm=recipe.optimizer.clip_norm,
        ranks=ranks,
        shared=None if ranks.alone else network.shared(),
        drawn=_drawn_rows(objective, optimizer),
        undoes=recipe.run.nonfinite.skip > 0,
        scale=scale,
    )
    return Assembly(
        trainer=trainer,
        backbone=backbone,
        objective=objective,
        proposer=attack if isinstance(attack, GenerativeAttack) else None,
        average=average,
    )


def _backbone(recipe: Recipe, given: Network | None, seeds: torch.Generator) -> Network:
    if given is not None:
        return _trainable(recipe, given)
    return recipe.model.architecture.model_copy(update={"image_size": recipe.data.size}).build(seeds)


def _objective(options: HeadOptions, classes: int, embedding_size: int, seeds: torch.Generator, ranks: Ranks) -> Any:
    drawn: Any = {"generator": seeds, "rows": ranks.rows(classes)}
    match options.kind:
        case "none":
            return SelfReference(ranks)
        case "softmax":
            return MarginObjective(Softmax(classes, embedding_size, **drawn), ranks)
        case "arcface":
            return MarginObjective(ArcFace(classes, embedding_size, s=options.s, m=options.m, **drawn), ranks)
        case "cosface":
            return MarginObjective(CosFace(classes, embedding_size, s=options.s, m=options.m, **drawn), ranks)
        case "adaface":
            return MarginObjective(AdaFace(classes, embedding_size, s=options.s, m=options.m, **drawn), ranks)
        case unknown:
            assert_never(unknown)


def _drawn_rows(objective: Any, optimizer: torch.optim.Optimizer) -> DrawnRows | None:
    if not isinstance(objective, MarginObjective) or objective.head.rate == 1:
        return None
    return DrawnRows(head=objective.head, optimizer=optimizer, rate=objective.head.rate)


def _optimizer(options: Optimizer, backbone: nn.Module, objective: nn.Module) -> torch.optim.Optimizer:
    """No decay on norms, biases and activation slopes: everything of one dimension."""
    parameters = [p for module in (backbone, objective) for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    match options.kind:
        case "adamw":
            return torch.optim.AdamW(groups, lr=options.rate, betas=(options.momentum, 0.999))
        case "sgd":
            return torch.optim.SGD(groups, lr=options.rate, momentum=options.momentum)
        case unknown:
            assert_never(unknown)
