"""From a recipe to the objects of the method: every choice a recipe can name is made here and nowhere else."""

import importlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from steadface import heads
from steadface.attacks import NFGSM, PGD, Attack, GenerativeAttack, PerturbationNetwork, ball
from steadface.backbones import Backbone, load_backbone, save_backbone
from steadface.backbones.folding import fold_norms
from steadface.data.augment import Augmentation
from steadface.data.faces import FaceSource, JoinedFaces
from steadface.data.folders import UnlabelledFolder, open_faces
from steadface.data.loading import FaceLoader, load_images
from steadface.data.people_csv import NamedFolder
from steadface.data.sampling import BalancedSampler, PersonImages, Sampler, UniformSampler
from steadface.data.splits import split_people
from steadface.data.synthetic import synthetic_faces
from steadface.errors import SteadfaceError
from steadface.evaluation.labelled import validation_metrics
from steadface.training.averaging import WeightAverage
from steadface.training.batchnorm import BatchNormPasses
from steadface.training.gate import FixedGate, Gate, RandomGate, SmoothedGate, ThresholdGate, loss_threshold
from steadface.training.network import FastNetwork, Speed, resolve_speed
from steadface.training.objective import MarginObjective, Objective, SelfReference
from steadface.training.performance import BatchAccuracy, HeldOutVerification, Performance, negative_loss
from steadface.training.recipe import Recipe
from steadface.training.regularizers import PullRepel, Regularizer
from steadface.training.sections import Data
from steadface.training.step import Ramp, Trainer, Weights
from steadface.training.targets import (
    Designation,
    KeptBlend,
    Mapped,
    Nearest,
    OtherFace,
    PerturbedSource,
    RandomOther,
    TargetSampler,
)
from steadface.training.within_class import mean_embeddings

UNKNOWN_RAMP = 1000


@dataclass(frozen=True, kw_only=True)
class Faces:
    """The people trained on and, where the recipe holds some out, those that the run is judged by.

    ``messages`` say what the listing left out.
    """

    training: FaceSource
    validation: FaceSource | None
    messages: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        return self.training.fingerprint()


def open_recipe_faces(recipe: Recipe) -> Faces:
    """The recipe's faces, split by people; the extra ones are trained on."""
    data = recipe.data
    training = source = open_named_faces(data)
    messages: tuple[str, ...] = getattr(source, "messages", ())
    validation: FaceSource | None = None
    if data.validation:
        training, validation = split_people(source, fraction=data.validation, seed=recipe.run.seed)
    if data.extra is not None:
        extra = UnlabelledFolder(data.extra)
        training, messages = JoinedFaces([training, extra]), (*messages, *extra.messages)
    return Faces(training=training, validation=validation, messages=messages)


def open_named_faces(data: Data) -> FaceSource:
    """The faces of which it is known who they show: all but the extra ones."""
    if data.synthetic is not None:
        return synthetic_faces(
            people=data.synthetic.people,
            images_per_person=data.synthetic.images_per_person,
            size=data.size,
            seed=data.synthetic.seed,
        )
    assert data.images is not None
    if data.people is not None:
        return NamedFolder(data.images, data.people, min_images=data.min_images)
    return open_faces(data.images, min_images=data.min_images)


def make_loader(recipe: Recipe, faces: FaceSource, device: torch.device) -> FaceLoader:
    """Batches of the training faces."""
    data = recipe.data
    sampler: Sampler
    if data.sampling == "balanced":
        sampler = BalancedSampler(
            faces.labels, batch_size=data.batch, seed=recipe.run.seed, images_per_person=data.images_per_person
        )
    else:
        sampler = UniformSampler(faces.labels, batch_size=data.batch, seed=recipe.run.seed)
    options = data.augmentation.model_dump()
    return FaceLoader(
        faces,
        sampler=sampler,
        size=data.size,
        augmentation=Augmentation(**options) if any(options.values()) else None,
        workers=data.workers,
        seed=recipe.run.seed,
        device=device,
    )


def start_weights(recipe: Recipe, run: Path, *, fresh: bool) -> Path | None:
    """The run's own copy of the weights it starts from, so that it can be resumed wherever they went since.

    A ``fresh`` run makes it anew: a copy that is there already is another's, killed before its first checkpoint.
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
            raise SteadfaceError(
                f"model.{key} {given} takes {backbone.architecture.image_size} images, data.size is "
                f"{recipe.data.size}: set data.size to the former"
            )
        save_backbone(copy, backbone, {})
    return copy


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """A trainer and those of its parts that a checkpoint holds."""

    trainer: Trainer
    backbone: Backbone
    objective: nn.Module
    proposer: GenerativeAttack | None
    average: WeightAverage | None = None

    def averaged(self) -> AbstractContextManager[None]:
        """The backbone has the weights that it is judged by within."""
        return nullcontext() if self.average is None else self.average.applied()


def assemble(
    recipe: Recipe,
    faces: Faces,
    start: Path | None,
    device: torch.device,
    *,
    fresh: bool,
    reference: Path | None = None,
) -> Assembly:
    """Builds the trainer; the ``start`` is its reference unless another is given.

    ``fresh`` imprints the head's prototypes; a resumed run overwrites the weights anyway.
    """
    seeds = torch.Generator().manual_seed(recipe.run.seed)
    if start is None:
        architecture = recipe.model.architecture.model_copy(update={"image_size": recipe.data.size})
        backbone = architecture.build(seeds)
    else:
        backbone = load_start(recipe, start)
    backbone = backbone.to(device)
    objective = _objective(recipe, faces.training, backbone, seeds).to(device)
    if fresh and start is not None and recipe.model.imprint and isinstance(objective, MarginObjective):
        objective.head.imprint(mean_embeddings(backbone, faces.training).to(device))
    attack = _attack(recipe, backbone.architecture.embedding_size, seeds, device)
    speed = resolve_speed(recipe.run, device)
    trainer = Trainer(
        backbone=backbone.train(),
        network=FastNetwork(backbone, **vars(speed)),
        objective=objective.train(),
        optimizer=_optimizer(recipe, backbone, objective),
        gate=_gate(recipe, objective),
        performance=_performance(recipe, objective, backbone, faces.validation),
        batchnorm=BatchNormPasses(backbone, recipe.method.batchnorm),
        generator=torch.Generator(device).manual_seed(recipe.run.seed + 1),
        attack=attack,
        targets=_targets(recipe, faces.training, device),
        regularizer=_regularizer(recipe),
        reference=_reference(recipe, reference or start, backbone, device, speed),
        timing=recipe.method.timing,
        adversarial_batches=recipe.method.adversarial_batches,
        goal=recipe.method.attack.goal,
        weights=Weights(source=recipe.method.source, alpha=recipe.method.alpha, regularizer=recipe.method.weight),
        ramp=Ramp(steps=_ramp_steps(recipe)),
        accumulate=recipe.optimiser.accumulate,
        clip_norm=recipe.optimiser.clip_norm,
    )
    proposer = attack if isinstance(attack, GenerativeAttack) else None
    decay = recipe.optimiser.average
    return Assembly(
        trainer=trainer,
        backbone=backbone,
        objective=objective,
        proposer=proposer,
        average=WeightAverage(backbone, decay) if decay else None,
    )


def _objective(recipe: Recipe, faces: FaceSource, backbone: Backbone, seeds: torch.Generator) -> Any:
    kind, classes, size = recipe.head.kind, len(faces.people), backbone.architecture.embedding_size
    s, m = recipe.head.s, recipe.head.m
    if kind == "none":
        return SelfReference()
    if kind == "softmax":
        return MarginObjective(heads.Softmax(classes, size, generator=seeds))
    if kind == "arcface":
        return MarginObjective(heads.ArcFace(classes, size, s=s, m=m, generator=seeds))
    if kind == "cosface":
        return MarginObjective(heads.CosFace(classes, size, s=s, m=m, generator=seeds))
    if kind == "adaface":
        return MarginObjective(heads.AdaFace(classes, size, s=s, m=m, generator=seeds))
    assert_never(kind)


def _optimizer(recipe: Recipe, backbone: nn.Module, objective: nn.Module) -> torch.optim.Optimizer:
    """No decay on norms, biases and activation slopes: everything of one dimension."""
    options = recipe.optimiser
    parameters = [p for module in (backbone, objective) for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if options.kind == "adamw":
        return torch.optim.AdamW(groups, lr=options.rate, betas=(options.momentum, 0.999))
    return torch.optim.SGD(groups, lr=options.rate, momentum=options.momentum)


def _gate(recipe: Recipe, objective: Objective) -> Gate:
    options = recipe.method.gate
    if options.kind in ("always", "never"):
        return FixedGate(is_open=options.kind == "always")
    if options.kind == "random":
        return RandomGate(options.probability, seed=recipe.run.seed)
    if options.kind in ("accuracy", "verification"):
        return ThresholdGate(options.threshold)
    bound = loss_threshold(options.loss.value, chance_loss=objective.chance_loss() if options.loss.of_chance else None)
    if options.kind == "smoothed":
        return SmoothedGate(bound, decay=options.decay, hysteresis=options.hysteresis)
    return ThresholdGate(bound)


def _performance(
    recipe: Recipe, objective: Objective, backbone: Backbone, validation: FaceSource | None
) -> Performance:
    options = recipe.method.gate
    if options.kind == "accuracy":
        return BatchAccuracy(objective)
    if options.kind != "verification":
        return negative_loss
    assert validation is not None
    held_out = validation

    def measure() -> float:
        return validation_metrics(backbone, held_out, fmr=options.fmr, seed=recipe.run.seed).tar

    return HeldOutVerification(measure, every=options.every)


def _attack(recipe: Recipe, embedding_size: int, seeds: torch.Generator, device: torch.device) -> Attack:
    options = recipe.method.attack
    around = ball(options.norm, options.eps)
    if options.kind == "nfgsm":
        return NFGSM(ball=around, noise=options.noise, project=options.project)
    if options.kind == "pgd":
        return PGD(ball=around, steps=options.steps, keep_best=False)
    with torch.random.fork_rng(devices=[]):  # its layers initialise from the global state
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=seeds)))
        network = PerturbationNetwork(embedding_size=embedding_size)
    network = network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    return GenerativeAttack(ball=around, network=network, optimizer=optimizer)


def _ramp_steps(recipe: Recipe) -> int:
    """Of a share of a run whose length nobody knows yet: so many that the radius hardly grows until somebody does."""
    ramp = recipe.method.attack.ramp
    return UNKNOWN_RAMP if 0 < ramp < 1 else int(ramp)


def _targets(recipe: Recipe, faces: FaceSource, device: torch.device) -> TargetSampler | None:
    options = recipe.method.targets
    if options.kind == "none":
        return None
    designate: Designation
    bring = None
    if options.designate == "nearest":
        designate = Nearest(same_person=options.same_person)
    elif options.designate == "random":
        designate = RandomOther()
    else:
        assert options.map is not None
        designate = Mapped(read_target_map(options.map, faces.people))
        bring = FacesOf(faces, recipe.data.size, device)
    if options.kind == "perturbed":
        around = ball(recipe.method.attack.norm, recipe.method.attack.eps)
        return PerturbedSource(designate=designate, attack=PGD(ball=around, steps=options.steps))
    if options.kind == "kept_blend":
        return KeptBlend(designate=designate, share=options.share or 0.3, faces=bring)
    share = 1.0 if options.kind == "other_face" else (options.share or 0.7)
    return OtherFace(designate=designate, share=share, faces=bring)


def _regularizer(recipe: Recipe) -> Regularizer:
    options = recipe.method.regularizer
    if options.function is None:
        return PullRepel(**options.model_dump(exclude={"function"}))
    module, _, name = options.function.partition(":")
    try:
        function: Regularizer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SteadfaceError(
            f"method.regularizer.function {options.function!r}: {error}; write module:function of an importable module"
        ) from error
    return function


def _reference(recipe: Recipe, weights: Path | None, backbone: Backbone, device: torch.device, speed: Speed) -> Any:
    if weights is None or not (recipe.needs_reference or recipe.method.regularizer.function):
        return None
    model = load_backbone(weights)
    size, own = model.architecture.embedding_size, backbone.architecture.embedding_size
    if size != own:
        raise SteadfaceError(
            f"model.reference gives embeddings of {size} numbers and the model to train of {own}: set "
            f"model.architecture.embedding_size to {size}"
        )
    fold_norms(model)  # in evaluation mode for good
    model = model.to(device).requires_grad_(False)
    network = FastNetwork(model, **vars(speed))

    def reference(images: Tensor) -> Tensor:
        with torch.no_grad():
            return F.normalize(network(images))

    return reference


class FacesOf:
    """One face of each person asked for, drawn at random."""

    def __init__(self, faces: FaceSource, size: tuple[int, int], device: torch.device) -> None:
        self._faces, self._size, self._device = faces, size, device
        self._images = PersonImages(faces.labels)

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        draws = torch.rand(len(labels), generator=generator, device=generator.device).cpu().numpy()
        owned = [self._images.of_label(int(label)) for label in labels.tolist()]
        chosen = np.array([images[int(draw * len(images))] for images, draw in zip(owned, draws, strict=True)])
        return load_images(self._faces, chosen, self._size).to(self._device)


def read_target_map(path: Path, people: tuple[str, ...]) -> Tensor:
    """Designated labels ``(C,)`` from a YAML file of ``person: designated person`` that names everybody.

    Raises SteadfaceError naming people who are unknown or missing.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SteadfaceError(f"targets.map {path} cannot be read: {error}") from error
    index = {name: label for label, name in enumerate(people)}
    given = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    unknown = sorted({name for name in (*given, *given.values()) if name not in index})
    missing = sorted(set(people) - set(given))
    if unknown or missing:
        raise SteadfaceError(
            f"targets.map {path}: {len(unknown)} unknown people (first: {unknown[:3]}), {len(missing)} of the "
            f"{len(people)} training people without a target (first: {missing[:3]})"
        )
    return torch.tensor([index[given[name]] for name in people])
