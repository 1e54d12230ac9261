"""The method's section of a recipe: gate, targets, attack and regulariser, every key with its type and its default."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from steadface.attacks.gaussian import WIDEST_BLUR
from steadface.training.batchnorm import Mode
from steadface.training.gate import Driven
from steadface.training.recipe.sections import File, Positive, Radius, Section, Share, check_radius


def _loss_bound(value: object) -> object:
    """`0.3 chance` as `{"value": 0.3, "of_chance": True}`; a number as itself."""
    if isinstance(value, str):
        number, _, unit = value.partition(" ")
        if unit.strip() in ("chance", "of chance"):
            return {"value": number, "of_chance": True}
        return {"value": value}
    return {"value": value} if isinstance(value, int | float) else value


class LossBound(Section):
    """A bound on the source loss: absolute, or as a fraction of the head's chance loss (`0.3 chance`)."""

    value: Annotated[float, Field(gt=0)]
    of_chance: bool = False


class Anneal(Section):
    """A bound that begins `times` as large as it is meant to be, and falls to that over the share `over` of the run.

    Where the bound follows a clean level the error asked for does so in its place.
    """

    times: Annotated[float, Field(gt=0, le=1000)] = 3.0
    over: Annotated[float, Field(gt=0, le=1)] = 0.5


class CleanLevel(Section):
    """A clean level asked for, 1 - EER on people held out, that the bound follows by a look `every` so many steps."""

    level: Annotated[float, Field(gt=0.5, le=1)]
    every: Positive = 50


BOUNDED = ("loss", "smoothed", "slack")
"""Kinds of gate that have a bound on the loss."""


class GateOptions(Section):
    """When adversarial training takes part.

    `loss` is the literal form, open iff the batch's source loss is below `loss`; `smoothed` puts an EMA with
    hysteresis in front of the same bound; `slack` opens by degrees, further by `gain` times the relative slack of each
    batch below the bound, and the degree, at most `most`, multiplies what it `drives`; `accuracy` and
    `verification` compare the batch accuracy or the held-out rate (at `fmr`) with `threshold`; `always`, `never` and
    `random` (open with `probability`) are what a gate is compared with. `anneal` and `clean` move the bound, the latter
    in place of `loss`.
    """

    kind: Literal["loss", "smoothed", "slack", "accuracy", "verification", "always", "never", "random"] = "loss"
    loss: Annotated[LossBound, BeforeValidator(_loss_bound)] = LossBound(value=0.5, of_chance=True)
    threshold: Share = 0.5
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    hysteresis: Annotated[float, Field(ge=0, lt=1)] = 0.1
    gain: Annotated[float, Field(gt=0, le=1)] = 0.1
    most: Annotated[float, Field(gt=0, le=100)] = 1.0
    drives: Driven = "radius"
    anneal: Anneal | None = None
    clean: CleanLevel | None = None
    fmr: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    every: Positive = 100
    probability: Share = 0.5
    warn_after: Positive = 1000

    @model_validator(mode="after")
    def _has_a_bound_to_move(self) -> "GateOptions":
        for name, value in (("anneal", self.anneal), ("clean", self.clean)):
            if value is not None and self.kind not in BOUNDED:
                raise ValueError(
                    f"gate.{name} moves the bound on the loss, and kind {self.kind} has none: set kind to one of "
                    f"{', '.join(BOUNDED)}"
                )
        return self


class TargetOptions(Section):
    """Target samples: how they are made and whom they designate.

    `other_face` and `blend` (dominated by the other) are another person's; `perturbed` and `kept_blend` are
    constructed on the source itself. `map` is a YAML file of `person: designated person`.
    """

    kind: Literal["other_face", "blend", "perturbed", "kept_blend", "none"] = "other_face"
    designate: Literal["nearest", "random", "map"] = "nearest"
    map: File | None = None
    same_person: Annotated[float, Field(gt=-1, le=1)] = 0.6
    share: Share | None = None
    steps: Positive = 3


class ProbeOptions(Section):
    """When the training attack is compared with PGD of `steps` on people held out, and gets a step more.

    After every `every` open steps: it gets one, up to `most`, where it gains less than `reach` of what the
    stronger one gains.
    """

    every: Positive = 100
    steps: Positive = 10
    reach: Annotated[float, Field(gt=0, lt=1)] = 0.85
    most: Positive = 4


class AttackOptions(Section):
    """Adversarial samples: how they are crafted and inside which ball (radius as a fraction of the pixel range).

    `gaussian` is noise of the standard deviation `eps` (of norm l2), for smoothed verifiers, and `blur` by how many
    pixels such a verifier blurs what it sees.

    The radius grows over the first `ramp` open steps; below 1 that is a share of the steps that the run will take.
    """

    kind: Literal["nfgsm", "pgd", "generator", "gaussian"] = "nfgsm"
    norm: Literal["linf", "l2"] = "linf"
    eps: Annotated[Radius, Field(gt=0)] = 4 / 255
    steps: Positive = 3
    noise: Annotated[float, Field(ge=0)] = 2.0
    project: bool = True
    goal: Literal["dodge", "impersonate", "both"] = "both"
    ramp: Annotated[float, Field(ge=0)] = 0
    probe: ProbeOptions | None = None
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    blur: Annotated[float, Field(ge=0, le=WIDEST_BLUR)] = 0.0

    @model_validator(mode="after")
    def _sensible_radius(self) -> "AttackOptions":
        check_radius(self.norm, self.eps)
        if self.ramp >= 1 and self.ramp != int(self.ramp):
            raise ValueError(f"attack.ramp {self.ramp:g} is neither a number of steps nor a share of the run below 1")
        if self.kind == "gaussian" and self.norm != "l2":
            raise ValueError("attack.kind gaussian is noise of the standard deviation eps: set attack.norm to l2")
        if self.blur and self.kind != "gaussian":
            raise ValueError(f"attack.blur goes with kind gaussian, and kind is {self.kind}")
        if self.probe is not None and self.kind != "pgd":
            raise ValueError(f"attack.probe chooses the steps of kind pgd, and kind is {self.kind}")
        return self


class RegularizerOptions(Section):
    """Weights of the regulariser's terms; `function` (`module:name`) replaces it by one of your own."""

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
    """The gated method: `source FR(x_s) + alpha FR(x_a) + weight R` while the gate is open."""

    timing: Literal["same", "next"] = "same"
    adversarial_batches: Positive = 1
    source: Annotated[float, Field(ge=0)] = 1.0
    alpha: Annotated[float, Field(ge=0)] = 1.0
    weight: Annotated[float, Field(ge=0)] = 1.0
    gate: GateOptions = GateOptions()
    targets: TargetOptions = TargetOptions()
    attack: AttackOptions = AttackOptions()
    regularizer: RegularizerOptions = RegularizerOptions()
    batchnorm: Mode = "separate"
