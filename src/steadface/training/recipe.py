"""Recipes: everything a training run depends on, checked before anything long starts.

A recipe is YAML; ``extends: other.yaml`` starts from another file beside it, and every key can be overridden as
``section.key=value``. Unknown keys are answered with the nearest right one.
"""

import difflib
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from steadface.backbones import Architecture
from steadface.errors import SteadfaceError


def _fraction(value: object) -> object:
    """``"4/255"`` as a float; anything else is left to pydantic."""
    if isinstance(value, str) and "/" in value:
        try:
            return float(Fraction(value.replace(" ", "")))
        except (ValueError, ZeroDivisionError):
            return value
    return value


def _loss_bound(value: object) -> object:
    """``0.3 chance`` as ``{"value": 0.3, "of_chance": True}``; a number as itself."""
    if isinstance(value, str):
        number, _, unit = value.partition(" ")
        if unit.strip() in ("chance", "of chance"):
            return {"value": number, "of_chance": True}
        return {"value": value}
    return {"value": value} if isinstance(value, int | float) else value


Radius = Annotated[float, BeforeValidator(_fraction)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a recipe: immutable, and no key that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SyntheticData(Section):
    """Built-in procedural faces, for runs with nothing downloaded."""

    people: Positive = 64
    images_per_person: Positive = 16
    seed: int = 0


class AugmentationOptions(Section):
    """The probability of each augmentation; their strengths are those of ``steadface.data.augment.Augmentation``."""

    mirror: Share = 0.5
    crop: Share = 0.0
    colour: Share = 0.0
    grey: Share = 0.0
    jpeg: Share = 0.0
    occlusion: Share = 0.0


class Data(Section):
    """Which faces, at which size, and in which batches."""

    images: Path | None = None
    synthetic: SyntheticData | None = None
    size: tuple[Positive, Positive] = (112, 112)
    batch: Annotated[int, Field(ge=2)] = 64
    min_images: Positive = 2
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    sampling: Literal["balanced", "uniform"] = "uniform"
    images_per_person: Positive = 1
    augmentation: AugmentationOptions = AugmentationOptions()
    workers: Annotated[int, Field(ge=0)] = 1


class Model(Section):
    """The backbone; ``start`` brings weights (and then their architecture), ``imprint`` sets the head's prototypes."""

    architecture: Architecture = Architecture(name="mobilefacenet")
    start: Path | None = None
    imprint: bool = True


class HeadOptions(Section):
    """The recognition loss. ``none`` trains without labels: every image is its own class, against the start weights."""

    kind: Literal["arcface", "cosface", "adaface", "softmax", "none"] = "arcface"
    s: Annotated[float, Field(gt=0)] = 64.0
    m: Annotated[float, Field(ge=0)] = 0.5


class LossBound(Section):
    """A bound on the source loss: absolute, or as a fraction of the head's chance loss (``0.3 chance``)."""

    value: Annotated[float, Field(gt=0)]
    of_chance: bool = False


class GateOptions(Section):
    """When adversarial training takes part.

    ``loss`` is the literal form, open iff the batch's source loss is below ``loss``; ``smoothed`` puts an EMA with
    hysteresis in front of the same bound; ``accuracy`` and ``verification`` compare the batch accuracy or the held-out
    rate (at ``fmr``) with ``threshold``; ``always``, ``never`` and ``random`` (open with ``probability``) are what a
    gate is compared with.
    """

    kind: Literal["loss", "smoothed", "accuracy", "verification", "always", "never", "random"] = "loss"
    loss: Annotated[LossBound, BeforeValidator(_loss_bound)] = LossBound(value=0.5, of_chance=True)
    threshold: Share = 0.5
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    hysteresis: Annotated[float, Field(ge=0, lt=1)] = 0.1
    fmr: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    every: Positive = 100
    probability: Share = 0.5
    warn_after: Positive = 1000


class TargetOptions(Section):
    """Target samples: how they are made and whom they designate.

    ``other_face`` and ``blend`` (dominated by the other) are another person's; ``perturbed`` and ``kept_blend`` are
    constructed on the source itself. ``map`` is a YAML file of ``person: designated person``.
    """

    kind: Literal["other_face", "blend", "perturbed", "kept_blend", "none"] = "other_face"
    designate: Literal["nearest", "random", "map"] = "nearest"
    map: Path | None = None
    same_person: Annotated[float, Field(gt=-1, le=1)] = 0.6
    share: Share | None = None
    steps: Positive = 3


class AttackOptions(Section):
    """Adversarial samples: how they are crafted and inside which ball (radius as a fraction of the pixel range)."""

    kind: Literal["nfgsm", "pgd", "generator"] = "nfgsm"
    norm: Literal["linf", "l2"] = "linf"
    eps: Annotated[Radius, Field(gt=0)] = 4 / 255
    steps: Positive = 3
    noise: Annotated[float, Field(ge=0)] = 2.0
    project: bool = True
    goal: Literal["dodge", "impersonate", "both"] = "both"
    ramp: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3


class RegularizerOptions(Section):
    """Weights of the regulariser's terms; ``function`` (``module:name``) replaces it by one of your own."""

    margin: float = 0.2
    triplet: Annotated[float, Field(ge=0)] = 1.0
    pull: Annotated[float, Field(ge=0)] = 1.0
    target_pull: Annotated[float, Field(ge=0)] = 0.0
    reference_adversarial: Annotated[float, Field(ge=0)] = 0.0
    reference_source: Annotated[float, Field(ge=0)] = 0.0
    function: str | None = None

    @property
    def uses_reference(self) -> bool:
        return bool(self.reference_adversarial or self.reference_source)


class Method(Section):
    """The gated method: ``source FR(x_s) + alpha FR(x_a) + weight R`` while the gate is open."""

    timing: Literal["same", "next"] = "same"
    adversarial_batches: Positive = 1
    source: Annotated[float, Field(ge=0)] = 1.0
    alpha: Annotated[float, Field(ge=0)] = 1.0
    weight: Annotated[float, Field(ge=0)] = 1.0
    gate: GateOptions = GateOptions()
    targets: TargetOptions = TargetOptions()
    attack: AttackOptions = AttackOptions()
    regularizer: RegularizerOptions = RegularizerOptions()
    batchnorm: Literal["clean", "separate", "frozen", "joint"] = "separate"


class Optimiser(Section):
    """SGD or AdamW; the rate warms up linearly, then decays to ``final`` times the peak. No decay on norms."""

    kind: Literal["sgd", "adamw"] = "sgd"
    rate: Annotated[float, Field(gt=0)] = 0.1
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup: Share = 0.05
    decay: Literal["cosine", "polynomial", "constant"] = "cosine"
    power: Annotated[float, Field(gt=0)] = 2.0
    final: Share = 0.0
    clip_norm: Annotated[float, Field(gt=0)] | None = 5.0
    accumulate: Positive = 1


Switch = Literal["auto", "on", "off"]


class EvaluationOptions(Section):
    """How the finished model is judged on the held-out people: PGD on raw cosine at a threshold of other people."""

    eps: tuple[Annotated[Radius, Field(gt=0)], ...] = (2 / 255, 4 / 255)
    norm: Literal["linf", "l2"] = "linf"
    steps: Positive = 20
    restarts: Positive = 2
    fmr: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    max_pairs: Positive = 50
    mirror: bool = True


class Run(Section):
    """How long, where to, how fast. Give exactly one of ``steps``, ``epochs`` and ``minutes``."""

    out: Path = Path("runs/run")
    steps: Positive | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Switch = "auto"
    channels_last: Switch = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    log_every: Positive = 10
    checkpoint_every: Positive = 200
    keep: Positive = 2
    validate_every: Annotated[int, Field(ge=0)] = 0
    tensorboard: bool = True

    @model_validator(mode="after")
    def _one_length(self) -> "Run":
        given = [name for name in ("steps", "epochs", "minutes") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of run.steps, run.epochs and run.minutes, got {given or 'none'}")
        return self


class Recipe(Section):
    """One training run."""

    name: str
    data: Data = Data()
    model: Model = Model()
    head: HeadOptions = HeadOptions()
    method: Method = Method()
    optimiser: Optimiser = Optimiser()
    evaluation: EvaluationOptions = EvaluationOptions()
    run: Run

    @model_validator(mode="after")
    def _fits_together(self) -> "Recipe":
        method, gate = self.method, self.method.gate
        if (self.data.images is None) == (self.data.synthetic is None):
            raise ValueError("give either data.images (a folder of identity folders, or a .rec file) or data.synthetic")
        if self.model.start is None and (self.head.kind == "none" or method.regularizer.uses_reference):
            raise ValueError("a reference model is asked for (head.kind none, or reference terms): give model.start")
        if method.targets.kind == "none" and (method.attack.goal != "dodge" or method.regularizer.triplet):
            raise ValueError("without targets (targets.kind none) set attack.goal: dodge and regularizer.triplet: 0")
        if method.source == 0 and (gate.kind != "always" or method.timing != "next"):
            raise ValueError(
                "method.source 0 trains on adversarial samples only: set gate.kind: always and timing: next"
            )
        if (method.targets.designate == "map") != (method.targets.map is not None):
            raise ValueError("targets.designate map and targets.map FILE belong together")
        if method.batchnorm == "frozen" and self.model.start is None:
            raise ValueError("batchnorm frozen keeps the statistics of trained weights: give model.start")
        if gate.kind == "verification" and self.data.validation == 0:
            raise ValueError("gate.kind verification needs held-out people: data.validation above 0")
        return self


def load_recipe(path: Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe of a YAML file with ``section.key=value`` overrides.

    Raises SteadfaceError naming the key, the value and what is allowed.
    """
    return make_recipe(_merged(path), overrides, source=str(path))


def make_recipe(values: dict[str, Any], overrides: list[str] | None = None, *, source: str = "recipe") -> Recipe:
    """A recipe from plain values; see ``load_recipe``."""
    for override in overrides or []:
        values = _set(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise SteadfaceError(f"{source}: " + "; ".join(_explain(item) for item in error.errors())) from None


def _merged(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SteadfaceError(f"recipe {path}: {error.strerror or error}; recipes/ holds the ones that ship") from None
    except yaml.YAMLError as error:
        raise SteadfaceError(f"recipe {path} is not YAML: {error}") from None
    if not isinstance(values, dict):
        raise SteadfaceError(f"recipe {path} holds no mapping of sections")
    base = values.pop("extends", None)
    return values if base is None else _overlay(_merged(path.parent / str(base)), values)


def _overlay(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in values.items():
        inner = merged.get(key)
        merged[key] = _overlay(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def _set(values: dict[str, Any], override: str) -> dict[str, Any]:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise SteadfaceError(f"--set {override}: write section.key=value, as in run.minutes=10")
    nested: Any = yaml.safe_load(text) if text else None
    for part in reversed(key.strip().split(".")):
        nested = {part: nested}
    return _overlay(values, nested)


def _explain(item: Any) -> str:
    location = [str(part) for part in item["loc"]]
    where = ".".join(location) or "recipe"
    if item["type"] == "extra_forbidden":
        known = _fields(location[:-1])
        near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "known keys: " + ", ".join(sorted(known))
        return f"{where} is no key of a recipe; {hint}"
    message = item["msg"].removeprefix("Value error, ")
    return message if not location else f"{where} = {item['input']!r}: {message}"


def _fields(location: list[str]) -> list[str]:
    """The keys of the section at ``location``."""
    model: type[BaseModel] = Recipe
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        inner = [
            a
            for a in (annotation, *getattr(annotation, "__args__", ()))
            if isinstance(a, type) and issubclass(a, BaseModel)
        ]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)
