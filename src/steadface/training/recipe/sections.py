"""The sections of a recipe but the method's, every key with its type, its default and what it may be.

All sections are immutable, and refuse keys that they do not know.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from steadface.arguments import SEEDS
from steadface.attacks.balls import radius_from
from steadface.backbones import Architecture
from steadface.files import is_name


def _fraction(value: object) -> object:
    """`"4/255"` as a float; anything else is left to pydantic."""
    if isinstance(value, str) and "/" in value:
        try:
            return radius_from(value)
        except (ValueError, ZeroDivisionError):
            return value
    return value


def _file(path: Path) -> Path:
    """A path that there can be, `~` replaced."""
    if not is_name(str(path)):
        raise ValueError("no file can have that name: name one that is there")
    try:
        return path.expanduser()
    except RuntimeError as error:  # ~somebody who is not known here
        raise ValueError(f"{error}: write the whole path") from None


MOST = 10**9
"""Of whatever is counted or weighed; a larger number is a slip, or would take all memory."""

Radius = Annotated[float, BeforeValidator(_fraction)]
File = Annotated[Path, AfterValidator(_file)]
Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
Positive = Annotated[int, Field(ge=1, le=MOST)]
Whole = Annotated[int, Field(ge=0, le=MOST)]
Share = Annotated[float, Field(ge=0, le=1)]


def check_radius(norm: str, radius: float) -> None:
    if norm == "linf" and radius > 1:
        raise ValueError(f"eps {radius:g} is a fraction of the pixel range: write {radius:g}/255 or another up to 1")


class Section(BaseModel):
    """A part of a recipe: immutable, no key that it does not know, and only finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _not_beyond(self) -> Self:
        for name, value in self:
            if isinstance(value, float) and abs(value) > MOST:
                raise ValueError(f"{name} {value:g} is beyond {MOST:,}: give a smaller number")
        return self


MOST_SYNTHETIC = 10_000_000
"""Faces, of which each takes some bytes before it is drawn."""
MOST_BATCHED = 10**9
"""Pixels of a batch: 80,000 faces of 112 x 112, 3 GB as bytes."""


class SyntheticData(Section):
    """Built-in procedural faces, for runs with nothing downloaded."""

    people: Positive = 64
    images_per_person: Positive = 16
    seed: Seed = 0

    @model_validator(mode="after")
    def _not_too_many(self) -> "SyntheticData":
        if self.people * self.images_per_person > MOST_SYNTHETIC:
            raise ValueError(f"people times images_per_person are more than {MOST_SYNTHETIC:,} faces: ask for fewer")
        return self


class AugmentationOptions(Section):
    """The probability of each augmentation; their strengths are those of `steadface.data.augment.Augmentation`."""

    mirror: Share = 0.5
    crop: Share = 0.0
    colour: Share = 0.0
    grey: Share = 0.0
    jpeg: Share = 0.0
    occlusion: Share = 0.0


class Data(Section):
    """Which faces, at which size, and in which batches.

    `people` is a CSV file of `image,person` (paths relative to `images`) for images that lie in no person's
    folder; `extra` a folder of faces without labels that are trained on too, each its own class, and never held out.
    `workers` processes read and decode, each `prefetch` batches ahead: a slow disk takes more of the former, one that
    pauses now and then more of the latter; neither changes what a run learns.
    `most` bounds how many faces are trained on in all, drawn by `run.seed`; whoever is held out stays the same.
    `contents` says of which images the bytes are compared with those at the start when a run is gone on with: of a
    sample, or of all, which are then read at the start and each time.
    """

    images: File | None = None
    people: File | None = None
    extra: File | None = None
    most: Annotated[int, Field(ge=2, le=MOST)] | None = None
    synthetic: SyntheticData | None = None
    size: tuple[Positive, Positive] = (112, 112)
    batch: Annotated[int, Field(ge=2, le=MOST)] = 64
    min_images: Positive = 2
    validation: Annotated[float, Field(ge=0, lt=1)] = 0.1
    sampling: Literal["balanced", "uniform"] = "uniform"
    images_per_person: Positive = 1
    augmentation: AugmentationOptions = AugmentationOptions()
    workers: Annotated[int, Field(ge=0, le=1024)] = 1
    prefetch: Annotated[int, Field(ge=1, le=1024)] = 2
    contents: Literal["sample", "all"] = "sample"

    @model_validator(mode="after")
    def _batch_has_room(self) -> "Data":
        height, width = self.size
        if self.batch * height * width > MOST_BATCHED:
            raise ValueError(
                f"a batch of {self.batch} faces of {height} x {width} has more than {MOST_BATCHED:,} pixels: take "
                "fewer or smaller ones"
            )
        return self


class Model(Section):
    """The backbone; `start` brings weights (and then their architecture), `imprint` sets the head's prototypes.

    `reference` is a model of the same embedding size whose embeddings a student learns; without it the start is.
    `code` is the `module:function` that the weights are for where they are those of a module of the user's own: naming
    it runs it, and a recipe that names code is to be read before it is run.
    `corner` rounds the activations of the start for training and for good; without it they stay as they came.
    """

    architecture: Architecture = Architecture(name="mobilefacenet")
    start: File | None = None
    reference: File | None = None
    code: str | None = None
    imprint: bool = True
    corner: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class HeadOptions(Section):
    """The recognition loss. `none` trains without labels: every image is its own class, against the start weights.

    `sample_rate` is the share of the identities that compete for a sample (Partial FC); those of the batch always do.
    """

    kind: Literal["arcface", "cosface", "adaface", "softmax", "none"] = "arcface"
    s: Annotated[float, Field(gt=0)] = 64.0
    m: Annotated[float, Field(ge=0)] = 0.5
    sample_rate: Annotated[float, Field(gt=0, le=1)] = 1.0


class Optimizer(Section):
    """SGD or AdamW; the rate warms up linearly, then decays to `final` times the peak. No decay on norms.

    `average` above 0 is the decay of a moving average of the weights, which becomes the model.
    """

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
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0


def _switch(value: object) -> object:
    """`on` and `off` as they are: YAML has read them as true and false."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(_switch)]
LENGTHS = ("steps", "epochs", "minutes")


class EvaluationOptions(Section):
    """How the finished model is judged on the held-out people: PGD on raw cosine at a threshold of other people."""

    eps: tuple[Annotated[Radius, Field(gt=0)], ...] = (2 / 255, 4 / 255)
    norm: Literal["linf", "l2"] = "linf"
    steps: Positive = 20
    restarts: Positive = 2
    fmr: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    max_pairs: Positive = 50
    mirror: bool = True

    @model_validator(mode="after")
    def _sensible_radii(self) -> "EvaluationOptions":
        if not self.eps:
            raise ValueError("eps is empty: give one radius or more")
        check_radius(self.norm, max(self.eps))
        return self


class Selection(Section):
    """The best of the moments that `run.validate_every` looks at becomes the model, not the last one.

    Best is the lowest worst-case error under attack among candidates that are not shown to have lost more clean
    accuracy (1 - EER) than `max_clean_drop` (`training/selection/rules.py`); `choose` names a candidate instead. The
    run ends early after `patience` looks at which the error under attack was not lower than ever before. At the end
    `interpolate` places on the line from the start to the last moment compete too, and where corners were rounded the
    start itself, after `recover` steps of clean training. With `within` above 0 the last moment and those between
    compete after within-class covariance normalisation of that strength, by the people trained on.
    """

    max_clean_drop: Share = 0.005
    choose: str | None = None
    patience: Positive = 4
    interpolate: Whole = 0
    recover: Whole = 0
    within: Share = 0.0

    @property
    def choice(self) -> dict[str, Any]:
        """What may be asked for anew once a run has finished: it changes nothing before."""
        return {"max_clean_drop": self.max_clean_drop, "choose": self.choose}


class NonFinite(Section):
    """What becomes of a batch whose loss or gradient is NaN or infinite.

    `skip` of them are passed over in a run, without an update; the next one ends it. What is written of each
    (`training/nonfinite/dump.py`) has the faces themselves only with `images`.
    """

    skip: Whole = 0
    images: bool = False


class Run(Section):
    """How long, where to, how fast. Give exactly one of `steps`, `epochs` and `minutes`.

    `precision` is the backbone's; in fp16 an update that overflows is left out (`training/lossscale.py`). `recompute`
    keeps less in memory, and computes it anew on the way back (`training/recompute.py`).
    """

    out: File = Path("runs/run")
    steps: Positive | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    seed: Seed = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: Switch = "auto"
    channels_last: Switch = "auto"
    threads: Annotated[int, Field(ge=0, le=4096)] = 0
    recompute: bool = False
    log_every: Positive = 10
    checkpoint_every: Positive = 200
    keep: Positive = 2
    validate_every: Whole = 0
    select: Selection | None = None
    nonfinite: NonFinite = NonFinite()
    tensorboard: bool = True

    @property
    def length(self) -> dict[str, float | None]:
        """How long, by each of LENGTHS."""
        return {name: getattr(self, name) for name in LENGTHS}

    @model_validator(mode="after")
    def _one_length(self) -> "Run":
        given = [name for name, value in self.length.items() if value is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of run.steps, run.epochs and run.minutes, got {given or 'none'}")
        return self
