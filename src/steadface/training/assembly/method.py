"""The parts of the method that a recipe names: gate, performance, attack, targets, regulariser."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor

from steadface.attacks import NFGSM, PGD, Attack, GaussianNoise, GenerativeAttack, PerturbationNetwork, ball
from steadface.attacks.balls import Ball
from steadface.data.faces import FaceSource
from steadface.errors import InvalidInput, unreadable
from steadface.evaluation.labelled import validation_metrics
from steadface.heads.heads import Objective
from steadface.ranks import ALONE, Ranks
from steadface.training.assembly.faces import FacesOf
from steadface.training.constraint import SteeredGate, check_look, look
from steadface.training.gate import (
    BoundedGate,
    FixedGate,
    Gate,
    RandomGate,
    SlackGate,
    SmoothedGate,
    ThresholdGate,
    loss_threshold,
)
from steadface.training.networks import Network
from steadface.training.performance import BatchAccuracy, HeldOutVerification, Performance, negative_loss
from steadface.training.recipe import Recipe
from steadface.training.recipe.method import AttackOptions, GateOptions, TargetOptions
from steadface.training.recipe.reading import MOST_VALUES, UnfitYaml, read_yaml
from steadface.training.regularizers import PullRepel, Regularizer
from steadface.training.step import Ramp
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

UNKNOWN_RAMP = 1000

MOST_MAP_BYTES = 1 << 27
"""Of a map of targets: a million people, of whom each is named twice."""


def make_gate(
    recipe: Recipe,
    objective: Objective,
    model: Callable[[], Network],
    held_out: FaceSource | None,
    ranks: Ranks = ALONE,
) -> Gate:
    """The gate, closed unless it is always open.

    Where a clean level is asked for, `model` gives the network to be looked at, a copy with the weights of the moment.
    Raises SteadfaceError where the people `held_out` are too few for that.
    """
    gate, clean = _gate(recipe, objective), recipe.method.gate.clean
    if clean is None:
        return gate
    assert held_out is not None, "the recipe has seen to it"
    assert isinstance(gate, BoundedGate), "and to this"
    check_look(recipe, held_out)

    def measure() -> tuple[float, float]:
        seen = look(recipe, model(), held_out)
        return 1 - seen.eer, 0.5 / seen.genuine_pairs

    return SteeredGate(gate, level=clean.level, measure=lambda: ranks.from_first(measure), every=clean.every)


def _gate(recipe: Recipe, objective: Objective) -> Gate:
    options = recipe.method.gate
    match options.kind:
        case "always" | "never":
            return FixedGate(is_open=options.kind == "always")
        case "random":
            return RandomGate(options.probability, seed=recipe.run.seed)
        case "accuracy" | "verification":
            return ThresholdGate(options.threshold)
        case "smoothed":
            bound = _loss_bound(options, objective)
            return SmoothedGate(bound, decay=options.decay, hysteresis=options.hysteresis)
        case "loss":
            return ThresholdGate(_loss_bound(options, objective))
        case "slack":
            bound = _loss_bound(options, objective)
            return SlackGate(bound, gain=options.gain, most=options.most, drives=options.drives)
        case unknown:
            assert_never(unknown)


def _loss_bound(options: GateOptions, objective: Objective) -> float:
    return loss_threshold(options.loss.value, chance_loss=objective.chance_loss() if options.loss.of_chance else None)


def make_performance(
    recipe: Recipe, objective: Objective, backbone: Network, validation: FaceSource | None, ranks: Ranks = ALONE
) -> Performance:
    """What the gate hears of each source batch."""
    options = recipe.method.gate
    match options.kind:
        case "accuracy":
            return BatchAccuracy(objective, ranks)
        case "verification":
            assert validation is not None
            return _held_out_verification(recipe, backbone, validation, ranks)
        case "loss" | "smoothed" | "slack" | "always" | "never" | "random":
            return negative_loss
        case unknown:
            assert_never(unknown)


def _held_out_verification(
    recipe: Recipe, backbone: Network, validation: FaceSource, ranks: Ranks
) -> HeldOutVerification:
    options = recipe.method.gate

    def measure() -> float:
        return validation_metrics(backbone, validation, fmr=options.fmr, seed=recipe.run.seed).tar

    return HeldOutVerification(lambda: ranks.from_first(measure), every=options.every)


def make_attack(options: AttackOptions, embedding_size: int, seeds: torch.Generator, device: torch.device) -> Attack:
    """The attack that is trained against; weights of a network that attacks are drawn from `seeds`."""
    around = ball(options.norm, options.eps)
    match options.kind:
        case "nfgsm":
            return NFGSM(ball=around, noise=options.noise, project=options.project)
        case "pgd":
            return PGD(ball=around, steps=options.steps, keep_best=False)
        case "gaussian":
            return GaussianNoise(ball=around, blur=options.blur)
        case "generator":
            return _generator(options, around, embedding_size, seeds, device)
        case unknown:
            assert_never(unknown)


def _generator(
    options: AttackOptions, around: Ball, embedding_size: int, seeds: torch.Generator, device: torch.device
) -> GenerativeAttack:
    with torch.random.fork_rng(devices=[]):  # its layers initialise from the global state
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=seeds)))
        network = PerturbationNetwork(embedding_size=embedding_size)
    network = network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    return GenerativeAttack(ball=around, network=network, optimizer=optimizer)


def make_ramp(options: AttackOptions) -> Ramp:
    """Of a share of a run of unknown length: so many steps that the radius hardly grows until the length is known."""
    return Ramp(steps=UNKNOWN_RAMP if 0 < options.ramp < 1 else int(options.ramp))


def make_targets(recipe: Recipe, faces: FaceSource, device: torch.device) -> TargetSampler | None:
    """Who brings the target samples; None where the method goes without."""
    options = recipe.method.targets
    if options.kind == "none":
        return None
    designate = _designation(options, faces)
    bring = FacesOf(faces, recipe.data.size, device) if options.designate == "map" else None
    match options.kind:
        case "perturbed":
            around = ball(recipe.method.attack.norm, recipe.method.attack.eps)
            return PerturbedSource(designate=designate, attack=PGD(ball=around, steps=options.steps))
        case "kept_blend":
            return KeptBlend(designate=designate, share=options.share or 0.3, faces=bring)
        case "blend":
            return OtherFace(designate=designate, share=options.share or 0.7, faces=bring)
        case "other_face":
            return OtherFace(designate=designate, faces=bring)
        case unknown:
            assert_never(unknown)


def _designation(options: TargetOptions, faces: FaceSource) -> Designation:
    match options.designate:
        case "nearest":
            return Nearest(same_person=options.same_person)
        case "random":
            return RandomOther()
        case "map":
            assert options.map is not None
            return Mapped(read_target_map(options.map, faces.people))
        case unknown:
            assert_never(unknown)


def read_target_map(path: Path, people: tuple[str, ...]) -> Tensor:
    """Designated labels `(C,)` from a YAML file of `person: designated person` that names everybody.

    Raises InvalidInput naming people who are unknown or missing.
    """
    try:
        given = read_yaml(path, most=MOST_MAP_BYTES, values=4 * len(people) + MOST_VALUES)
    except OSError as error:
        raise unreadable(error, f"targets.map {path} cannot be read: {error.strerror}") from error
    except UnfitYaml as error:
        raise InvalidInput(f"targets.map {path} cannot be read: {error}") from error
    index = {name: label for label, name in enumerate(people)}
    given = {str(k): str(v) for k, v in given.items()} if isinstance(given, dict) else {}
    unknown = sorted({name for name in (*given, *given.values()) if name not in index})
    missing = sorted(set(people) - set(given))
    if unknown or missing:
        raise InvalidInput(
            f"targets.map {path}: {len(unknown)} unknown people (first: {unknown[:3]}), {len(missing)} of the "
            f"{len(people)} training people without a target (first: {missing[:3]})"
        )
    return torch.tensor([index[given[name]] for name in people])


def make_regularizer(recipe: Recipe) -> Regularizer:
    """The regulariser of the recipe, or the function that it names."""
    options = recipe.method.regularizer
    if options.function is None:
        return PullRepel(**options.model_dump(exclude={"function"}))
    module, _, name = options.function.partition(":")
    try:
        function: Regularizer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"method.regularizer.function {options.function!r}: {error}; write module:function of an importable module"
        ) from error
    return function
