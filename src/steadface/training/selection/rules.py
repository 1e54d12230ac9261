"""Which weights of a run become its model: of those that still recognise, the ones that resist.

Candidates are the moments that were looked at, and what was made of them at the end; none of them is taken to lie
between its neighbours. The reference is the recogniser as it came (of a run from nothing, its first moment). On the
people held out, `E` the clean EER and `A` the worse goal's error rate under attack, its mean over the radii, in
brackets the 95 % interval of the paired difference over people (`evaluation/intervals.py`):

    gains      iff  low [A(reference) - A(candidate)] > 0
    allowed    iff  low [E(candidate) - E(reference)] <= max_clean_drop

so that a candidate is refused for what it is shown to have lost, not for a tenth of a point of thirty people. Of the
candidates that gain and are allowed the cleanest becomes the model whose `A` lies within a standard error of the
lowest (the rule of one standard error: Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees",
1984, section 3.4.3). Where there is none, nothing becomes the model.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from steadface.errors import SteadfaceError
from steadface.evaluation.intervals import Difference, Figure, paired_difference
from steadface.evaluation.labelled import ValidationMetrics

Kind = Literal["look", "line", "recovered"]


class NothingGained(SteadfaceError):
    """A run that has ended without a model: nothing in it resists better and still recognises well enough."""

    exit_code = 3


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Weights that could become the model, and what the people held out say of them.

    `kind` tells where they come from: a look during training, a place on the line to the last moment (at `share`
    of the way), or the start after its corners were rounded and it has recovered. `attacks` is for readers.
    """

    name: str
    kind: Kind
    step: int
    share: float
    clean: Figure
    attacked: Figure
    attacks: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def seen(
        cls, name: str, metrics: ValidationMetrics, *, kind: Kind = "look", step: int, share: float = 1.0
    ) -> "Candidate":
        """From figures that are compared (`validation_metrics`)."""
        assert metrics.clean is not None
        assert metrics.attacked is not None
        attacks = tuple(result.to_json() for result in metrics.attacks)
        return cls(
            name=name,
            kind=kind,
            step=step,
            share=share,
            clean=metrics.clean,
            attacked=metrics.attacked,
            attacks=attacks,
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def facts(self) -> dict[str, Any]:
        """What the model's file says of where it comes from."""
        return {
            "name": self.name,
            "step": self.step,
            "share": self.share,
            "clean": self.clean.value,
            "attacked": self.attacked.value,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Candidate":
        """Raises KeyError or TypeError for what `to_json` did not make."""
        figures = {
            key: Figure(value=data[key]["value"], without=tuple(data[key]["without"])) for key in ("clean", "attacked")
        }
        return cls(**{**data, **figures, "attacks": tuple(data["attacks"])})


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a candidate has lost on clean faces and gained under attack against the reference."""

    lost: Difference
    gained: Difference

    @property
    def gains(self) -> bool:
        return self.gained.low > 0

    def allowed(self, max_clean_drop: float) -> bool:
        return self.lost.low <= max_clean_drop


def verdict(candidate: Candidate, reference: Candidate) -> Verdict:
    """Of a candidate and the reference, seen on the same people."""
    return Verdict(
        lost=paired_difference(candidate.clean, reference.clean),
        gained=paired_difference(reference.attacked, candidate.attacked),
    )


def choose(candidates: Iterable[Candidate], reference: Candidate, max_clean_drop: float) -> Candidate | None:
    """The candidate that becomes the model; None where none both gains and is allowed."""
    fit = [one for one in candidates if (seen := verdict(one, reference)).gains and seen.allowed(max_clean_drop)]
    if not fit:
        return None
    best = min(fit, key=_attacked)
    near = [one for one in fit if (apart := paired_difference(one.attacked, best.attacked)).value <= apart.error]
    return min(near, key=lambda one: (one.clean.value, one.attacked.value))


def why_nothing(candidates: Sequence[Candidate], reference: Candidate, max_clean_drop: float) -> str:
    """What stood in the way, in words, where `choose` finds none."""
    gaining = [one for one in candidates if verdict(one, reference).gains]
    if not gaining:
        best = min(candidates, key=_attacked)
        return (
            f"none of {len(candidates)} candidates is shown to resist better than the recogniser as it came (attacks "
            f"succeed in {told(verdict(best, reference).gained)} points fewer of the pairs with {best.name}): train "
            "for longer, on more faces, or hold out more people"
        )
    cleanest = min(gaining, key=lambda one: one.clean.value)
    return (
        f"{len(gaining)} of {len(candidates)} candidates resist better, and each is shown to have lost more than the "
        f"{percent_of(max_clean_drop)} points of clean accuracy that it may ({cleanest.name} has lost least, "
        f"{told(verdict(cleanest, reference).lost)} points): allow more, or train for longer"
    )


def exhausted(looks: Sequence[Candidate], reference: Candidate, patience: int) -> bool:
    """Whether so many looks in a row, once one has gained, have brought no lower error under attack than before."""
    since, lowest, gained = 0, math.inf, False
    for look in looks:
        improved, lowest = look.attacked.value < lowest, min(lowest, look.attacked.value)
        gained = gained or verdict(look, reference).gains
        since = 0 if improved or not gained else since + 1
    return since >= patience


def undominated(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that no other beats both on clean faces and under attack: whatever is allowed, one of these is chosen."""
    return [
        one
        for one in candidates
        if not any(
            other.clean.value < one.clean.value and other.attacked.value < one.attacked.value for other in candidates
        )
    ]


def _attacked(candidate: Candidate) -> float:
    return candidate.attacked.value


def percent_of(value: float) -> str:
    """A rate in per cent."""
    return f"{100 * value:.2f}"


def told(difference: Difference) -> str:
    """A difference of rates in points, with its 95 % interval."""
    return f"{percent_of(difference.value)} ({percent_of(difference.low)} to {percent_of(difference.high)})"
