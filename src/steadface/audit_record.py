"""What `audit.json` and `comparison.json` hold, as types: an audit fills them, report and comparison use them.

Every figure is finite and in its range, or its record is not made. A key that older files lack has a default, and is
written only where it was given, so that a file that was read comes back as it was.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from steadface.errors import InvalidInput, NotFound
from steadface.files import read_file
from steadface.records import Cosine, Count, Interval, Record, Share, parsed

Goal = Literal["dodging", "impersonation"]
Norm = Literal["linf", "l2"]
GOALS: tuple[Goal, Goal] = ("dodging", "impersonation")

LARGEST = 64 * 2**20
"""Bytes of a file that is read; that of 10,000 pairs has some 10 MiB. Parsed it takes some 16 times as much."""

Change = Annotated[float, Field(ge=-1, le=1)]
Length = Annotated[float, Field(ge=0)]
"""Of a perturbation, on the pixel range 0..1."""
Radius = Annotated[float, Field(gt=0)]


class StatedConvention(Record):
    """How the recogniser takes its images, in words; `known`: how each is known."""

    size: str
    range: str
    order: str
    known: Mapping[str, str] = {}


class Model(Record):
    """The recogniser that was audited; `image_size` is (height, width)."""

    name: str
    path: str | None = None
    fingerprint: str
    output: str | None = None
    embedding_size: int | None = None
    image_size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    differentiable: bool
    convention: StatedConvention
    notes: tuple[str, ...] = ()


class ThresholdSource(Record):
    """Where the threshold comes from; `images` and `people` are None for listed pairs."""

    pairs: str
    fmr: Share
    threshold: Cosine
    measured_fmr: Share
    impostor_mean: Cosine
    impostor_pairs: Count
    images: Count | None = None
    people: Count | None = None


class CleanIntervals(Record):
    fnmr: Interval
    fmr: Interval


class CleanRates(Record):
    """Errors on the attacked pairs before any attack, and the mean cosines of both kinds."""

    fnmr: Share
    fmr: Share
    ci: CleanIntervals
    genuine_pairs: Count
    impostor_pairs: Count
    genuine_mean: Cosine
    impostor_mean: Cosine


class AttackedRate(Record):
    """Share of a goal's pairs that are wrong under `attack` inside a ball; `error_rate_8bit` of the saved images."""

    attack: str
    norm: Norm
    eps: Radius
    goal: Goal
    fmr: Share
    threshold: Cosine
    error_rate: Share
    ci: Interval
    pairs: Count
    error_rate_8bit: Share
    cosine: Cosine | None = None


class WorstCase(AttackedRate):
    """Over all attacks that count; `by`: how many pairs each broke first, at the main threshold alone."""

    by: Mapping[str, Count] = {}


class Queries(Record):
    """Forward passes a pair of an attack without gradients."""

    median: Length
    most: Count


class SingleAttack(AttackedRate):
    queries: Queries | None = None
    part_of_worst_case: bool = True


class OtherThreshold(Record):
    fmr: Share
    threshold: Cosine
    clean: CleanRates
    worst_case: tuple[WorstCase, ...]


class MedianDistance(Record):
    """The median of the smallest perturbations found; None where it, or an end, lies beyond `radius`, the largest ball.

    `censored` pairs hold even there, `already_wrong` ones need no perturbation.
    """

    median: Length | None
    ci: tuple[Length | None, Length | None]
    pairs: Count
    censored: Count
    radius: Radius
    already_wrong: Count


class Check(Record):
    """One of the checks of the attacks themselves; `passed` is None where it could not be judged."""

    name: str
    passed: bool | None
    finding: str


class CleanSearch(Record):
    """1:N without an attack; rates are None without probes."""

    fnir: Share | None
    fnir_ci: Interval
    rank1: Share | None
    rank1_ci: Interval
    probes: Count


class DodgingSearch(Record):
    goal: Literal["dodging"]
    fnir: Share | None
    fnir_ci: Interval
    rank1_miss: Share | None
    rank1_miss_ci: Interval
    probes: Count
    norm: Norm
    eps: Radius


class TargetedSearch(Record):
    goal: Literal["impersonation"]
    targeted_fpir: Share | None
    targeted_fpir_ci: Interval
    targeted_rank1: Share | None
    targeted_rank1_ci: Interval
    probes: Count
    norm: Norm
    eps: Radius


Search = Annotated[DodgingSearch | TargetedSearch, Field(discriminator="goal")]


class IdentificationRates(Record):
    """A gallery of so many people is searched at the threshold that so many strangers fix at `fpir`."""

    fpir: Share
    threshold: Cosine
    gallery: Count
    strangers: Count
    clean: CleanSearch
    attacks: tuple[Search, ...]


class CorruptionRate(Record):
    corruption: str
    severity: Count
    goal: Goal
    error_rate: Share
    ci: Interval
    pairs: Count


class PatchRate(Record):
    """`area` is the share of the picture that the patch covers."""

    patch: str
    area: Share
    goal: Goal
    error_rate: Share
    ci: Interval
    pairs: Count


Axis = Annotated[tuple[float, ...], Field(min_length=2)]


class Surface(Record):
    """Cosines (random, gradient) around a pair, over so far along the gradient and along a random direction."""

    goal: Goal
    norm: Norm
    eps: Radius
    gradient: Axis
    random: Axis
    cosine: tuple[tuple[Cosine, ...], ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.cosine) != len(self.random) or any(len(row) != len(self.gradient) for row in self.cosine):
            raise ValueError("the cosines are not as many as the points of the two axes")
        return self


class PairOutcome(Record):
    """What happened to one pair: cosines before, and by radius; `broken_at` 0 needs no attack, None held."""

    goal: Goal
    first: str
    second: str
    cosine: Cosine
    attacked: Mapping[str, Cosine]
    broken_at: Length | None
    broken_by: str | None
    distance: Length | None
    censored: bool | None
    png: str | None = None
    survives_png: bool | None = None


class Settings(Record):
    """What was asked; `budget` is what the preset spends, and the last three say where the pairs came from."""

    preset: Literal["quick", "standard", "full"]
    norm: Norm
    eps: Annotated[tuple[Radius, ...], Field(min_length=1)]
    fmr: Share
    threshold: Cosine | None = None
    max_pairs: Count
    seed: Count
    mirror: bool
    detail: bool = False
    surrogates: tuple[str, ...] = ()
    budget: Mapping[str, Count] = {}
    images: str | None = None
    pairs: str | None = None
    calibration_pairs: str | None = None


class Audit(Record):
    """All that `audit.json` holds. `fmr` and `threshold` are the ones that the audit is about."""

    title: str = ""
    kind: Literal["audit"]
    model: Model
    fmr: Share
    threshold: Cosine
    calibration: ThresholdSource
    clean: CleanRates
    worst_case: tuple[WorstCase, ...]
    attacks: tuple[SingleAttack, ...]
    other_thresholds: tuple[OtherThreshold, ...] = ()
    median_distance: Mapping[Norm, Mapping[Goal, Length | None]]
    distances: Mapping[Norm, Mapping[Goal, MedianDistance]]
    checks: tuple[Check, ...] = ()
    identification: IdentificationRates | None = None
    corruptions: tuple[CorruptionRate, ...] = ()
    patches: tuple[PatchRate, ...] = ()
    surfaces: tuple[Surface, ...] = ()
    pairs: tuple[PairOutcome, ...]
    seconds: Length | None = None
    warnings: tuple[str, ...] = ()
    settings: Settings
    versions: Mapping[str, str] = {}
    command: str = ""

    @model_validator(mode="after")
    def _both_goals(self) -> Self:
        if any({one.goal for one in part} != set(GOALS) for part in (self.worst_case, self.pairs)):
            raise ValueError("worst case or pairs have not both goals, dodging and impersonation")
        return self


class RateTest(Record):
    """A paired test of the worst case at one radius; `difference` is the second model's rate less the first's."""

    goal: Goal
    norm: Norm
    eps: Radius
    fmr: Share
    rates: tuple[Share, Share]
    difference: Change
    ci: tuple[Change, Change]
    only_first: Count
    only_second: Count
    pairs: Count
    p: Share


class DistanceTest(Record):
    """A paired test of the smallest distances; a median is None where it was not reached."""

    goal: Goal
    norm: Norm
    medians: tuple[Length | None, Length | None]
    ratio: Length | None
    p: Share
    pairs: Count


class Comparison(Record):
    """All that `comparison.json` holds of two audits of the same pairs."""

    title: str = ""
    kind: Literal["audit comparison"]
    models: tuple[Model, Model]
    names: tuple[str, str]
    settings: Settings
    audits: tuple[Audit, Audit]
    tests: tuple[RateTest, ...]
    distance_tests: tuple[DistanceTest, ...]
    warnings: tuple[str, ...] = ()
    versions: Mapping[str, str] = {}
    command: str = ""


def read_audit(file: Path) -> Audit:
    """The record in the file `audit.json`.

    Raises NotFound where there is none, InvalidInput, which names the place, for one that is no record of an audit.
    """
    try:
        return parsed(Audit, read_file(file, most=LARGEST))
    except OSError as error:
        raise NotFound(
            f"{file} cannot be read ({error.strerror}): give a folder that `steadface audit` wrote"
        ) from error
    except InvalidInput as error:
        raise InvalidInput(f"{file} is no audit ({error}): give a folder that `steadface audit` wrote") from None
